"""Scores of MER-UniBench: hit rate, weighted F1 and accuracy of the sign, and the F-score over emotion wheels.

Kept as published, quirks included, so that numbers compare.  Source: domain notes 6.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from affect_infer.scores.wheels import N_WHEELS, Wheels


@dataclass(frozen=True, slots=True)
class Score:
    """One dataset's main score and what goes with it, all in 0..1."""

    metric: str
    """`hit rate`, `WAF` or `EW F-score`"""
    value: float
    samples: int
    """how many samples count: those whose own label can be scored (for wheels: on at least one)"""
    details: Mapping[str, float] = field(default_factory=dict)


def hit_rate(labels: Mapping[str, str], predicted: Mapping[str, Sequence[str]], wheels: Wheels) -> Score:
    """Whether the predicted labels contain the true one's basic emotion, averaged over samples, then over wheels.

    labels     {sample: one word}; predicted {sample: labels}, with an entry for each
    A sample counts on the wheels where its own label has a basic emotion: `neutral` has none on any.
    """
    per_wheel, counted = [], set[str]()
    for wheel in range(N_WHEELS):
        hits = []
        for sample, label in labels.items():
            if truth := wheels.clusters_of([label], wheel):
                hits.append(len(truth & wheels.clusters_of(predicted[sample], wheel)))
                counted.add(sample)
        per_wheel.append(_mean(hits))
    details = {f"wheel{wheel + 1}": value for wheel, value in enumerate(per_wheel)}
    return Score("hit rate", _mean(per_wheel), len(counted), details)


def wheel_f_score(labels: Mapping[str, Sequence[str]], predicted: Mapping[str, Sequence[str]], wheels: Wheels) -> Score:
    """F-score of sets of basic emotions: per wheel from the *mean* precision and recall, then averaged over wheels.

    labels, predicted   {sample: labels}; a sample without a true basic emotion on a wheel does not count there, one
    without a predicted basic emotion counts as 0
    """
    scores, counted = [], set[str]()
    for wheel in range(N_WHEELS):
        precisions, recalls = [], []
        for sample, true_labels in labels.items():
            truth = wheels.clusters_of(true_labels, wheel)
            if not truth:
                continue
            counted.add(sample)
            guess = wheels.clusters_of(predicted[sample], wheel)
            right = len(truth & guess)
            precisions.append(right / len(guess) if guess else 0.0)
            recalls.append(right / len(truth))
        precision, recall = _mean(precisions), _mean(recalls)
        total = precision + recall
        scores.append((2 * precision * recall / total if total else 0.0, precision, recall))
    f_score, precision, recall = (_mean(column) for column in zip(*scores, strict=True))
    return Score("EW F-score", f_score, len(counted), {"precision": precision, "recall": recall})


def sign_scores(valences: Mapping[str, float], predicted: Mapping[str, str]) -> Score:
    """Weighted F1 (WAF) and accuracy of positive against not positive.

    valences    {sample: valence}; samples of exactly 0 do not count
    predicted   {sample: "positive" | "negative" | anything}; anything else, `neutral` and `mixed` too, is not positive
    """
    pairs = [(value > 0, predicted[sample] == "positive") for sample, value in valences.items() if value != 0]
    accuracy = _mean([truth == guess for truth, guess in pairs])
    weighted = 0.0
    for side in (False, True):
        right = sum(truth == guess == side for truth, guess in pairs)
        truths, guesses = sum(truth == side for truth, _ in pairs), sum(guess == side for _, guess in pairs)
        if truths + guesses:
            weighted += truths / len(pairs) * 2 * right / (truths + guesses)
    return Score("WAF", weighted, len(pairs), {"ACC": accuracy})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0

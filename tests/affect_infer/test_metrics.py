"""Scores against values worked out by hand."""

from __future__ import annotations

import pytest

from affect_infer.scores.labels import labels_by_rules, sentiment_by_rules
from affect_infer.scores.metrics import hit_rate, sign_scores, wheel_f_score
from affect_infer.scores.wheels import Wheels


@pytest.fixture
def wheels() -> Wheels:
    """`glad` and `proud` are joy, `mad` and `cross` are mad on every wheel; `odd` is on the first two only."""
    words = ("glad", "proud", "mad", "cross", "odd")
    forms = {word: (word,) for word in (*words, "neutral")} | {"gladly": ("glad",)}
    first = {"glad": "joy", "proud": "joy", "mad": "mad", "cross": "mad", "odd": "surprised"}
    other = {word: centre for word, centre in first.items() if word != "odd"}
    return Wheels(forms, {word: frozenset({word}) for word in words}, (first, first, other, other, other))


def test_hit_rate_leaves_neutral_out_and_counts_a_label_only_on_its_wheels(wheels: Wheels) -> None:
    labels = {"a": "glad", "b": "mad", "c": "neutral", "d": "odd"}
    predicted = {"a": ["Proud", "mad"], "b": ["glad"], "c": ["glad"], "d": ["odd"]}
    score = hit_rate(labels, predicted, wheels)
    # wheels 1, 2: a hit, b miss, d hit; wheels 3 to 5: a hit, b miss
    assert score.value == pytest.approx((2 / 3 + 2 / 3 + 1 / 2 * 3) / 5)
    assert score.samples == 3
    assert score.details["wheel1"] == pytest.approx(2 / 3)


def test_f_score_is_made_of_the_mean_precision_and_recall(wheels: Wheels) -> None:
    labels = {"a": ["glad", "cross"], "b": ["mad"], "c": ["neutral"], "d": ["glad"]}
    predicted = {"a": ["proud"], "b": ["glad", "mad"], "c": ["glad"], "d": ["nothing"]}
    score = wheel_f_score(labels, predicted, wheels)
    precision, recall = (1 + 1 / 2 + 0) / 3, (1 / 2 + 1 + 0) / 3
    assert score.details == pytest.approx({"precision": precision, "recall": recall})
    assert score.value == pytest.approx(2 * precision * recall / (precision + recall))
    # A mean of each sample's own F would be (2/3 + 2/3 + 0) / 3.
    assert score.value != pytest.approx(4 / 9)
    assert score.samples == 3


def test_sign_scores_drop_zero_and_take_anything_but_positive_for_not_positive() -> None:
    valences = {"a": 1.5, "b": -2.0, "c": 0.0, "d": 0.2, "e": -0.1}
    predicted = {"a": "positive", "b": "neutral", "c": "positive", "d": "mixed", "e": "positive"}
    score = sign_scores(valences, predicted)
    # truth + - + -, guess + - - +: F1 of each side is 1/2
    assert score.value == pytest.approx(0.5)
    assert score.details == {"ACC": 0.5}
    assert score.samples == 4


def test_weighted_f1_weighs_by_the_true_sides() -> None:
    valences = {"a": 1.0, "b": 1.0, "c": 1.0, "d": -1.0}
    score = sign_scores(valences, dict.fromkeys(valences, "positive"))
    assert score.value == pytest.approx(3 / 4 * (2 * 3 / 7))


def test_labels_of_a_list_and_of_running_text(wheels: Wheels) -> None:
    assert labels_by_rules("[glad, at ease]", wheels) == ["glad", "at ease"]
    assert labels_by_rules("Glad and proud.", wheels) == ["glad", "proud"]
    text = "The person smiles gladly, is not mad in any way, and there is no sign of cross; perhaps proud."
    assert labels_by_rules(text, wheels) == ["gladly", "proud"]
    assert labels_by_rules("", wheels) == []


def test_sentiment_is_the_sign_of_most_labels(wheels: Wheels) -> None:
    assert sentiment_by_rules(["glad", "proud", "mad"], wheels) == "positive"
    assert sentiment_by_rules(["glad", "mad"], wheels) == "neutral"
    assert sentiment_by_rules(["cross"], wheels) == "negative"
    assert sentiment_by_rules([], wheels) == "neutral"

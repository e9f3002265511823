"""Evaluation: the scores of result files, one row per file, in the order in which MER-UniBench lists its sets."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from affect_infer.results import read_results
from affect_infer.scores.labels import labels_by_rules, sentiment_by_rules
from affect_infer.scores.metrics import Score, hit_rate, sign_scores, wheel_f_score
from affect_infer.scores.wheels import Wheels, read_wheels, split_labels
from featurestore.errors import ConfigError, InputError, UnknownDatasetError

NINE = ("mer2023", "mer2024", "meld", "iemocap", "cmumosi", "cmumosei", "sims", "simsv2", "ovmerdplus")


@dataclass(frozen=True, slots=True)
class Row:
    """One result file."""

    dataset: str
    path: Path
    score: Score
    answered: int
    total: int
    """samples of the dataset's split"""


@dataclass(frozen=True, slots=True)
class Table:
    """The scores of all files."""

    rows: list[Row]
    labels: str
    """rules | llm"""
    absent: list[str] = field(default_factory=list)
    """of the nine sets"""

    @property
    def mean(self) -> float | None:
        """Of the main scores x 100; None where a set has several rows, because it would count twice."""
        if len({row.dataset for row in self.rows}) != len(self.rows):
            return None
        return 100 * sum(row.score.value for row in self.rows) / len(self.rows)

    def as_dict(self) -> dict[str, Any]:
        """JSON, scores in percent."""
        return {
            "labels_by": self.labels,
            "rows": [
                {
                    "dataset": row.dataset,
                    "file": str(row.path),
                    "metric": row.score.metric,
                    "score": 100 * row.score.value,
                    "details": {name: 100 * value for name, value in row.score.details.items()},
                    "scored": row.score.samples,
                    "answered": row.answered,
                    "samples": row.total,
                }
                for row in self.rows
            ],
            "mean": self.mean,
            "mean_over": len(self.rows),
            "absent": self.absent,
        }

    def markdown(self) -> str:
        """A table, and below it what must be known to compare it."""
        lines = ["| dataset | metric | score | also | scored | answered |", "|---|---|---:|---|---:|---:|"]
        for row in self.rows:
            also = ", ".join(f"{name} {100 * value:.2f}" for name, value in row.score.details.items())
            lines.append(
                f"| {row.dataset} | {row.score.metric} | {100 * row.score.value:.2f} | {also} | {row.score.samples} "
                f"| {row.answered} of {row.total} |"
            )
        lines += [f"| {name} | - | - | not run | - | - |" for name in self.absent]
        how = {
            "rules": "Answers became labels by rules: not comparable with published scores, which a model made.",
            "llm": "Answers became labels by a language model, greedily; for published scores it was drawn from.",
        }[self.labels]
        over = "all nine sets" if not self.absent else f"{len(self.rows)} of nine sets"
        lines += ["", f"Mean over {over}: {self.mean:.2f}." if self.mean is not None else "", how]
        return "\n".join(lines)


def evaluate(
    results: Sequence[Path],
    wheel_root: Path,
    manifests: Mapping[str, Path] | None = None,
    root: Path | None = None,
    labels: str = "rules",
    partial: bool = False,
) -> Table:
    """Score result files.

    results     `.jsonl` files of runs, or folders in which all are taken
    manifests   {dataset: manifest with the column `label`}; labels of other datasets are found under `root`
    labels      `rules`, or `llm` for what `affect-infer labels` wrote beside the results
    partial     score what is answered where something is not; otherwise that is an InputError
    """
    wheels = read_wheels(wheel_root)
    rows = [_row(path, wheels, manifests or {}, root, labels, partial) for path in result_files(results)]
    rows.sort(key=lambda row: (NINE.index(row.dataset) if row.dataset in NINE else len(NINE), row.dataset, row.path))
    there = {row.dataset for row in rows}
    return Table(rows, labels, [name for name in NINE if name not in there])


def result_files(results: Sequence[Path]) -> Iterator[Path]:
    """The files themselves, and those in folders.  InputError where there are none."""
    for path in results:
        found = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
        found = [each for each in found if not each.name.endswith(".labels.jsonl")]
        if not found:
            raise InputError(f"{path} holds no results (*.jsonl); `affect-infer run` writes them")
        yield from found


def labels_path(results: Path) -> Path:
    """Where the labels of a result file are."""
    return results.with_suffix(".labels.jsonl")


def _row(
    path: Path, wheels: Wheels, manifests: Mapping[str, Path], root: Path | None, labels: str, partial: bool
) -> Row:
    run, lines = read_results(path)
    dataset = run["dataset"]
    truth, kind = _truth(dataset, manifests.get(dataset), root)
    answers = {id: line["answer"] for id, line in lines.items() if "answer" in line}
    absent = [id for id in truth if id not in answers]
    if absent and not partial:
        raise InputError(
            f"{path} has no answer for {len(absent)} of {len(truth)} samples of {dataset}, e.g. {absent[0]!r}; "
            "run again to go on, or score what is there with --partial"
        )
    truth = {id: label for id, label in truth.items() if id in answers}
    lists, signs = _predicted(path, run, answers, truth, wheels, labels)
    if kind == "valence":
        score = sign_scores({id: _valence(id, label, dataset) for id, label in truth.items()}, signs)
    elif kind == "openset":
        score = wheel_f_score({id: split_labels(label) or ["neutral"] for id, label in truth.items()}, lists, wheels)
    else:
        score = hit_rate(truth, lists, wheels)
    return Row(dataset, path, score, len(truth), len(truth) + len(absent))


def _valence(id: str, label: str, dataset: str) -> float:
    try:
        value = float(label)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"label of sample {id!r} of {dataset} is {label!r}, not a number; mend its manifest or table")
    return value


def _truth(dataset: str, manifest: Path | None, root: Path | None) -> tuple[dict[str, str], str]:
    """({sample: label}, kind of label)."""
    from featurestore.datasets import load_dataset, resolve_dataset
    from featurestore.sample import read_manifest

    try:
        declared = resolve_dataset(dataset)
        kind = declared.labels.kind if declared.labels else "class"
    except UnknownDatasetError:
        kind = "class"
    if manifest is not None:
        samples = read_manifest(manifest)
    elif root is not None:
        samples = load_dataset(dataset, root)
    else:
        raise ConfigError(f"labels of {dataset} are needed: give --manifest {dataset}=FILE or --root DIR")
    unknown = [id for id, sample in samples.items() if sample.label is None]
    if unknown:
        raise InputError(f"{len(unknown)} samples of {dataset} have no label, e.g. {unknown[0]!r}")
    return {id: str(sample.label) for id, sample in samples.items()}, kind


def _predicted(
    path: Path,
    run: Mapping[str, Any],
    answers: Mapping[str, str],
    truth: Mapping[str, str],
    wheels: Wheels,
    labels: str,
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """({sample: labels}, {sample: sentiment})."""
    if labels == "rules":
        lists = {id: labels_by_rules(answers[id], wheels) for id in truth}
        return lists, {id: sentiment_by_rules(found, wheels) for id, found in lists.items()}
    made_of, lines = read_results(labels_path(path))
    again = f"run `affect-infer labels {shlex.quote(str(path))}` again"
    if made_of.get("run") != run:
        raise InputError(
            f"{labels_path(path)} holds labels of other answers than those in {path.name}, or does not say of which; "
            f"move it away and {again}"
        )
    if absent := [id for id in truth if id not in lines]:
        raise InputError(f"{labels_path(path)} lacks {len(absent)} samples; {again}")
    return {id: lines[id]["labels"] for id in truth}, {id: lines[id].get("sentiment", "neutral") for id in truth}

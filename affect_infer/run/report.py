"""What a run tells: the banner before, the report after."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affect_infer.run.plan import Origin, RunPlan


def banner(plan: RunPlan, todo: Sequence[str]) -> str:
    """Sampling, where frame features come from, and per modality stored or live, and why.

    todo   ids that are not answered yet; without any, nothing is computed
    """
    task = plan.task
    lines = [f"Hybrid inference: {task.name}, {len(task.samples)} samples, mode {task.mode.name}"]
    for modality in ("frame", "face"):
        origin = plan.origins.get(modality)
        if origin is not None and origin.key is not None:
            lines.append(f"  {modality} sampling   {origin.key.sampling}, {origin.key.n_frames} frames")
    frame = plan.origins.get("frame")
    if frame is not None and frame.policy != "live":
        lines.append(f"  frame features   {task.store}, {frame.key}@{(frame.recipe or '')[:8]}")
    for modality, origin in plan.origins.items():
        why = origin.why if todo else "0 to compute: all answered"
        lines.append(f"  {modality + ':':7}{_kind(origin, len(task.samples), set(todo))}; {why}")
    if off := task.masked():
        lines.append(f"  left out of every prompt (policy off): {', '.join(off)}")
    return "\n".join(lines)


def _kind(origin: Origin, samples: int, todo: set[str]) -> str:
    if origin.key is None:
        return "text in the prompt"
    if origin.policy == "live":
        return f"live ({origin.key.encoder})"
    computed = len(todo.intersection(origin.to_compute))
    rest = f", {computed} to compute" if computed else ""
    return f"pre-extracted, {origin.stored} of {samples} stored{rest}"


@dataclass
class RunReport:
    """Counts and times of one run; what an earlier run answered is in `resumed` only."""

    started: float
    resumed: int = 0
    generating: float = 0.0
    """seconds in the model"""
    looping: float = 0.0
    """seconds from the first batch to the last line"""
    wall: float = 0.0
    """seconds in all, with checks and loading"""
    answered: int = 0
    tokens: int = 0
    cut: int = 0
    """samples whose prompt did not fit"""
    skipped: dict[str, Mapping[str, str]] = field(default_factory=dict)
    counts: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """modality -> disk | computed | not_kept | live | masked -> samples"""
    recipes: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """modality -> fingerprint -> samples"""
    ms: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def count(self, plan: RunPlan, line: Mapping[str, Any]) -> None:
        """Take in one line of results."""
        self.answered += 1
        self.tokens += line["tokens"]
        self.cut += "cut" in line
        for modality, given in line["inputs"].items():
            self.counts[modality][given["answer"]] += 1
            if "recipe" in given:
                self.recipes[modality][given["recipe"]] += 1
        for modality in line.get("masked", ()):
            self.counts[modality]["masked"] += 1
        for name, value in line["ms"].items():
            self.ms[name].append(value)

    def skip(self, plan: RunPlan, id: str, messages: Mapping[str, str]) -> None:
        """A sample that was left out."""
        self.skipped[f"{plan.task.name}/{id}"] = messages

    def finish(self, plans: Sequence[RunPlan]) -> None:
        """The end of the run."""
        self.wall = time.perf_counter() - self.started
        for plan in plans:
            if plan.settings.on_missing == "skip":
                for id, problems in plan.problems.items():
                    self.skip(plan, id, {name: problem.message for name, problem in problems.items()})
            self.notes += [
                f"{plan.task.name} {name}: two recipes may be mixed: {origin.certificate}"
                for name, origin in plan.origins.items()
                if origin.certificate
            ]

    @property
    def not_kept(self) -> int:
        """Features that were computed for a store that cannot be written."""
        return sum(counts["not_kept"] for counts in self.counts.values())

    @property
    def hit_rate(self) -> float | None:
        """Hits of the store, of what was looked up in it; None where nothing was."""
        hits = sum(counts["disk"] for counts in self.counts.values())
        looked_up = hits + sum(_computed(counts) for counts in self.counts.values())
        return hits / looked_up if looked_up else None

    def as_dict(self) -> dict[str, Any]:
        """JSON."""
        return {
            "answered": self.answered,
            "answered_before": self.resumed,
            "skipped": self.skipped,
            "inputs": {name: dict(counts) for name, counts in self.counts.items()},
            "recipes": {name: dict(counts) for name, counts in self.recipes.items()},
            "ms": {name: {"p50": _percentile(v, 50), "p95": _percentile(v, 95)} for name, v in self.ms.items()},
            "store_hit_rate": self.hit_rate,
            "not_kept": self.not_kept,
            "tokens": self.tokens,
            "prompts_cut": self.cut,
            "wall_s": round(self.wall, 3),
            "loop_s": round(self.looping, 3),
            "language_model_s": round(self.generating, 3),
            "language_model_share": round(self.generating / self.looping, 4) if self.looping else None,
            "notes": self.notes,
            "files": self.files,
        }

    def text(self) -> str:
        """For reading."""
        lines = [f"{self.answered} samples answered, {self.resumed} answered before, {len(self.skipped)} skipped"]
        if self.answered:
            lines.append(f"{'':8}{'hits':>7}{'computed':>10}{'live':>7}{'masked':>8}{'p50 ms':>10}{'p95 ms':>10}")
        for name, counts in self.counts.items():
            times = self.ms.get(name, [])
            lines.append(
                f"{name:8}{counts['disk']:7}{_computed(counts):10}{counts['live']:7}{counts['masked']:8}"
                f"{_percentile(times, 50):10.2f}{_percentile(times, 95):10.2f}"
            )
        if self.answered:
            times = self.ms["generate"]
            lines.append(f"{'generate':40}{_percentile(times, 50):10.2f}{_percentile(times, 95):10.2f}")
            lines.append(
                f"language model: {self.generating:.1f} s of {self.looping:.1f} s "
                f"({self.generating / self.looping:.0%}), {self.tokens} tokens; "
                f"{self.answered / self.looping:.2f} samples/s; {self.wall:.1f} s with checks and loading"
            )
        if self.hit_rate is not None:
            lines.append(f"store hit rate: {self.hit_rate:.1%}")
        if self.not_kept:
            lines.append(f"{self.not_kept} features were computed and not kept: the store cannot be written")
        if self.cut:
            lines.append(f"{self.cut} prompts were too long and lost their beginning")
        for name, recipes in self.recipes.items():
            if len(recipes) > 1:
                lines.append(f"{name}: rows of {len(recipes)} recipes: {dict(recipes)}")
        lines += [f"skipped {id}: {'; '.join(why.values())}" for id, why in list(self.skipped.items())[:10]]
        return "\n".join([*lines, *self.notes, *(f"results: {path}" for path in self.files)])


def _computed(counts: Counter[str]) -> int:
    return counts["computed"] + counts["not_kept"]


def _percentile(values: Sequence[float], percent: int) -> float:
    """Nearest rank; 0 without values."""
    ordered = sorted(values)
    return ordered[-(-len(ordered) * percent // 100) - 1] if ordered else 0.0

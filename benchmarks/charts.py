"""The charts of docs/benchmarks.md, each to be understood without the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from targets import find, most_samples

mpl.use("svg")
# The same results give the same bytes.
mpl.rcParams.update({"svg.hashsalt": "featurestore", "svg.fonttype": "none", "font.size": 9})
from matplotlib import pyplot as plt  # noqa: E402 - the backend is chosen before

OURS, RIVAL, LIMIT, CLAIM = "#1f6f8b", "#b9b9b9", "#e3a857", "#d98880"


def bars(
    path: Path, title: str, values: Sequence[tuple[str, float, str]], unit: str, note: str, log: bool = False
) -> None:
    """One bar for each (name, value, colour), the value written at its end."""
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.27 * len(values)), layout="constrained")
    names, numbers, colours = zip(*reversed(values), strict=True)
    axes.barh(names, numbers, color=colours)
    if log:
        axes.set_xscale("log")
        axes.set_xlim(min(numbers) / 2, max(numbers) * 4)
    else:
        axes.set_xlim(0, max(numbers) * 1.15)
    for place, number in enumerate(numbers):
        axes.annotate(f" {number:,.3g}" if number < 1000 else f" {number:,.0f}", (number, place), va="center")
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel(f"{unit}\n{note}")
    axes.spines[["top", "right"]].set_visible(False)
    _write(figure, path)


def lines(
    path: Path, title: str, panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], x: str, y: str
) -> None:
    """One panel for each trace, one line for each policy."""
    wide = -(-len(panels) // 2)
    figure, grid = plt.subplots(2, wide, figsize=(3.2 * wide, 6.2), sharex=True, sharey=True, layout="constrained")
    styles: dict[str, Any] = {
        "Belady (limit)": {"color": "black", "linestyle": ":", "linewidth": 1.6},
        "bip": {"color": OURS, "linewidth": 2.8, "zorder": 3},
        "lru": {"color": "#c0392b"},
        "sieve": {"color": LIMIT},
        "lfu": {"color": "#8e44ad"},
        "random": {"color": "#27ae60"},
        "pinned": {"color": "black", "linestyle": "--"},
    }
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (name, curves) in zip(grid.flat, panels.items(), strict=False):
        for policy, points in curves.items():
            axes.plot(*zip(*points, strict=True), label=policy, **{"linewidth": 1.2, **styles[policy]})
        axes.set_title(name, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    for axes in grid[-1]:
        axes.set_xlabel(x)
    for axes in grid[:, 0]:
        axes.set_ylabel(y)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    _write(figure, path)


def _write(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def colour_of(name: str) -> str:
    if name.startswith("featurestore"):
        return OURS
    return LIMIT if "from RAM" in name else RIVAL


def draw_reads(results: Mapping[str, Any], folder: Path) -> list[str]:
    drawn, n = [], most_samples(results)
    for access, cache, title in (
        ("point", "warm", "One random sample"),
        ("batch 64", "warm", "A random batch of 64, per sample"),
        ("point", "cold", "One random sample, files not in the page cache"),
        ("epoch", "warm", "An epoch in PyTorch, batches of 64, per sample"),
    ):
        rows = [
            row
            for row in results["reads"]["rows"]
            if (row["samples"], row["dtype"], row["access"], row["cache"]) == (n, "float32", access, cache)
        ]
        if not rows:
            continue
        values = [(row["read"], row["min us"], colour_of(row["read"])) for row in rows]
        name = f"reads_{access.replace(' ', '_')}_{cache}.svg"
        bars(
            folder / name, f"{title}: microseconds, less is better", sorted(values, key=lambda each: each[1]),
            "microseconds per sample, logarithmic", f"{n:,} samples of (8, 768) float32; {cache}; least of the rounds",
            log=True,
        )  # fmt: skip
        drawn.append(name)
    return drawn


def draw_writes(results: Mapping[str, Any], folder: Path) -> list[str]:
    rows = results["writes"]["bulk"]
    values = [(row["write"], row["MB/s"], colour_of(row["write"])) for row in rows]
    bars(
        folder / "writes.svg", "Writing many samples until they are on the disk: MB/s, more is better",
        sorted(values, key=lambda each: -each[1]), "MB/s", f"{rows[0]['samples']:,} samples of 24 KB; median",
    )  # fmt: skip
    return ["writes.svg"]


def draw_extraction(results: Mapping[str, Any], folder: Path) -> list[str]:
    rows = results["extraction"]["rows"]
    names = ("extract, ViT-B-32 on the CPU", "a loop over clips, np.save", "datasets.map")
    chosen = [find(rows, what=name) for name in names]
    values = [(row["what"], row["clips/s"], OURS if row["what"].startswith("extract") else RIVAL) for row in chosen]
    bound = find(rows, what="(decode + encode CPU s) / cores")
    values.append(("the bound: all cores, nothing lost", bound["clips"] / bound["min s"], LIMIT))
    bars(
        folder / "extraction.svg", "Videos to features, decode and ViT-B/32 on the CPU: clips per second",
        sorted(values, key=lambda each: -each[1]), "clips per second, more is better",
        f"{bound['clips']} clips of {bound['clip s']} s, 720p, {bound['workers']} cores; best of the rounds",
    )  # fmt: skip
    return ["extraction.svg"]


def draw_hit_rates(results: Mapping[str, Any], folder: Path) -> list[str]:
    policies = ("bip", "lru", "sieve", "lfu", "random", "pinned", "Belady (limit)")
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in results["hit_rates"]["rows"]:
        if row["policy"] in policies and row["budget %"] > 0:
            curve = panels.setdefault(row["trace"], {}).setdefault(row["policy"], [])
            curve.append((row["budget %"], 100 * row["hit rate"]))
    lines(
        folder / "hit_rates.svg", "Hits of the memory tier, by policy and by how a data set is read", panels,
        "budget, % of the data", "hits, % of reads",
    )  # fmt: skip
    return ["hit_rates.svg"]


def draw_modes(results: Mapping[str, Any], folder: Path) -> list[str]:
    rows = [row for row in results["inference_modes"]["guide"] if isinstance(row.get("claimed s"), (int, float))]
    values: list[tuple[str, float, str]] = []
    for row in rows:
        values.append((f"{row['mode']}: claimed", row["claimed s"], CLAIM))
        values.append(
            (f"{row['mode']}: measured here, without a language model", row["with encoders, scaled, s"], OURS)
        )
    bars(
        folder / "modes.svg", "The guide's table: seconds for 411 samples", values, "seconds, less is better",
        f"claimed: whole runs; measured: inputs of {rows[0]['encoded']} samples prepared on the CPU, scaled", log=True,
    )  # fmt: skip
    return ["modes.svg"]


DRAWN = {
    "reads": draw_reads,
    "writes": draw_writes,
    "extraction": draw_extraction,
    "hit_rates": draw_hit_rates,
    "inference_modes": draw_modes,
}


def draw(results: Mapping[str, Any], folder: Path) -> dict[str, list[str]]:
    """All charts that the results allow; {result: names of the files}."""
    return {name: drawn(results, folder) for name, drawn in DRAWN.items() if name in results}

"""The charts of docs/benchmarks.md, each to be understood without the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from targets import OURS as OUR_NAME
from targets import find, most_samples

mpl.use("svg")
# The same results give the same bytes.
mpl.rcParams.update({"svg.hashsalt": "featurestore", "svg.fonttype": "none", "font.size": 9})
from matplotlib import pyplot as plt  # noqa: E402 - the backend is chosen before

OURS, RIVAL, LIMIT, CLAIM = "#1f6f8b", "#b9b9b9", "#e3a857", "#d98880"
LEGEND = (
    (OURS, "blue", "featurestore"),
    (RIVAL, "grey", "others"),
    (LIMIT, "yellow", "the limit"),
    (CLAIM, "red", "claimed"),
)
NAMED = {"bip": "bip (default)", "lru": "LRU", "sieve": "SIEVE", "lfu": "LFU", "Belady (limit)": "Belady's optimum"}


def bars(
    path: Path, title: str, values: Sequence[tuple[str, float, str]], unit: str, note: str, log: bool = False
) -> None:
    """One bar for each (name, value, colour), the value written at its end; dots where the axis has no zero."""
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.27 * len(values)), layout="constrained")
    names, numbers, colours = zip(*reversed(values), strict=True)
    if log:
        axes.hlines(names, min(numbers) / 2, numbers, color="#e4e4e4", linewidth=1)
        axes.scatter(numbers, names, color=colours, s=46, zorder=3)
        axes.set_xscale("log")
        axes.set_xlim(min(numbers) / 2, max(numbers) * 4)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.grid(axis="x", alpha=0.25)
    else:
        axes.barh(names, numbers, color=colours)
        axes.set_xlim(0, max(numbers) * 1.15)
    for place, number in enumerate(numbers):
        text = f"{number:,.3g}" if number < 1000 else f"{number:,.0f}"
        axes.annotate(text, (number, place), (8 if log else 4, 0), textcoords="offset points", va="center")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    used = [f"{what}: {name}" for colour, what, name in LEGEND if colour in colours]
    axes.set_xlabel(f"{unit}\n{note}\n{', '.join(used)}")
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
    empty = grid.flat[len(panels) :]
    for axes in empty:
        axes.set_axis_off()
    for axes, (name, curves) in zip(grid.flat, panels.items(), strict=False):
        for policy, points in curves.items():
            line = {"linewidth": 1.2, **styles[policy]}
            axes.plot(*zip(*points, strict=True), label=NAMED.get(policy, policy), **line)
        axes.set_title(name, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    for axes in grid.flat[len(panels) - wide : len(panels)]:
        axes.set_xlabel(x)
        axes.xaxis.set_tick_params(labelbottom=True)
    for axes in grid[:, 0]:
        axes.set_ylabel(y)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    if len(empty):
        empty[0].legend(handles, labels, loc="center", frameon=False, fontsize=11)
    else:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    _write(figure, path)


def _write(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def colour_of(name: str) -> str:
    if name.startswith("featurestore"):
        return OURS
    return LIMIT if "from RAM" in name or "bare read" in name or name == "one file, write + fsync" else RIVAL


def draw_reads(results: Mapping[str, Any], folder: Path) -> list[str]:
    drawn, n = [], most_samples(results)
    for access, cache, title in (
        ("point", "warm", "Reading one random sample"),
        ("batch 64", "warm", "Reading a random batch of 64"),
        ("point", "cold", "One random sample, nothing cached"),
        ("epoch", "warm", "An epoch in PyTorch, batches of 64"),
    ):
        rows = [
            row
            for row in results["reads"]["rows"]
            if (row["samples"], row["dtype"], row["access"], row["cache"]) == (n, "float32", access, cache)
        ]
        if not rows:
            continue
        column, which = ("median us", "median") if cache == "cold" else ("min us", "least")
        later = f"{OUR_NAME}, later reads" if cache == "warm" and access != "epoch" else OUR_NAME
        values = [
            (later if row["read"] == OUR_NAME else row["read"], row[column], colour_of(row["read"])) for row in rows
        ]
        name = f"reads_{access.replace(' ', '_')}_{cache}.svg"
        bars(
            folder / name, f"{title}: microseconds per sample, less is better",
            sorted(values, key=lambda each: each[1]),
            "microseconds per sample, logarithmic scale",
            f"{n:,} samples of (8, 768) float32; {cache} page cache; {which} of the rounds",
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
        folder / "extraction.svg",
        "Videos to features, ViT-B/32 on the CPU: clips per second, more is better",
        sorted(values, key=lambda each: -each[1]), "clips per second",
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
        folder / "hit_rates.svg",
        "Hits of the memory tier by policy, for each way of reading a data set: more is better", panels,
        "budget, % of the data", "hits, % of reads",
    )  # fmt: skip
    return ["hit_rates.svg"]


def draw_modes(results: Mapping[str, Any], folder: Path) -> list[str]:
    result = results["inference_modes"]
    rows = [row for row in result["guide"] if isinstance(row.get("claimed s"), (int, float))]
    values: list[tuple[str, float, str]] = []
    for row in rows:
        values.append((f"{row['mode']}: claimed, whole run", row["claimed s"], CLAIM))
        values.append((f"{row['mode']}: measured, inputs only", row["with encoders, scaled, s"], OURS))
    bars(
        folder / "modes.svg", "The guide's four modes: seconds for 411 samples, less is better", values,
        "seconds, logarithmic",
        f"claimed: with a language model, on a machine that is not named; measured: without one,\nsmall encoders "
        f"on the CPU, {rows[0]['encoded']} samples scaled to 411",
        log=True,
    )  # fmt: skip
    stages = [(row["stage"], row["median ms"]) for row in result["stages"]]
    bars(
        folder / "stages.svg", "Where the time of one sample goes: milliseconds, less is better",
        [(name, ms, OURS if "store" in name else RIVAL) for name, ms in stages], "milliseconds, logarithmic",
        f"median of {result['stages'][0]['samples']} samples, one step after the other; small encoders on the CPU",
        log=True,
    )  # fmt: skip
    return ["modes.svg", "stages.svg"]


def draw_loop(results: Mapping[str, Any], folder: Path) -> list[str]:
    rows = results["inference_loop"]["batches"]
    values = [(f"batches of {row['batch']}" if row["batch"] > 1 else "one by one", row["samples/s"]) for row in rows]
    bars(
        folder / "batches.svg", "Generating in batches: samples per second, more is better",
        [(name, rate, RIVAL if name == "one by one" else OURS) for name, rate in values], "samples per second",
        "32 new tokens each, the same tokens in every batch; Qwen2 of 4 layers, 256 wide, random weights, fp32, CPU",
    )  # fmt: skip
    return ["batches.svg"]


DRAWN = {
    "reads": draw_reads,
    "writes": draw_writes,
    "extraction": draw_extraction,
    "hit_rates": draw_hit_rates,
    "inference_modes": draw_modes,
    "inference_loop": draw_loop,
}


def draw(results: Mapping[str, Any], folder: Path) -> dict[str, list[str]]:
    """All charts that the results allow; {result: names of the files}."""
    return {name: drawn(results, folder) for name, drawn in DRAWN.items() if name in results}

"""Write docs/benchmarks.md and its charts from the committed results; no number on the page is typed by hand.

python benchmarks/render.py [--results DIR] [--page FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from charts import draw
from targets import TARGETS, Target, find

from featurestore.storage.eviction import DEFAULT, POLICIES

# Policies that could be the default: pinned never lets a new row in, and nobody wrote an LFU for a tier.
CANDIDATES = (*POLICIES, "sieve", "random")

TIMED_APART = ("pread", "zstd")  # the same hits over another kind of store; zstd of format 1 alone

HERE = Path(__file__).parent
Row = Mapping[str, Any]

CAVEATS = """\
* All of it ran on virtual machines, with the page cache warm unless a table says cold, on a local disk, and with
  nothing but generated data: random numbers, drawn clips, random weights. Reading, decoding and encoding do not care
  what the numbers are; the answers of a language model do, and none are judged here.
* {shared}
  Ratios hold better than seconds, because rivals took turns, and so targets are ratios wherever they can be.
* "CPU s" is what a program used of the processor. On a quiet machine with warm files that is the time one waits; on a
  busy one the wait is longer, and stands beside it where it was measured.
* How long an fsync and a read of a cold file take is the disk's affair. Yours differs, and so will those rows.
* {gpu}
* Nothing here says how good a result becomes, only how fast it is there.
"""

OTHERS = ("torture", "rounding", "misses")  # of docs/reliability.md, docs/numbers.md and benchmarks/README.md

TITLES = {
    "reads": "Reading",
    "loaders": "Training batches",
    "shapes": "Other shapes, many segments",
    "hit_rates": "Hit rates of the memory tier",
    "writes": "Writing",
    "scale": "Many samples, many segments",
    "extraction": "From videos to features",
    "decoding": "Decoding alone",
    "inference_modes": "The guide's table, told honestly",
    "inference_loop": "The inference loop",
    "startup": "Starting",
    "loading": "A fusion run's features",
    "importing": "Import of `.npy` folders",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    chosen = parser.parse_args()
    results = read_results(chosen.results)
    charts = draw(results, chosen.page.with_suffix(""))
    chosen.page.write_text(page(results, charts, chosen.page.stem))
    print(chosen.page)


def read_results(folder: Path) -> dict[str, Any]:
    """{name: what a benchmark saved}, in the order of the page."""
    paths = (path for path in sorted(folder.glob("*.json")) if path.stem not in OTHERS)
    found = {path.stem: json.loads(path.read_text()) for path in paths}
    return {name: found[name] for name in [*TITLES, *found] if name in found}


def page(results: Mapping[str, Any], charts: Mapping[str, Sequence[str]], folder: str) -> str:
    """The whole text."""
    parts = [
        "# Benchmarks",
        "*Made by `benchmarks/render.py` from `benchmarks/results/*.json`; to change a number, measure it:*",
        "```sh\nmake bench                             # everything, under half an hour\n"
        "python benchmarks/run.py --quick       # does it all run, three minutes\n```",
        "How each is measured, and what it does not show, is in `benchmarks/README.md`.",
        "## Before you read a number",
        _caveats(results) + "\n" + _machines(results),
        "## Targets, and what was reached",
        _targets(results),
    ]
    for name, result in results.items():
        parts.append(f"## {TITLES.get(name, name.replace('_', ' ').capitalize())}")
        parts += [f"![{TITLES.get(name, name)}]({folder}/{chart})" for chart in charts.get(name, ())]
        parts += SECTIONS.get(name, _plain)(result)
        if name == "hit_rates" and "extraction" in results:
            parts.append(_were_it_disk(result, results["extraction"]))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _caveats(results: Mapping[str, Any]) -> str:
    machines = [result["machine"] for result in results.values()]
    others = [machine["others_cores"] for machine in machines if machine.get("others_cores") is not None]
    cores = machines[0]["cores"]
    if len(others) < len(machines):
        shared = f"The {cores} cores were shared with other programs; seconds may be twice what a quiet machine needs."
    elif max(others) >= 0.1 * cores:
        shared = f"Other programs and the kernel kept up to {max(others):.2g} of the {cores} cores busy meanwhile."
    else:
        shared = f"Nothing else of weight ran on the {cores} cores."
    names = sorted({machine["gpu"] for machine in machines if machine["gpu"]})
    gpu = f"GPU: {', '.join(names)}." if names else 'There was no GPU. What needs one says "not measured".'
    return CAVEATS.format(shared=shared, gpu=gpu)


def _machines(results: Mapping[str, Any]) -> str:
    machines = [result["machine"] for result in results.values()]
    found: dict[str, dict[str, None]] = {}  # of a package that not every run had, or that became newer in between
    for machine in machines:
        for name, number in machine["versions"].items():
            found.setdefault(name, {})[number] = None
    versions = ", ".join(f"{name} {' and '.join(numbers)}" for name, numbers in found.items())
    hosts = dict.fromkeys(
        f"{each['cpu']}, {each['cores']} cores, {each['memory_gib']} GiB, {each['system']}, Python {each['python']}"
        for each in machines
    )
    rows = [
        {
            "program": f"`{result['command']}`",
            "minutes": "" if result["took_s"] is None else f"{result['took_s'] / 60:.1f}",
            "CPU s": result["machine"].get("cpu_s", ""),
            "load before": result["machine"]["load_before"],
            "load after": result["machine"]["load_after"],
            "cores used by others": result["machine"].get("others_cores", ""),
            "processor": result["machine"]["cpu"],
            "date": result["machine"]["date"],
        }
        for result in results.values()
    ]
    return f"{'; '.join(hosts)}. {versions}.\n\n{table(rows)}"


def _targets(results: Mapping[str, Any]) -> str:
    rows, missed = [], []
    for target in TARGETS:
        try:
            value = target.reached(results)
        except KeyError:
            value = None
        if value is None:
            rows.append({"what": target.what, "target": target.aim, "reached": "not measured", "": ""})
            continue
        met = target.met(value)
        reached = f"{number(value)} {target.unit}"
        rows.append({"what": target.what, "target": target.aim, "reached": reached, "": "" if met else "missed"})
        if not met:
            missed.append(f"* **{target.what}** ({reached}, aimed at {target.aim}): {_why(target, results)}.")
    text = table(rows)
    return text if not missed else f"{text}\n\nWhere a target is missed, this is the limit:\n\n" + "\n".join(missed)


def _why(target: Target, results: Mapping[str, Any]) -> str:
    try:
        return target.why(results)
    except KeyError as error:  # a result of an earlier version of the program
        return f"what would say why was not measured: {error}"


def _reads(result: Mapping[str, Any]) -> list[str]:
    rows = result["rows"]
    parts = [
        "Microseconds per sample, least of the rounds; a batch is one call, its time divided by its samples. "
        '"First" is the first read of a row in a process, when its checksum is verified; later reads are copies out of '
        "a map. The limit is `memcpy` of the same rows out of one array in memory."
    ]
    for samples in sorted({row["samples"] for row in rows}, reverse=True):
        for dtype in ("float32", "float16"):
            chosen = [row for row in rows if (row["samples"], row["dtype"], row["cache"]) == (samples, dtype, "warm")]
            chosen = [row for row in chosen if row["access"] != "epoch"]
            parts.append(f"**{samples:,} samples, {dtype}, warm**\n\n{pivot(chosen, 'read', 'access', 'min us')}")
    for samples, dtype in dict.fromkeys((row["samples"], row["dtype"]) for row in reversed(rows)):
        cold = [row for row in rows if (row["samples"], row["dtype"], row["cache"]) == (samples, dtype, "cold")]
        if cold:
            parts.append(
                f"**{samples:,} samples, {dtype}, cold**: medians; contents of all files dropped from the page cache "
                "(inodes stay cached, which favours one file per sample)\n\n"
                + pivot(cold, "read", "access", "median us")
            )
    epochs = [row for row in rows if row["access"] == "epoch"]
    parts.append(
        "**Through PyTorch, whole epochs in batches of 64.** Sending a sample through a worker process costs more than "
        f"reading it, which hides any store.\n\n{pivot(epochs, 'read', 'access', 'min us')}"
    )
    skipped = [f"{name} ({why})" for name, why in result["skipped"].items()]
    return parts + ([f"Skipped: {', '.join(skipped)}."] if skipped else [])


def _loaders(result: Mapping[str, Any]) -> list[str]:
    skipped = [f"{name} ({why})" for name, why in result["skipped"].items()]
    return [
        f"{result['samples']:,} samples of (8, 768) float32 in batches of 64, epochs after the first, in process: "
        "microseconds per sample. What has no loader of its own goes through a DataLoader whose sampler hands it the "
        "rows of a whole batch. Mind the order: what mixes neighbours only reads the disk in one sweep.",
        table(result["rows"]),
        "**Batches of 64 of one of our segments, by the newest zarr-python, in an interpreter of its own**\n\n"
        + table(result["newest_zarr"]),
    ] + ([f"Skipped: {', '.join(skipped)}."] if skipped else [])


def _hit_rates(result: Mapping[str, Any]) -> list[str]:
    rows = [row for row in result["rows"] if row.get("over") not in TIMED_APART]
    mean = [{"policy": name, "mean hits %": f"{100 * rate:.1f}"} for name, rate in result["mean"].items()]
    half = [row for row in rows if row["budget %"] == 50]
    by_trace: dict[str, dict[str, float]] = {}
    for row in half:
        if row["policy"] in result["mean"]:
            by_trace.setdefault(row["trace"], {})[row["policy"]] = row["hit rate"]
    worse = [
        f"{trace} ({100 * rates[DEFAULT]:.0f} %, while {best} has {100 * rates[best]:.0f} %)"
        for trace, rates in by_trace.items()
        if (best := max((p for p in rates if p != "Belady (limit)"), key=rates.__getitem__)) != DEFAULT
        and rates[best] - rates[DEFAULT] > 0.01
    ]
    whole = [row for row in rows if row["budget %"] == 100 and row["trace"] == rows[0]["trace"]]
    return [
        f"{result['samples']} samples per key; every trace went through a real store, and the hits are those of its "
        "counters. Belady's optimum knows the future: where all rows have one size, nothing can be above it. The "
        f"default is `{DEFAULT}`: {POLICIES[DEFAULT].__doc__.splitlines()[0]}",  # type: ignore[union-attr]
        f"**Mean over all traces and all budgets below 100 %**\n\n{table(mean)}",
        _default_policy(result["mean"]),
        f"**Where it loses.** At half of the data `{DEFAULT}` is not the best in: {'; '.join(worse) or 'none'}. After "
        "a switch of sampler it lets few new rows stay, so that for an epoch or two it keeps what nobody asks for "
        'any more; give `memory_policy="lru"` where sets are switched often and each fits the budget.',
        "**Hits in %, budget 50 % of the data**\n\n" + pivot(half, "policy", "trace", "hit rate", 100),
        f"**Hits in %, budget 100 %, {rows[0]['trace']}**: what is read for the first time is no hit\n\n"
        + pivot(whole, "policy", "budget %", "hit rate", 100),
        *_time_saved(result["rows"]),
    ]


def _time_saved(rows: Sequence[Row]) -> list[str]:
    """Microseconds per read at half of the data, over each kind of store; the first line is without a cache."""
    column = "CPU us per read"
    if column not in rows[0]:  # a result of an earlier version of the program
        return ["Time saved: not measured in this result."]
    parts = [
        "**Does it save time?** Microseconds of CPU per read, budget 50 % of the data; the first line of each table is "
        "without any cache. All files are in the page cache, so that nothing is waited for but by diskcache and "
        "joblib, whose writes the clock on the wall sees as well."
    ]
    for over, what, first in (
        ("plain", "A local store of format 1: its hits are copies out of the page cache already", "no memory tier"),
        ("map", "A local store: its hits are copies out of the page cache already", "no memory tier"),
        (
            "pread",
            "A store read by `pread`, as on a network file system, without the time that a network takes",
            "no memory tier",
        ),
        ("npy", "One `.npy` per sample, and caches that people put before it", "one .npy per sample, no cache"),
    ):
        chosen = [row for row in rows if row["over"] == over]
        if not chosen:  # results say of which format they are
            continue
        bare = {row["trace"]: row[column] for row in chosen if row["policy"] == first}
        halves = [row for row in chosen if row["budget %"] == 50]
        saved = [1 - row[column] / bare[row["trace"]] for row in halves if row["policy"] == DEFAULT]
        told = "" if not saved else (
            f"; `{DEFAULT}` saves {100 * min(saved):.0f} to {100 * max(saved):.0f} % of the time"
            if max(saved) > 0
            else f"; `{DEFAULT}` saves none, it costs {-100 * max(saved):.0f} to {-100 * min(saved):.0f} %"
        )  # fmt: skip
        firsts = [row for row in chosen if row["policy"] == first]
        parts.append(f"**{what}**{told}\n\n{pivot([*firsts, *halves], 'policy', 'trace', column)}")
    return parts


def _were_it_disk(result: Mapping[str, Any], extraction: Mapping[str, Any]) -> str:
    rates = find(extraction["rows"], what="extract, ViT-B-32 on the CPU")
    rows = [
        {**row, "saved s": round(1000 * row["hit rate"] / rates["clips/s"])}
        for row in result["rows"]
        if row["budget %"] == 50
        and row["policy"] in (DEFAULT, "lru", "pinned", "Belady (limit)")
        and row.get("over") not in TIMED_APART
    ]
    return (
        "**Were the budget one of disk** (simulated: the same hit rates, with the cost of a miss from the extraction "
        "below): seconds of decode and encode saved per 1,000 reads, at half of the data.\n\n"
        + pivot(rows, "policy", "trace", "saved s")
    )


def _default_policy(mean: Mapping[str, float]) -> str:
    best = max((name for name in mean if name in CANDIDATES), key=mean.__getitem__)
    said = "which has the highest mean of those" if best == DEFAULT else f"although {best} has a higher mean, of those"
    return (
        f"The default is `{DEFAULT}`, {said} that need not know the future and let a new working set in. `pinned` "
        "keeps what came first: as good while one set is read for ever, and of no use after it. The order of rows is "
        "the project's own code, because no library was found that lets few newcomers stay: cachetools, whose LFU is "
        "compared here, has LRU, LFU, FIFO and random."
    )


def _writes(result: Mapping[str, Any]) -> list[str]:
    return [
        "**Many samples at once**\n\n" + table(result["bulk"]),
        "**Where the time of a bulk write goes**, each part alone; the digest runs beside the writing\n\n"
        + table(result["parts"]),
        "**One sample per commit**, against three files, five fsyncs and one rename with nothing around them\n\n"
        + table(result["single"]),
    ]


def _scale(result: Mapping[str, Any]) -> list[str]:
    return [
        table(result["rows"]),
        "**Compaction, and single reads by another process meanwhile**\n\n" + table(result["compaction"]),
        "**Bytes on disk**, with frame indices, timestamps and sources of each row\n\n" + table(result["bytes"]),
    ]


def _modes(result: Mapping[str, Any]) -> list[str]:
    return [
        "The guide gives whole seconds for 411 samples on a machine it does not name. Preparing the inputs and the "
        "language model are apart here, because the second hides the first.",
        "**Without a language model** (what is claimed includes one). `decode and store` ran over `samples` with "
        "encoders that cost nothing; small real encoders ran over `encoded` samples, and that is scaled to the "
        "guide's 411.\n\n" + table(result["guide"]),
        "**One sample, stage by stage**, milliseconds, one after the other\n\n" + table(result["stages"]),
        "**With a language model** of 4 layers, 256 wide, 32 new tokens, random weights: it shows what batching gains, "
        "not what a 7B model costs\n\n" + table(result["language"]),
    ]


def _loop(result: Mapping[str, Any]) -> list[str]:
    return [
        f"**Around the language model**, {result['samples']} samples with all four inputs stored; a stub, one step "
        "long, stands for the model. Every subtitle is another, so each has to be tokenized.\n\n"
        + table(result["loop"]),
        "**In batches**, 32 new tokens by a Qwen2 of 4 layers, 256 wide, fp32, on the CPU\n\n"
        + table(result["batches"]),
        "**On a GPU**, a model of true size\n\n" + table(result["gpu"]),
    ]


def _plain(result: Mapping[str, Any]) -> list[str]:
    return [table(result["rows"])] if "rows" in result else []


def _decoding(result: Mapping[str, Any]) -> list[str]:
    """CPU milliseconds, and seconds of the long video."""
    parts = _plain(result)
    if result.get("rivals"):
        parts.append(
            "**Against other readers**: 6 s of 720p, real footage coded again; open, index and eight exact frames of "
            "its own size, one thread, CPU ms. *equal*: to decoding everything; *ours is*: our least in theirs.\n\n"
            + table(result["rivals"])
        )
    if result.get("long"):
        parts.append("**A long video of 1080p**\n\n" + table(result["long"]))
    return parts


def _shapes(result: Mapping[str, Any]) -> list[str]:
    what = {
        "frames": "One frame of a ragged sample of (300, 768) float32, beside all of it",
        "large": "A sample of 4 MiB, read again",
        "keys": "Batches of 64 from several keys and segments, later epochs",
        "commits": "One sample a commit, with few and many segments there",
        "singles": "Segments of one sample each, merged, and opened while the replaced ones are still there",
        "lengths": "Samples of many lengths under one `all` key, after a merge",
    }
    return [f"**{text}.**\n\n{table(result[name])}" for name, text in what.items()]


SECTIONS = {
    "shapes": _shapes,
    "decoding": _decoding,
    "reads": _reads,
    "loaders": _loaders,
    "hit_rates": _hit_rates,
    "writes": _writes,
    "scale": _scale,
    "inference_modes": _modes,
    "inference_loop": _loop,
}


def table(rows: Iterable[Row]) -> str:
    """A Markdown table; columns are the keys of all rows in the order in which they come."""
    rows = list(rows)
    head = list(dict.fromkeys(key for row in rows for key in row))
    right = {key for key in head if any(isinstance(row.get(key), (int, float)) for row in rows)}
    lines = [head, ["---:" if key in right else "---" for key in head]]
    lines += [[number(row.get(key, "")) for key in head] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def pivot(rows: Sequence[Row], down: str, across: str, value: str, scale: float = 1) -> str:
    """One line for each `down`, one column for each `across`."""
    columns = list(dict.fromkeys(row[across] for row in rows))
    lines: dict[Any, dict[str, Any]] = {}
    for row in rows:
        cell = row[value]
        scaled = round(cell * scale, 4) if isinstance(cell, (int, float)) else cell
        lines.setdefault(row[down], {down: row[down]})[f"{row[across]}{' %' if across == 'budget %' else ''}"] = scaled
    ordered = [f"{column}{' %' if across == 'budget %' else ''}" for column in columns]
    return table({name: line.get(name, "") for name in [down, *ordered]} for line in lines.values())


def number(value: Any) -> str:
    """Three digits that mean something."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


if __name__ == "__main__":
    main()

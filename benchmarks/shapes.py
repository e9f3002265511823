"""Samples of other shapes and lengths, and sets of many segments: what is read of them, and what they cost.

    python benchmarks/shapes.py [--segments 6000] [--singles 100000] [--rounds 15] [--quick]   about 8 minutes, 2 GB

frames      one frame of a ragged (300, 768) float32 sample beside all of it, first and later
large       a sample of 4 MiB beside `array.copy()` of the same in memory, later
keys        three keys of 200 segments each beside one, and beside one of one segment: batches of 64, later epochs
commits     one-sample commits beside their bare fsyncs, with 10 and with many segments there
singles     many segments of one sample: merged, and opened right after, while the replaced ones are still there
lengths     60,000 samples of 300 lengths of (L, 8) under one `all` key: segments and bytes

Ratios are of medians of rounds in which both sides take turns.  What is only there to be many is written without
fsync.  Does not show: a cold disk, network file systems.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from harness import options, save, scratch, seconds, table
from writes import bare_commit

from featurestore import Features, FeatureStore
from featurestore.storage.maintenance import GRACE_S
from featurestore.storage.rows import Row, as_rows
from featurestore.storage.writer import commit

STACKED, RAGGED = "bench/frame/CLIP_VIT_LARGE/uniform/8", "bench/face/manet_UTT/every/all"
RECIPE = {"benchmark": "shapes"}


def main() -> None:
    chosen = options(__doc__, segments=(6_000, 300), singles=(100_000, 1_000), rounds=(15, 2))
    result: dict[str, Any] = {"rounds": chosen.rounds}
    with scratch(chosen.dir) as root:
        for name, measure in (
            ("frames", lambda: frames(root / "frames", chosen.rounds)),
            ("large", lambda: large(root / "large", chosen.rounds)),
            ("keys", lambda: keys(root / "keys", chosen.rounds)),
            ("commits", lambda: commits(root / "commits", chosen.segments, chosen.rounds)),
            ("singles", lambda: singles(root / "singles", chosen.singles)),
            ("lengths", lambda: lengths(root / "lengths", min(60_000, 2 * chosen.singles))),
        ):
            result[name] = measure()
            print(table(result[name]), flush=True)
    save("shapes", result)


@contextmanager
def unsynced() -> Iterator[None]:
    """Without fsync: what is only there to be many."""
    with mock.patch("os.fsync", return_value=None):
        yield


def in_turns(rounds: int, **ways: Callable[[], Any]) -> dict[str, float]:
    """Median seconds of each way."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(seconds(way))
    return {name: statistics.median(times) for name, times in taken.items()}


def frames(root: Path, rounds: int) -> list[dict[str, Any]]:
    values = np.random.default_rng(0).standard_normal((200, 300, 768), dtype=np.float32)
    ids = [f"s{i}" for i in range(200)]
    FeatureStore(root).put_many(RAGGED, ids, list(values), recipe=RECIPE)
    later = FeatureStore(root)
    for id in ids * 2:
        later.get(RAGGED, id)
    opened: list[FeatureStore] = []

    def anew() -> FeatureStore:
        opened.append(FeatureStore(root))
        opened[-1].ids(RAGGED)
        return opened[-1]

    def each(store: FeatureStore, *wanted: Any) -> Callable[[], None]:
        def read() -> None:
            for id in ids:
                store.get(RAGGED, id, *wanted)

        return read

    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, read in (
            ("one frame, first", each(anew(), [150])),
            ("all 300, first", each(anew())),
            ("one frame, later", each(later, [150])),
            ("all 300, later", each(later)),
        ):
            taken.setdefault(name, []).append(seconds(read) / len(ids))
    median = {name: statistics.median(times) for name, times in taken.items()}
    return [
        {
            "read": name,
            "median us": round(spent * 1e6, 2),
            "of all": round(spent / median["all 300, " + name.split(", ")[1]], 4),
        }
        for name, spent in median.items()
    ]


def large(root: Path, rounds: int) -> list[dict[str, Any]]:
    values = np.random.default_rng(0).standard_normal((16, 8, 128, 1024), dtype=np.float32)
    ids = [f"s{i}" for i in range(16)]
    store = FeatureStore(root)
    store.put_many(STACKED, ids, values, recipe=RECIPE)
    for id in ids * 2:
        store.get(STACKED, id)

    # Each is let go before the next: with all 16 kept, what is measured is how malloc gives 64 MiB back to the system.
    def copies() -> None:
        for sample in values:
            sample.copy()

    def reads() -> None:
        for id in ids:
            store.get(STACKED, id)

    median = in_turns(4 * rounds, copies=copies, reads=reads)
    return [
        {
            "sample MiB": values[0].nbytes / (1 << 20),
            "array.copy() us": round(median["copies"] / 16 * 1e6, 1),
            "get, later us": round(median["reads"] / 16 * 1e6, 1),
            "of the speed of a copy": round(median["copies"] / median["reads"], 3),
        }
    ]


def keys(root: Path, rounds: int) -> list[dict[str, Any]]:
    values = np.random.default_rng(0).standard_normal((64, 8, 768), dtype=np.float32)
    ids = [f"{segment}-{i}" for segment in range(200) for i in range(64)]
    several = [f"bench/frame/CLIP_VIT_LARGE/sampler_{number}/8" for number in range(3)]
    writer = FeatureStore(root)
    with unsynced():
        for key in several:
            for at in range(0, len(ids), 64):
                writer.put_many(key, ids[at : at + 64], values, recipe=RECIPE)
        writer.put_many(STACKED, ids, np.tile(values, (200, 1, 1)), recipe=RECIPE)
    order = random.Random(0)

    def epoch(store: FeatureStore, wanted: list[str]) -> Callable[[], None]:
        def read() -> None:
            for _ in range(40):
                store.get_many(order.choice(wanted), order.sample(ids, 64))

        return read

    ways = {"one key, 1 segment": [STACKED], "one key, 200 segments": several[:1], "three keys, 200 segments": several}
    reads = {}
    for name, wanted in ways.items():
        store = FeatureStore(root)
        for key in wanted:
            for at in range(0, len(ids), 64):
                store.get_many(key, ids[at : at + 64])
        reads[name] = epoch(store, wanted)
    median = in_turns(rounds, **reads)
    one = median["one key, 200 segments"]
    return [
        {"read": name, "median us": round(spent / 2560 * 1e6, 2), "times one key": round(spent / one, 3)}
        for name, spent in median.items()
    ]


def commits(root: Path, many: int, rounds: int) -> list[dict[str, Any]]:
    values = np.random.default_rng(0).standard_normal((1, 8, 768), dtype=np.float32)
    rows = []
    for there in (10, many):
        store = FeatureStore(root / f"{there}")
        with unsynced():
            for number in range(there):
                store.put_many(STACKED, [f"there-{number}"], values, recipe=RECIPE)
        bare = root / f"bare-{there}"
        bare.mkdir()
        ours, theirs = [], []
        for number in range(10 * rounds):
            ours.append(seconds(lambda n=number, s=store: s.put_many(STACKED, [f"n{n}"], values, recipe=RECIPE)))
            theirs.append(seconds(lambda n=number, b=bare: bare_commit(b / f"{n}", values[0])))
        with unsynced():
            alone = [
                seconds(lambda n=number, s=store: s.put_many(STACKED, [f"m{n}"], values, recipe=RECIPE))
                for number in range(10 * rounds)
            ]
        rows.append(
            {
                "segments there": there,
                "commit ms": round(statistics.median(ours) * 1e3, 3),
                "its bare fsyncs ms": round(statistics.median(theirs) * 1e3, 3),
                "times bare": round(statistics.median(ours) / statistics.median(theirs), 3),
                "without fsync ms": round(statistics.median(alone) * 1e3, 3),
            }
        )
    return rows


MERGE = """
import sys, time
from featurestore import FeatureStore
store, key = FeatureStore(sys.argv[1]), sys.argv[2]
start = time.perf_counter()
count = store.compact(key)
spent = time.perf_counter() - start
most = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(count, spent, int(most.split()[1]) / 1024)
"""
OPEN = """
import sys, time
from featurestore import FeatureStore
store, key = FeatureStore(sys.argv[1]), sys.argv[2]
start = time.perf_counter()
assert store.get(key, "s0").shape == (2, 1)
print(time.perf_counter() - start)
"""


def singles(root: Path, count: int) -> list[dict[str, Any]]:
    key = "bench/frame/CLIP_VIT_LARGE/uniform/2"
    store = FeatureStore(root)
    store.put(key, "s0", np.zeros((2, 1), np.float32), recipe=RECIPE)
    kept = store.feature_set(key)
    assert kept is not None
    with unsynced():  # and without the reader, which would have to follow every one of them
        for number in range(1, count):
            row = Row.of(f"s{number}", Features(np.full((2, 1), number, np.float32)))
            (batch,) = as_rows(kept.key, {f"s{number}": row})
            commit(kept.layout, kept.recipe, batch)
    del store, kept

    def told(program: str) -> list[float]:
        command = [sys.executable, "-c", program, str(root), key]
        return list(map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()))

    before = told(OPEN)[0]
    merged, spent, most = told(MERGE)
    assert merged == count
    assert GRACE_S > 600  # what was replaced is still there
    return [
        {
            "segments of one sample": count,
            "open s": round(before, 2),
            "compact s": round(spent, 1),
            "compact MiB": round(most),
            "open right after s": round(min(told(OPEN)[0] for _ in range(3)), 3),
        }
    ]


def lengths(root: Path, count: int) -> list[dict[str, Any]]:
    values = [np.full((1 + i % 300, 8), i, np.float32) for i in range(count)]
    ids = [f"s{i}" for i in range(count)]
    store = FeatureStore(root)
    with unsynced():
        for at in range(0, count, 500):
            store.put_many(RAGGED, ids[at : at + 500], values[at : at + 500], recipe=RECIPE)
    before = store.info(RAGGED).segments
    store.compact(RAGGED)
    found = store.get_ragged(RAGGED, ids[:600])
    assert all(np.array_equal(one, other) for one, other in zip(found, values, strict=False))
    info = store.info(RAGGED)
    payload = sum(each.nbytes for each in values)
    feature_set = store.feature_set(RAGGED)
    assert feature_set is not None
    parts = {"rows": 0, "frames": 0}
    for segment in feature_set.reader.segments:
        for name in parts:
            parts[name] += os.path.getsize(os.path.join(segment.path, name))
    beside = info.bytes - sum(parts.values())
    return [
        {
            "samples": count,
            "lengths": len(info.shapes),
            "segments before": before,
            "segments": info.segments,
            "payload bytes": payload,
            "records and lines": parts["rows"],
            "frame checksums": parts["frames"],
            "all else / payload": round(beside / payload, 5),
        }
    ]


if __name__ == "__main__":
    main()

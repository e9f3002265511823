"""Hit rates: access traces of training and evaluation against budgets, for each policy and each rival.

    python benchmarks/hit_rates.py [--samples 600] [--quick]          about 3 minutes

Memory budgets are measured on the real tier of a real store: every trace is read through `FeatureStore.get`,
and the hits are those of its counters.  Belady's optimum, which knows the future, is the limit.  Time saved is
measured over a local store, where the page cache already is a memory tier, and over one that is read by `pread`
without maps, as on a network file system; in CPU time, because nothing is waited for.  `render.py` also says
what the same hit rates would save were the budget one of disk, at the cost of a miss that `extraction.json` has;
that is simulated, because a store has no budget of its own.
Does not show: the time that a network takes, so that a memory hit saves more there than here; jobs in processes
of their own, each of which has a tier of its own.
"""

from __future__ import annotations

import functools
import heapq
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any
from unittest import mock

import diskcache
import joblib
import numpy as np
from harness import options, save, scratch, table
from policies import POLICIES

from featurestore import FeatureKey, FeatureStore
from featurestore.datasets import resolve_dataset

ROW_BYTES = 8 * 768 * 4
BUDGETS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
TIMED = 0.5  # the share of the data at which time is measured over a store that is read by pread
UNIFORM = FeatureKey("bench", "frame", "CLIP_VIT_LARGE", "uniform", 8)
PEAK = FeatureKey("bench", "frame", "CLIP_VIT_LARGE", "emotion_peak", 8)
LONGER = FeatureKey("bench", "frame", "CLIP_VIT_LARGE", "uniform", 16)
# The nine test sets of MER-UniBench.
SETS = ("mer2023", "mer2024", "meld", "iemocap", "cmumosi", "cmumosei", "sims", "simsv2", "ovmerdplus")
Trace = list[tuple[FeatureKey, int]]


def nine_sets(n: int) -> dict[FeatureKey, int]:
    """The keys of the nine sets, and n samples divided among them as theirs are."""
    counts = {name: resolve_dataset(name).splits["test"].count or 0 for name in SETS}
    whole = sum(counts.values())
    return {
        FeatureKey(name, "frame", "CLIP_VIT_LARGE", "uniform", 8): max(1, round(n * count / whole))
        for name, count in counts.items()
    }


def stored(n: int) -> dict[FeatureKey, int]:
    """Every key that is read, and how many samples are stored under it."""
    return {**dict.fromkeys((UNIFORM, PEAK, LONGER), n), **nine_sets(n)}


def traces(n: int) -> dict[str, Trace]:
    """What training and evaluation read, over n samples."""
    generator = random.Random(0)

    def shuffled(key: FeatureKey, count: int = n) -> Trace:
        return [(key, i) for i in generator.sample(range(n), count)]

    in_order: Trace = [(key, i) for key, count in nine_sets(n).items() for i in range(count)]
    weights = [1 / (rank + 1) for rank in range(n)]
    jobs = [shuffled(UNIFORM) + shuffled(UNIFORM) for _ in range(3)]
    easy_first: Trace = []
    for epoch in range(1, 7):
        reachable = max(1, n * epoch // 6)
        easy_first += [(UNIFORM, i) for i in generator.sample(range(reachable), reachable)]
    return {
        "shuffled epochs": [access for _ in range(6) for access in shuffled(UNIFORM)],
        "six checkpoints, nine sets": in_order * 6,
        "Zipf": [(UNIFORM, i) for i in generator.choices(range(n), weights, k=6 * n)],
        "curriculum": easy_first,
        "three jobs": [access for together in zip(*jobs, strict=True) for access in together],
        "sampler switch": [access for key in (UNIFORM, PEAK) for _ in range(3) for access in shuffled(key)],
        "8 to 16 frames": [access for key in (UNIFORM, LONGER) for _ in range(3) for access in shuffled(key)],
    }


def size_of(key: FeatureKey) -> int:
    """Bytes of a row."""
    return ROW_BYTES * int(key.n_frames) // 8


def belady(trace: Trace, budget: int) -> int:
    """Hits of the policy that knows the future: what is needed last leaves, and what is needed later still stays out.

    The optimum where all rows have one size; else close to it.
    """
    used = 0
    uses: dict[Hashable, list[int]] = {}
    for at in range(len(trace) - 1, -1, -1):
        uses.setdefault(trace[at], []).append(at)
    kept: dict[Hashable, int] = {}
    heap: list[tuple[int, int]] = []
    hits = 0
    for at, access in enumerate(trace):
        uses[access].pop()
        following = uses[access][-1] if uses[access] else len(trace) + at
        if access in kept:
            hits += 1
        else:
            size = size_of(access[0])
            while used + size > budget and heap:
                when, number = heap[0]
                victim = trace[number]
                if kept.get(victim) == -when:
                    if -when <= following:
                        break
                    del kept[victim]
                    used -= size_of(victim[0])
                heapq.heappop(heap)
            if used + size > budget:
                continue
            used += size
        kept[access] = following
        heapq.heappush(heap, (-following, at))
    return hits


def timed(get: Callable[[FeatureKey, int], Any], trace: Trace) -> dict[str, float]:
    """Microseconds per read by two clocks."""
    wall, cpu = time.perf_counter(), time.process_time()
    for key, i in trace:
        get(key, i)
    spent = {"us per read": time.perf_counter() - wall, "CPU us per read": time.process_time() - cpu}
    return {name: round(seconds / len(trace) * 1e6, 2) for name, seconds in spent.items()}


def through_the_tier(root: Path, trace: Trace, budget: int, policy: str, over: str) -> dict[str, float]:
    """A store with a memory tier, read through maps or, as on a network file system, without."""
    store = FeatureStore(root, memory_bytes=budget)
    if store._memory is not None:
        store._memory.policy = POLICIES[policy]()
    with mock.patch("featurestore.storage.reader._on_network", return_value=over == "pread"):
        spent = timed(lambda key, i: store.get(key, f"s{i}"), trace)
    return {"hit rate": round(store.stats.memory_hits / len(trace), 4), **spent}


class Files:
    """What people have today: np.load of one file per sample; a cache in front of it is a rival."""

    def __init__(self, root: Path) -> None:
        self.root, self.loads = root / "npy", 0

    def load(self, key: FeatureKey, i: int) -> Any:
        self.loads += 1
        return np.load(self.root / folder_of(key) / f"s{i}.npy")

    def measured(self, get: Callable[[FeatureKey, int], Any], trace: Trace) -> dict[str, float]:
        self.loads = 0
        spent = timed(get, trace)
        return {"hit rate": round(1 - self.loads / len(trace), 4), **spent}


def rivals(root: Path, trace: Trace, budget: int, whole: bool) -> dict[str, dict[str, float]]:
    """The same trace through caches that people use instead; some at the whole budget only, because they take long."""
    files = Files(root)
    row_bytes = max(size_of(key) for key, _ in trace)  # it counts rows, not bytes
    results = {
        "functools.lru_cache": files.measured(functools.lru_cache(maxsize=budget // row_bytes)(files.load), trace)
    }
    if budget >= 10 * row_bytes:  # it throws out ten at once
        with diskcache.Cache(
            str(root / "diskcache"), size_limit=budget, eviction_policy="least-recently-used", cull_limit=10
        ) as cache:

            def through_disk(key: FeatureKey, i: int) -> Any:
                found = cache.get((folder_of(key), i))
                if found is None:
                    found = files.load(key, i)
                    cache.set((folder_of(key), i), found)
                return found

            results["diskcache"] = files.measured(through_disk, trace)
        shutil.rmtree(root / "diskcache")
    if whole:
        # It has no budget while it works: `reduce_size` is called by hand.
        memory = joblib.Memory(root / "joblib", verbose=0)
        results["joblib.Memory"] = files.measured(memory.cache(files.load, ignore=["self"]), trace)
        shutil.rmtree(root / "joblib")
    return results


def main() -> None:
    chosen = options(__doc__, samples=(600, 64))
    n = chosen.samples
    with scratch(chosen.dir) as root:
        fill(root, n)
        rows = run(root, n)
    result = {"samples": n, "mean": mean_rates(rows), "rows": rows}
    save("hit_rates", result)
    print(table([row for row in rows if row["budget %"] == 50]))


def fill(root: Path, n: int) -> None:
    """A store, and a folder of .npy files with the same rows under all keys."""
    for key, count in stored(n).items():
        ids = [f"s{i}" for i in range(count)]
        values = np.random.default_rng(0).standard_normal((count, int(key.n_frames), 768), dtype=np.float32)
        FeatureStore(root / "store").put_many(key, ids, values, recipe={"benchmark": "hit_rates"})
        (root / "npy" / folder_of(key)).mkdir(parents=True)
        for id, row in zip(ids, values, strict=True):
            np.save(root / "npy" / folder_of(key) / f"{id}.npy", row)


def folder_of(key: FeatureKey) -> str:
    return f"{key.dataset}_{key.sampling}_{key.n_frames}"


def run(root: Path, n: int) -> list[dict[str, Any]]:
    """One row for each trace, budget and policy or rival."""
    rows: list[dict[str, Any]] = []
    counts = stored(n)
    for name, trace in traces(n).items():
        size = sum(counts[key] * size_of(key) for key in {key for key, _ in trace})

        def row(share: float, policy: str, found: dict[str, float], over: str = "", name: str = name) -> None:
            about = {"trace": name, "budget %": round(share * 100), "policy": policy, "over": over}
            rows.append({**about, **found})

        for share in BUDGETS:
            budget = int(share * size)
            for policy in POLICIES:
                for over in ("map", "pread") if share == TIMED else ("map",):
                    row(share, policy, through_the_tier(root / "store", trace, budget, policy, over), over)
            row(share, "Belady (limit)", {"hit rate": round(belady(trace, budget) / len(trace), 4)})
            for rival, found in rivals(root, trace, budget, share == 1).items():
                row(share, rival, found, "npy")
        for over in ("map", "pread"):
            row(0.0, "no memory tier", through_the_tier(root / "store", trace, 0, "lru", over), over)
        files = Files(root)
        row(0.0, "one .npy per sample, no cache", files.measured(files.load, trace), "npy")
    return rows


def mean_rates(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean hit rate of each policy over traces and budgets below 100 %: what the default was chosen by.

    Not of diskcache, which has no rows at the least budgets.
    """
    total: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for row in rows:
        if 0 < row["budget %"] < 100 and row["over"] != "pread" and row["policy"] != "diskcache":
            total[row["policy"]] += row["hit rate"]
            count[row["policy"]] += 1
    return {policy: round(total[policy] / count[policy], 4) for policy in total}


if __name__ == "__main__":
    main()

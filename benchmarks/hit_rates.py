"""Hit rates: access traces of training and evaluation against budgets, for each policy and each rival.

    python benchmarks/hit_rates.py [--samples 600] [--quick]          about 4 minutes

Memory budgets are measured on the real tier of a real store: every trace is read through `FeatureStore.get`,
and the hits are those of its counters.  Belady's optimum, which knows the future, is the limit.  `render.py`
also says what the same hit rates would save were the budget one of disk, at the cost of a miss that
`extraction.json` has; that is simulated, because a store has no budget of its own.
Does not show: a network file system, where a memory hit saves most; on a local disk the page cache is as
good, and the column `us per read` says so.
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

import diskcache
import joblib
import numpy as np
from cachetools import LFUCache
from harness import options, save, scratch, table

from featurestore import FeatureKey, FeatureStore
from featurestore.eviction import POLICIES, policy_named

ROW_BYTES = 8 * 768 * 4
BUDGETS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
UNIFORM = FeatureKey("bench", "frame", "CLIP_VIT_LARGE", "uniform", 8)
PEAK = FeatureKey("bench", "frame", "CLIP_VIT_LARGE", "emotion_peak", 8)
LONGER = FeatureKey("bench", "frame", "CLIP_VIT_LARGE", "uniform", 16)
Trace = list[tuple[FeatureKey, int]]


def traces(n: int) -> dict[str, Trace]:
    """What training and evaluation read, over n samples."""
    generator = random.Random(0)

    def shuffled(key: FeatureKey, count: int = n) -> Trace:
        return [(key, i) for i in generator.sample(range(n), count)]

    in_order: Trace = [(UNIFORM, i) for i in range(n)]
    weights = [1 / (rank + 1) for rank in range(n)]
    jobs = [shuffled(UNIFORM) + shuffled(UNIFORM) for _ in range(3)]
    easy_first: Trace = []
    for epoch in range(1, 7):
        reachable = max(1, n * epoch // 6)
        easy_first += [(UNIFORM, i) for i in generator.sample(range(reachable), reachable)]
    return {
        "shuffled epochs": [access for _ in range(6) for access in shuffled(UNIFORM)],
        "checkpoints over the test sets": in_order * 6,
        "Zipf": [(UNIFORM, i) for i in generator.choices(range(n), weights, k=6 * n)],
        "curriculum": easy_first,
        "three jobs": [access for together in zip(*jobs, strict=True) for access in together],
        "sampler switch": [access for key in (UNIFORM, PEAK) for _ in range(3) for access in shuffled(key)],
        "8 to 16 frames": [access for key in (UNIFORM, LONGER) for _ in range(3) for access in shuffled(key)],
    }


def size_of(key: FeatureKey) -> int:
    """Bytes of a row."""
    return ROW_BYTES * int(key.n_frames) // 8


class Lfu:
    """LFU by cachetools, as a policy of the tier: for comparison only."""

    def __init__(self) -> None:
        self.cache: LFUCache[Hashable, None] = LFUCache(maxsize=10**9)

    def came(self, place: Hashable) -> None:
        self.cache[place] = None

    def used(self, place: Hashable) -> None:
        self.cache[place]

    def gone(self, place: Hashable) -> None:
        self.cache.pop(place, None)

    def next(self) -> Hashable:
        place, value = self.cache.popitem()
        self.cache[place] = value  # the tier says `gone` when it really leaves
        return place


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


def through_the_tier(root: Path, trace: Trace, budget: int, policy: str) -> tuple[float, float]:
    """(hit rate, microseconds per read) of a store with a memory tier."""
    store = FeatureStore(root, memory_bytes=budget)
    if store._memory is not None:
        store._memory.policy = Lfu() if policy == "lfu" else policy_named(policy)
    start = time.perf_counter()
    for key, i in trace:
        store.get(key, f"s{i}")
    seconds = time.perf_counter() - start
    return store.stats.memory_hits / len(trace), seconds / len(trace) * 1e6


def rivals(root: Path, trace: Trace, budget: int) -> dict[str, tuple[float, float]]:
    """The same trace through caches that people use instead, each in front of np.load of one file per sample."""
    misses = 0

    def load(key: str, i: int) -> Any:
        nonlocal misses
        misses += 1
        return np.load(root / "npy" / key / f"s{i}.npy")

    def timed(get: Callable[[str, int], Any]) -> tuple[float, float]:
        nonlocal misses
        misses = 0
        start = time.perf_counter()
        for key, i in trace:
            get(folder_of(key), i)
        return 1 - misses / len(trace), (time.perf_counter() - start) / len(trace) * 1e6

    row_bytes = max(size_of(key) for key, _ in trace)  # it counts rows, not bytes
    results = {"functools.lru_cache": timed(functools.lru_cache(maxsize=budget // row_bytes)(load))}
    with diskcache.Cache(
        str(root / "diskcache"), size_limit=budget, eviction_policy="least-recently-used", cull_limit=10
    ) as cache:

        def through_disk(key: str, i: int) -> Any:
            found = cache.get((key, i))
            if found is None:
                found = load(key, i)
                cache.set((key, i), found)
            return found

        results["diskcache"] = timed(through_disk)
    shutil.rmtree(root / "diskcache")
    results["one .npy per sample, no memory"] = (0.0, timed(load)[1])
    return results


def joblib_once(root: Path, trace: Trace) -> tuple[float, float]:
    """joblib.Memory has no budget while it works (`reduce_size` is called by hand), so it has one row only."""
    memory = joblib.Memory(root / "joblib", verbose=0)
    calls = 0

    def load(key: str, i: int) -> Any:
        nonlocal calls
        calls += 1
        return np.load(root / "npy" / key / f"s{i}.npy")

    cached = memory.cache(load)
    start = time.perf_counter()
    for key, i in trace:
        cached(folder_of(key), i)
    taken = (time.perf_counter() - start) / len(trace) * 1e6
    shutil.rmtree(root / "joblib")
    return 1 - calls / len(trace), taken


def main() -> None:
    chosen = options(__doc__, samples=(600, 64))
    n = chosen.samples
    with scratch(chosen.dir) as root:
        fill(root, n)
        rows = run(root, n)
    result = {"samples": n, "mean": mean_rates(rows), "rows": rows}
    save("hit_rates", result)
    print(table([row for row in rows if row["budget %"] in (10, 50)]))


def fill(root: Path, n: int) -> None:
    """A store and a folder of .npy files with the same rows under both keys."""
    ids = [f"s{i}" for i in range(n)]
    for key in (UNIFORM, PEAK, LONGER):
        values = np.random.default_rng(0).standard_normal((n, int(key.n_frames), 768), dtype=np.float32)
        FeatureStore(root / "store").put_many(key, ids, values, recipe={"benchmark": "hit_rates"})
        (root / "npy" / folder_of(key)).mkdir(parents=True)
        for id, row in zip(ids, values, strict=True):
            np.save(root / "npy" / folder_of(key) / f"{id}.npy", row)


def folder_of(key: FeatureKey) -> str:
    return f"{key.sampling}_{key.n_frames}"


def run(root: Path, n: int) -> list[dict[str, Any]]:
    """One row for each trace, budget and policy or rival."""
    rows: list[dict[str, Any]] = []
    for name, trace in traces(n).items():
        size = n * sum(map(size_of, {key for key, _ in trace}))

        def row(share: float, policy: str, rate: float, taken: float | None, name: str = name) -> None:
            rows.append(
                {
                    "trace": name,
                    "budget %": round(share * 100),
                    "policy": policy,
                    "hit rate": round(rate, 4),
                    "us per read": "" if taken is None else round(taken, 2),
                }
            )

        for share in BUDGETS:
            budget = int(share * size)
            for policy in [*POLICIES, "lfu"]:
                row(share, policy, *through_the_tier(root / "store", trace, budget, policy))
            row(share, "Belady (limit)", belady(trace, budget) / len(trace), None)
            for rival, result in rivals(root, trace, budget).items():
                row(share, rival, *result)
        row(1.0, "joblib.Memory", *joblib_once(root, trace[: 2 * n]))
        row(0.0, "no memory tier", *through_the_tier(root / "store", trace, 0, "lru"))
    return rows


def mean_rates(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean hit rate of each policy over traces and budgets below 100 %: what the default was chosen by."""
    total: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for row in rows:
        if 0 < row["budget %"] < 100:
            total[row["policy"]] += row["hit rate"]
            count[row["policy"]] += 1
    return {policy: round(total[policy] / count[policy], 4) for policy in total}


if __name__ == "__main__":
    main()

"""Counters: exact for every call, and among threads."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from store_factories import KEY, Making, fill

from featurestore import FeatureStore
from featurestore.errors import FailedSamplesError, MissingFeatureError
from featurestore.features import Failure
from featurestore.stats import COUNTERS, DISK_HITS, Stats

ROW_BYTES = 4 * 6 * 4


def test_every_counter_begins_at_zero_and_can_be_read() -> None:
    stats = Stats()
    assert stats.as_dict() == dict.fromkeys(COUNTERS, 0)
    assert repr(stats).startswith("Stats(memory_hits=0, disk_hits=0, misses=0,")
    with pytest.raises(AttributeError, match="hits"):
        _ = stats.hits  # type: ignore[attr-defined]


def assert_threads_lose_no_count(rounds: int) -> None:
    stats = Stats()

    def work() -> None:
        for _ in range(rounds):
            stats.counts()[DISK_HITS] += 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert stats.disk_hits == 8 * rounds


def test_threads_lose_no_count() -> None:
    assert_threads_lose_no_count(20_000)


class Slippery(list[int]):
    """A shared counter as the interpreter may run it: another thread between the reading and the writing."""

    def __getitem__(self, at: int) -> int:  # type: ignore[override]
        value = super().__getitem__(at)
        time.sleep(1e-4)
        return value


def test_one_list_for_all_threads_would_lose_some(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Slippery([0] * len(COUNTERS))

    def counts(self: Stats) -> list[int]:
        if shared not in self._all:
            self._all.append(shared)
        return shared

    monkeypatch.setattr(Stats, "counts", counts)
    with pytest.raises(AssertionError):
        assert_threads_lose_no_count(100)


def test_threads_of_one_store_lose_no_count(tmp_path: Path) -> None:
    ids = [f"s{number}" for number in range(20)]
    fill(tmp_path, ids)
    store = FeatureStore(tmp_path)

    def work() -> None:
        for _ in range(50):
            for id in ids:
                store.get(KEY, id)
            store.get_many(KEY, ids)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.stats.disk_hits == 4 * 50 * 2 * len(ids)
    assert store.stats.bytes_read == store.stats.disk_hits * ROW_BYTES
    assert store.stats.misses == 0


@pytest.mark.parametrize("memory_bytes", [0, 3 * ROW_BYTES, 10**6])
def test_each_call_counts_each_distinct_id_once(tmp_path: Path, memory_bytes: int) -> None:
    """memory_hits + disk_hits + misses == ids requested; computed + waited + failed == misses."""
    making = Making(bad=Failure("media", "bad"))
    store = FeatureStore(tmp_path, compute=making, memory_bytes=memory_bytes)
    generator = np.random.default_rng(0)
    requested = 0
    for _ in range(60):
        ids = [f"s{number}" for number in generator.integers(0, 30, generator.integers(1, 12))]
        which = generator.integers(0, 4)
        if which == 0:
            store.get(KEY, ids[0])
            requested += 1
        elif which == 1:
            store.get_features(KEY, ids[0])
            requested += 1
        elif which == 2:
            store.get_many(KEY, ids)
            requested += len(set(ids))
        else:
            with pytest.raises(FailedSamplesError):
                store.get_many(KEY, [*ids, "bad", "bad"])
            requested += len({*ids, "bad"})
        stats = store.stats
        assert stats.memory_hits + stats.disk_hits + stats.misses == requested
        assert stats.computed + stats.waited + stats.failed == stats.misses
        assert stats.not_kept == 0
    assert stats.computed == len(set(making.made) - {"bad"})
    assert (stats.memory_hits > 0) == (memory_bytes > 0)


def test_misses_without_a_compute_are_counted_too(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    for prepare in (lambda: None, lambda: fill(tmp_path, ["a"])):  # nothing stored at all; something stored
        prepare()
        with pytest.raises(MissingFeatureError):
            store.get_many(KEY, ["x", "y", "x"])
        with pytest.raises(MissingFeatureError):
            store.get(KEY, "x")
        with pytest.raises(MissingFeatureError):
            store.get_features(KEY, "x")
    assert store.stats.misses == 8
    with pytest.raises(MissingFeatureError):
        store.get_many(KEY, ["a", "x"])
    assert (store.stats.disk_hits, store.stats.misses) == (1, 9)


def test_a_memory_hit_reads_no_bytes(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"])
    store = FeatureStore(tmp_path, memory_bytes=10**6)
    store.get_many(KEY, ["a", "b", "a"])
    assert store.stats.bytes_read == 2 * ROW_BYTES
    store.get_many(KEY, ["a", "b", "a"])
    store.get(KEY, "a")
    assert store.stats.bytes_read == 2 * ROW_BYTES
    assert (store.stats.disk_hits, store.stats.memory_hits) == (2, 3)


def test_looking_counts_nothing(tmp_path: Path) -> None:
    store = fill(tmp_path, ["a"])
    store.ids(KEY)
    store.missing(KEY, ["a", "b"])
    store.available(KEY, ["a", "b"])
    store.recipes(KEY)
    assert store.stats.as_dict() == dict.fromkeys(COUNTERS, 0)

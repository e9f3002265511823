"""The memory tier: its budget, its order, and that nobody can change what another one gets."""

from __future__ import annotations

import os
import threading
import time
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.errors import ConfigError
from featurestore.storage.memory import MemoryTier

ROW_BYTES = 24


def row(number: int) -> NDArray[np.float32]:
    return np.full((2, 3), number, np.float32)


def test_a_row_comes_back_as_a_fresh_copy() -> None:
    tier = MemoryTier(1000)
    kept = row(1)
    tier.put("a", kept)
    kept[:] = 9
    first = tier.get("a")
    np.testing.assert_array_equal(first, row(1))
    first[:] = 8
    second = tier.get("a")
    np.testing.assert_array_equal(second, row(1))
    assert second.flags.owndata
    assert second.flags.writeable
    assert second.flags.c_contiguous
    assert tier.get("b") is None


def test_the_least_recently_used_row_leaves_first() -> None:
    tier = MemoryTier(3 * ROW_BYTES, "lru")
    for number in range(3):
        tier.put(number, row(number))
    tier.get(0)
    tier.put(3, row(3))
    assert [number for number in range(4) if tier.get(number) is not None] == [0, 2, 3]
    assert len(tier) == 3


def test_the_budget_is_kept_to_the_byte() -> None:
    tier = MemoryTier(3 * ROW_BYTES + ROW_BYTES - 1)
    for number in range(10):
        tier.put(number % 5, row(number))
        assert tier.bytes == len(tier) * ROW_BYTES <= tier.budget_bytes
    assert len(tier) == 3


def test_a_row_put_again_is_counted_once() -> None:
    tier = MemoryTier(1000)
    tier.put("a", row(1))
    tier.put("a", row(2))
    assert tier.bytes == ROW_BYTES
    np.testing.assert_array_equal(tier.get("a"), row(2))


def test_a_row_larger_than_the_budget_does_not_empty_the_tier() -> None:
    tier = MemoryTier(ROW_BYTES)
    tier.put("a", row(1))
    tier.put("b", np.zeros(100, np.float32))
    assert tier.get("b") is None
    np.testing.assert_array_equal(tier.get("a"), row(1))


def test_rows_that_are_not_wanted_any_more_leave() -> None:
    tier = MemoryTier(1000)
    for number in range(4):
        tier.put(number, row(number))
    tier.keep(lambda place: place % 2 == 0)
    assert [number for number in range(4) if tier.get(number) is not None] == [0, 2]
    assert tier.bytes == 2 * ROW_BYTES


def test_an_unknown_policy_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="memory_policy 'oldest' is not one of: bip, lru"):
        MemoryTier(1000, "oldest")


def test_threads_keep_the_count_of_bytes_right() -> None:
    tier = MemoryTier(10 * ROW_BYTES)

    def work(start: int) -> None:
        for number in range(start, start + 2000):
            tier.put(number % 30, row(number % 30))
            found = tier.get((number * 7) % 30)
            assert found is None or (found == (number * 7) % 30).all()

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tier.bytes == len(tier) * ROW_BYTES <= tier.budget_bytes


def slowly(place: object) -> bool:
    """Keep it, and hold the lock for most of the time."""
    time.sleep(0.002)
    return True


def test_a_fork_while_a_thread_holds_the_lock_leaves_it_free_in_the_child() -> None:
    tier = MemoryTier(1000)
    tier.put("a", row(1))
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.0005):  # without a pause a loaded machine gives nobody else the lock
            tier.keep(slowly)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(10):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: that is the point
                child = os.fork()
            if child == 0:
                free = tier._lock.acquire(timeout=5)
                os._exit(0 if free and tier._rows["a"][0, 0] == 1 else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        done.set()
        thread.join()


def test_threads_that_fork_at_once_leave_every_tier_usable_in_each_child() -> None:
    """With one lock per tier, the end of one fork gave free what the other had just taken."""
    tiers = [MemoryTier(1000) for _ in range(3)]
    for tier in tiers:
        tier.put("a", row(1))
    done = threading.Event()
    ends: list[int] = []

    def work(tier: MemoryTier) -> None:
        while not done.wait(0.0005):  # without a pause a loaded machine gives nobody else the lock
            tier.keep(slowly)

    def fork() -> None:
        for _ in range(30):
            try:
                child = os.fork()
            except RuntimeError:  # filelock from 4.3 on refuses one that begins beside another
                continue
            if child == 0:
                free = [tier._lock.acquire(timeout=2) and tier._lock.release() is None for tier in tiers]
                os._exit(0 if all(free) else 1)
            ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    threads = [threading.Thread(target=work, args=(tier,)) for tier in tiers]
    forking = [threading.Thread(target=fork) for _ in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # as above
        for thread in [*threads, *forking]:
            thread.start()
        for thread in forking:
            thread.join()
    done.set()
    for thread in threads:
        thread.join()
    assert set(ends) == {0}

"""The rival policies of benchmarks/hit_rates.py do what they are measured for."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.storage.memory import MemoryTier

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cachetools")
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def replay(name: str, trace: list[int], room: int) -> int:
    """Hits in a real tier that holds `room` rows of one byte."""
    import numpy as np
    from policies import POLICIES

    tier, hits = MemoryTier(room, POLICIES[name]()), 0
    for row in trace:
        if tier.get(row) is not None:
            hits += 1
        else:
            tier.put(row, np.zeros(1, np.uint8))
    return hits


@pytest.mark.parametrize("name", ["bip", "lru", "sieve", "random", "pinned", "lfu"])
def test_everything_is_hit_once_it_fits(name: str) -> None:
    assert replay(name, list(range(50)) * 3, 50) == 100


def test_pinned_is_the_best_in_a_scan_and_keeps_an_old_working_set() -> None:
    assert replay("pinned", list(range(100)) * 10, 50) == 450
    assert replay("pinned", list(range(100)) * 3 + list(range(100, 150)) * 60, 60) == 120


def test_sieve_gives_used_rows_a_second_round() -> None:
    from policies import Sieve

    policy = Sieve()
    for position in "abc":
        policy.came(position)
    policy.used("a")
    assert policy.next() == "b"


def test_lfu_keeps_what_is_read_most() -> None:
    assert replay("lfu", [0] * 5 + [1, 2, 3, 0, 4, 5, 0], 2) == 6

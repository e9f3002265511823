"""kill -9 at any moment: what was acknowledged is there, bit for bit, and nothing is half there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import crash_workers
import pytest
from figures import Figures
from mutants import commits_file_by_file, mutant, removes_before_it_replaces
from workers import run_all

KILLS_PER_STORE = 250
STORES_AT_ONCE = 4


@pytest.mark.timeout(0)
def test_nothing_acknowledged_is_lost_when_writers_are_killed(
    tmp_path: Path, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    kills = rounds(2_000, 10_000)
    starts = range(0, kills, KILLS_PER_STORE)
    sizes = [min(KILLS_PER_STORE, kills - start) for start in starts]
    jobs = [
        functools.partial(crash_workers.kill_many, tmp_path / str(number), size, seed=number)
        for number, size in enumerate(sizes)
    ]
    for first in range(0, len(jobs), STORES_AT_ONCE):
        some = slice(first, first + STORES_AT_ONCE)
        for size, (found, acknowledged) in zip(sizes[some], run_all(jobs[some]), strict=True):
            beside = {"samples acknowledged": acknowledged}
            figures.record("kill -9", size, "kills", {"lost or wrong": len(found)}, beside)
            assert found == []


MUTANTS = {
    "commits file by file, zarr.json first": lambda: commits_file_by_file(document_last=False),
    "acknowledges too soon": lambda: mutant(
        crash_workers._work,
        '            op.run(store)\n            oracle.done()\n            tell("done")\n',
        '            tell("done")\n            op.run(store)\n            oracle.done()\n',
    ),
    "removes before it replaces": removes_before_it_replaces,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_writer_that_a_kill_undoes_is_caught(name: str, fast_disk: Path, figures: Figures) -> None:
    with MUTANTS[name]():
        found, _ = crash_workers.kill_many(
            fast_disk / name.replace(" ", "-").replace(",", ""), 1_000, seed=0, stop_at_first=True
        )
    assert found
    figures.caught("kill -9", name)

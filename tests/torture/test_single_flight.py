"""Single flight: of many processes that want one sample, one computes it; without locks nothing is wrong either."""

from __future__ import annotations

import collections
import errno
import fcntl
import functools
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from figures import Figures
from oracle import KEY, RECIPE, value
from workers import Worker, run_all

from featurestore import Features, FeatureStore, Recipe
from featurestore.key import FeatureKey

PROCESSES = 8
IDS = [f"sample_{number:04d}" for number in range(500)]
BATCH = 8


class Logged:
    """A compute that writes down what it was asked for, and whose numbers are those of its process."""

    def __init__(self, log: Path) -> None:
        self.log = log.open("ab", buffering=0)

    def recipe(self, key: FeatureKey) -> Recipe:
        return RECIPE

    def __call__(self, key: FeatureKey, ids: Sequence[str]) -> Iterator[tuple[str, Features]]:
        for id in ids:
            self.log.write(f"{id} {os.getpid()}\n".encode())
            time.sleep(0.0005)
            yield id, Features(value(id, os.getpid()))


def ask(root: Path, log: Path, seed: int, requests: int, settled: bool = True) -> dict[str, int]:
    """Ask for samples at random, one or some at a time; {id: version that was returned last}.

    settled   an answer never changes.  Without locks it may, where several processes compute one sample
              with other bits: then the one whose segment is first by name counts, also when it comes later.
    """
    random_ = random.Random(seed)
    compute = Logged(log)
    store = FeatureStore(root, compute=compute)
    versions: dict[str, int] = {}
    pids: set[int] = set()
    while requests > 0:
        ids = random_.sample(IDS, random_.choice((1, 1, 1, BATCH)))
        requests -= len(ids)
        answers: Iterable[Any] = [store.get(KEY, ids[0])] if len(ids) == 1 else store.get_many(KEY, ids)
        for id, values in zip(ids, answers, strict=True):
            if id not in versions or not np.array_equal(values, value(id, versions[id])):
                pids |= {int(line.split()[1]) for line in log.read_text(encoding="utf-8").splitlines()}
                found = [pid for pid in pids if np.array_equal(values, value(id, pid))]
                assert found, f"{id} has values that nobody computed for it"
                assert not settled or id not in versions, f"{id} changed from {versions[id]} to {found}"
                versions[id] = found[0]
    compute.log.close()
    return versions


def computed(log: Path) -> collections.Counter[str]:
    return collections.Counter(line.split()[0] for line in log.read_text(encoding="utf-8").splitlines())


def test_nothing_is_computed_twice(fast_disk: Path, rounds: Callable[[int, int], int], figures: Figures) -> None:
    requests = rounds(10_000, 100_000)
    log = fast_disk / "single-locks.log"
    root = fast_disk / "single-locks"
    answers = run_all([functools.partial(ask, root, log, seed, requests // PROCESSES) for seed in range(PROCESSES)])
    twice = {id: count for id, count in computed(log).items() if count > 1}
    beside = {"processes": PROCESSES, "ids": len(IDS)}
    figures.record("single locks", requests, "requests", {"computed twice": len(twice)}, beside)
    assert twice == {}
    assert_agreed(root, answers)


def test_a_killed_process_costs_at_most_its_own_batch(
    fast_disk: Path, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    kills = rounds(60, 1_000)
    log = fast_disk / "killed.log"
    root = fast_disk / "killed"
    random_ = random.Random(0)
    start = functools.partial(ask, root, log)
    workers = [Worker(functools.partial(start, seed, 10**9)) for seed in range(PROCESSES)]
    for number in range(kills):
        time.sleep(random_.uniform(0, 0.03))
        assert workers.pop(0).kill(), "a worker ended by itself"
        workers.append(Worker(functools.partial(start, 1000 + number, 10**9)))
    for worker in workers:
        worker.kill()
    again = sum(count - 1 for count in computed(log).values())
    killed = kills + PROCESSES
    more = max(0, again - killed * BATCH)
    beside = {"computed again": again}
    figures.record("single locks, workers killed", killed, "kills", {"more than a batch per kill": more}, beside)
    assert more == 0
    assert_agreed(root, [ask(root, log, seed, 1_000) for seed in range(2)])


@pytest.mark.parametrize("reason", ["flock does nothing", "no lock can be made"])
def test_without_locks_work_is_done_twice_and_nothing_is_wrong(
    reason: str,
    fast_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    rounds: Callable[[int, int], int],
    figures: Figures,
) -> None:
    """Also the mutant of the test above: without locks it counts what is computed twice."""
    if reason == "flock does nothing":
        monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    else:
        monkeypatch.setattr(fcntl, "flock", mock.Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    log = fast_disk / f"{reason}.log"
    root = fast_disk / reason.replace(" ", "-")
    requests = rounds(250, 2_500)
    run_all([functools.partial(ask, root, log, seed, requests, False) for seed in range(PROCESSES)])
    again = sum(count - 1 for count in computed(log).values())
    assert again > 0
    figures.caught("single locks", reason)
    assert_agreed(root, [ask(root, log, seed, 1_000) for seed in range(2)])  # raises at the first that is wrong
    beside = {"computed again": again}
    figures.record("no locks", PROCESSES * requests, "requests", {"wrong": 0}, beside)


def assert_agreed(root: Path, answers: list[dict[str, int]]) -> None:
    """What is stored is what every process was told."""
    store = FeatureStore(root)
    for told in answers:
        for id, version in told.items():
            np.testing.assert_array_equal(store.get(KEY, id), value(id, version))
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    assert feature_set.reader.problems == {}

"""Where flock does nothing two replacements may undo each other; nothing else is lost, and no value is wrong."""

from __future__ import annotations

import fcntl
import functools
import logging
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from figures import Figures
from mutants import mutant
from oracle import KEY, RECIPE, value, version_of
from workers import run_all

from featurestore import FeatureStore
from featurestore.errors import MissingFeatureError, StoreError
from featurestore.storage import maintenance

CHANGED = [f"changed_{number}" for number in range(16)]  # put, overwritten and deleted by everybody
KEPT = [f"kept_{number}" for number in range(16)]  # stored once, and only ever merged
TOLD = 10_000  # versions of one writer


@pytest.fixture(autouse=True)
def _no_flock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def write(root: Path, until: float, owner: int) -> tuple[int, list[str]]:
    """(replacements, ids of its own that it put and nobody deletes); versions are owner * TOLD + n."""
    random_, store, own = random.Random(owner), FeatureStore(root), list[str]()
    steps = 0
    while time.monotonic() < until:
        steps += 1
        ids = random_.sample(CHANGED, random_.choice((1, 3)))
        try:
            match random_.choice(("overwrite", "overwrite", "delete", "compact", "put")):
                case "overwrite":
                    version = owner * TOLD + steps
                    put(store, ids, version, overwrite=True)
                case "delete":
                    store.delete(KEY, ids)
                case "compact":
                    feature_set = store.feature_set(KEY)
                    assert feature_set is not None
                    feature_set.compact(grace_s=0)
                case _:
                    id = f"own_{owner}_{steps}"
                    put(store, [id], 1)
                    own.append(id)
        except StoreError:
            continue  # another one removed what was to be replaced: nothing was changed
    return steps, own


def put(store: FeatureStore, ids: list[str], version: int, overwrite: bool = False) -> None:
    values = np.stack([value(id, version) for id in ids])
    provenance = [{"version": version} for _ in ids]
    store.put_many(KEY, ids, values, recipe=RECIPE, provenance=provenance, overwrite=overwrite)


def read(root: Path, until: float, seed: int) -> tuple[int, list[str]]:
    """(answers, what was wrong): another sample's values, or none where nobody took it away."""
    random_, store, found, answers = random.Random(seed), FeatureStore(root), list[str](), 0
    while time.monotonic() < until and not found:
        store.refresh()
        id = random_.choice(CHANGED + KEPT)
        found += wrong(store, id)
        answers += 1
    return answers, found


def wrong(store: FeatureStore, id: str) -> list[str]:
    try:
        values = store.get(KEY, id)
    except MissingFeatureError:
        return [] if id in CHANGED else [f"{id} is lost"]
    if id in CHANGED:
        try:
            version = version_of(store, KEY, RECIPE, id, store.get(KEY, id))
        except (MissingFeatureError, AssertionError):
            return []  # overwritten between the two reads; `settled` looks again when nobody writes
        return [] if version % TOLD or version == 1 else [f"{id} has version {version}"]
    return [] if np.array_equal(values, value(id, 1)) else [f"{id} has other values"]


def unlocked(root: Path, seconds: float) -> tuple[int, list[str]]:
    """(replacements, what was lost or wrong)."""
    store = FeatureStore(root)
    for number in range(0, 16, 4):
        put(store, KEPT[number : number + 4] + CHANGED[number : number + 4], 1)
    until = time.monotonic() + seconds
    jobs: list[Callable[[], tuple[int, list[str]]]] = [
        *(functools.partial(write, root, until, owner) for owner in range(1, 4)),
        *(functools.partial(read, root, until, seed) for seed in range(2)),
    ]
    results = run_all(jobs)
    found = [what for _, some in results[3:] for what in some]
    store = FeatureStore(root)
    for id in [*KEPT, *(id for _, own in results[:3] for id in own)]:
        found += wrong(store, id)
    for id in store.available(KEY, CHANGED):
        version_of(store, KEY, RECIPE, id, store.get(KEY, id))  # raises where the bits are those of no version
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    found += feature_set.reader.problems.values()
    return sum(steps for steps, _ in results[:3]), found


def test_replacements_without_locks_lose_no_sample_and_mix_no_values(
    fast_disk: Path, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    steps, found = unlocked(fast_disk / "no-locks", rounds(8, 60))
    figures.record("replacements where flock does nothing", steps, "operations", {"lost or wrong": len(found)})
    assert steps > 0
    assert found[:3] == []


def test_a_replacement_that_forgets_survivors_is_caught(fast_disk: Path, figures: Figures) -> None:
    with mutant(maintenance.rewrite, 'if line["id"] not in drop]', 'if line["id"] not in drop][1:]'):
        _, found = unlocked(fast_disk / "forgetful", 3)
    assert found
    figures.caught("replacements where flock does nothing", "forgets a survivor")

"""Clocks that differ by days between hosts cost work, never what was acknowledged."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figures import Figures
from mutants import mutant
from oracle import KEY, RECIPE, value
from workers import run_all

from featurestore import FeatureStore
from featurestore.errors import StoreError
from featurestore.storage import maintenance

DAY_S = 86_400


def put_until(root: Path, until: float, owner: int) -> list[str]:
    """Ids that were acknowledged; a commit whose staging was taken is an error, and tried again."""
    store = FeatureStore(root)
    acknowledged = []
    while time.monotonic() < until:
        id = f"w{owner}_{len(acknowledged)}"
        try:
            store.put_many(KEY, [id], value(id, 1)[None], recipe=RECIPE)
        except StoreError:
            continue
        acknowledged.append(id)
    return acknowledged


def gc_until(root: Path, until: float, ahead_s: float) -> list[str]:
    """Remove what looks old by a clock that is ahead."""
    real = time.time
    maintenance.time.time = lambda: real() + ahead_s  # type: ignore[assignment]
    while time.monotonic() < until:
        feature_set = FeatureStore(root).feature_set(KEY)
        if feature_set is not None:
            feature_set.gc()
    return []


def lost_beside_gc(root: Path, seconds: float) -> tuple[int, list[str]]:
    """(samples acknowledged while gc ran by a clock two days ahead, those that are not there)."""
    FeatureStore(root).put_many(KEY, ["first"], value("first", 1)[None], recipe=RECIPE)
    until = time.monotonic() + seconds
    jobs: list[Callable[[], list[str]]] = [functools.partial(put_until, root, until, owner) for owner in range(2)]
    told = run_all([*jobs, functools.partial(gc_until, root, until, 2 * DAY_S)])
    ids = [id for some in told for id in some]
    store = FeatureStore(root)
    lost = store.missing(KEY, ids)
    lost += [id for id in store.available(KEY, ids) if not np.array_equal(store.get(KEY, id), value(id, 1))]
    return len(ids), lost


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_gc_by_a_clock_that_is_ahead_takes_nothing_acknowledged(
    fast_disk: Path, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    acknowledged, lost = lost_beside_gc(fast_disk / "ahead", rounds(5, 60))
    figures.record("gc by a clock two days ahead", acknowledged, "samples acknowledged", {"lost or wrong": len(lost)})
    assert lost == []
    assert acknowledged > 0


@pytest.mark.torture  # a race that may need many rounds to be lost: not for every run
def test_a_gc_that_empties_a_living_writers_directory_is_caught(fast_disk: Path, figures: Figures) -> None:
    with mutant(maintenance.gc, "_take_away(entry.path)", "bool(_remove_tree(entry.path))"):
        assert any(lost_beside_gc(fast_disk / f"emptied-{number}", 8)[1] for number in range(10))
    figures.caught("gc by a clock two days ahead", "gc empties the directory of a living writer")

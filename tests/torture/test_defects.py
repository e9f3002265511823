"""Defects that this suite found, each with the test that would have found it sooner."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from featurestore import FeatureKey, FeatureStore

KEY = FeatureKey("mer2023", "frame", "CLIP_VIT_LARGE", "uniform", 4)
RECIPE = {"weights": "torture"}
ROW = np.arange(32, dtype=np.float32).reshape(4, 8)


def test_any_single_row_is_overwritten_and_deleted(tmp_path: Path) -> None:
    """numpy.isin of big-endian digests raised TypeError for half of all ids."""
    store = FeatureStore(tmp_path)
    ids = [f"sample_{number}" for number in range(16)]
    for number, id in enumerate(ids):
        store.put_many(KEY, [id], ROW[None] + number, recipe=RECIPE)
    store.put_many(KEY, ids, np.stack([ROW + 100 + number for number in range(16)]), recipe=RECIPE, overwrite=True)
    for number, id in enumerate(ids):
        np.testing.assert_array_equal(store.get(KEY, id), ROW + 100 + number)
        assert store.delete(KEY, [id]) == 1
    assert store.ids(KEY) == []


def test_gc_after_a_power_cut_in_gc(tmp_path: Path) -> None:
    """A removed segment that a cut left both in its place and in the trash could never be removed again."""
    store = FeatureStore(tmp_path)
    store.put_many(KEY, ["a"], ROW[None], recipe=RECIPE)
    store.put_many(KEY, ["a"], ROW[None] + 1, recipe=RECIPE, overwrite=True)
    shelf = store.shelf(KEY)
    assert shelf is not None
    (replaced,) = shelf.reader.replaced
    shutil.copytree(replaced.path, shelf.place.house / "tmp" / f"gc-{replaced.name}")
    assert shelf.gc(0) == 2
    assert shelf.reader.replaced == []
    np.testing.assert_array_equal(store.get(KEY, "a"), ROW + 1)

"""Defects that this suite found, each with the test that would have found it sooner."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from faults import Listing

from featurestore import FeatureKey, FeatureStore
from featurestore.errors import CorruptSegmentError, MissingFeatureError, StoreError
from featurestore.features import Failure
from featurestore.storage import absence, catalog, reader
from featurestore.storage.failures import Failures

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
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    (replaced,) = feature_set.reader.replaced
    shutil.copytree(feature_set.layout.segments / replaced, feature_set.layout.housekeeping / "tmp" / f"gc-{replaced}")
    assert feature_set.gc(0) == 2
    assert feature_set.reader.replaced == []
    np.testing.assert_array_equal(store.get(KEY, "a"), ROW + 1)


def test_a_damaged_failure_record_counts_as_none(tmp_path: Path) -> None:
    """A flipped bit in a record was read as another reason, or as the failure of another sample."""
    failures = Failures(tmp_path / "failed", "2d1b67c68a8b892c")
    failures.add("broken", Failure("media", "clip \udcff.mp4: no such stream"))
    (path,) = (tmp_path / "failed").iterdir()
    assert list(failures.all()) == ["broken"]
    path.write_bytes(path.read_bytes().replace(b"media", b"mediq"))
    assert failures.all() == {}
    assert failures.get("broken") is None


def test_a_killed_writer_leaves_no_record_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records were staged beside the finished ones, where gc does not look."""
    store = FeatureStore(tmp_path)
    store.put_many(KEY, ["a"], ROW[None], recipe=RECIPE)
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", mock.Mock(side_effect=OSError(errno.EIO, "Input/output error")))
        with pytest.raises(StoreError, match=r"the failure of sample 'b' \(no such file\) cannot be recorded"):
            feature_set.failures.add("b", Failure("media", "no such file"))
    (staged,) = (feature_set.layout.housekeeping / "tmp").iterdir()
    os.utime(staged, (0, 0))
    feature_set.gc()
    assert [
        path for path in feature_set.layout.housekeeping.rglob("*") if path.is_file() and path.suffix != ".lock"
    ] == []


@pytest.mark.parametrize("kept_bytes", [0, 1, 400, 900])
def test_what_was_replaced_stays_replaced_when_what_replaced_it_is_damaged(tmp_path: Path, kept_bytes: int) -> None:
    """With the end of its zarr.json a segment forgot what it replaced: overwritten and deleted rows came back."""
    store = FeatureStore(tmp_path)
    store.put_many(KEY, ["a", "b"], np.stack([ROW, ROW + 1]), recipe=RECIPE)
    store.put_many(KEY, ["a"], ROW[None] + 2, recipe=RECIPE, overwrite=True)
    store.delete(KEY, ["b"])
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    (last,) = feature_set.reader.segments
    os.truncate(Path(last.path) / "zarr.json", kept_bytes)
    for id in ("a", "b"):
        with pytest.raises(CorruptSegmentError, match="repair=True"):
            FeatureStore(tmp_path).get(KEY, id)
    feature_set = FeatureStore(tmp_path).feature_set(KEY)
    assert feature_set is not None
    assert len(feature_set.quarantine()) == 3  # what it replaced goes with it, or it would count again
    for id in ("a", "b"):
        with pytest.raises(MissingFeatureError):
            FeatureStore(tmp_path).get(KEY, id)


def test_a_segment_that_cannot_be_read_now_is_not_taken_for_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one EIO an overwrite was stored as a new row behind the old one: acknowledged, and never seen again."""
    FeatureStore(tmp_path).put_many(KEY, ["a"], ROW[None], recipe=RECIPE)
    store = FeatureStore(tmp_path)
    broken = mock.Mock(side_effect=OSError(errno.EIO, "Input/output error"))
    with monkeypatch.context() as patch:
        patch.setattr(reader, "open_segment", broken)
        with pytest.raises(CorruptSegmentError, match="cannot be read now"):
            store.put_many(KEY, ["a"], ROW[None] + 1, recipe=RECIPE, overwrite=True)
        with pytest.raises(CorruptSegmentError, match="cannot be read now"):
            store.delete(KEY, ["a"])
        with pytest.raises(CorruptSegmentError, match="damaged"):
            store.get(KEY, "a")
    np.testing.assert_array_equal(store.get(KEY, "a"), ROW)
    store.put_many(KEY, ["a"], ROW[None] + 1, recipe=RECIPE, overwrite=True)
    np.testing.assert_array_equal(FeatureStore(tmp_path).get(KEY, "a"), ROW + 1)


def test_a_clock_that_is_a_day_off_hides_nothing(tmp_path: Path) -> None:
    """Where mtimes are coarse and the file server's clock differs, a commit within one tick was not seen."""
    store, other = FeatureStore(tmp_path), FeatureStore(tmp_path)
    other.put_many(KEY, ["a"], ROW[None], recipe=RECIPE)
    feature_set = other.feature_set(KEY)
    assert feature_set is not None
    tick_ns = time.time_ns() - 86_400 * 10**9
    os.utime(feature_set.layout.segments, ns=(tick_ns, tick_ns))
    np.testing.assert_array_equal(store.get(KEY, "a"), ROW)
    other.put_many(KEY, ["b"], ROW[None], recipe=RECIPE)
    os.utime(feature_set.layout.segments, ns=(tick_ns, tick_ns))
    np.testing.assert_array_equal(store.get(KEY, "b"), ROW)


def test_a_listing_that_stays_behind_does_not_keep_a_reader_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network file system a removed segment may stay in the listing for a while: RecursionError."""
    store = FeatureStore(tmp_path)
    store.put_many(KEY, ["a"], ROW[None], recipe=RECIPE)
    ghost = types.SimpleNamespace(name=f"{1:020d}-{'0' * 32}", is_dir=lambda follow_symlinks: True)
    list_now = os.scandir
    lagging = lambda path: Listing([*list_now(path), *([ghost] if str(path).endswith("segments") else [])])  # noqa: E731
    monkeypatch.setattr(os, "scandir", lagging)
    np.testing.assert_array_equal(FeatureStore(tmp_path).get(KEY, "a"), ROW)


def test_a_recipe_whose_rows_were_all_deleted_is_compacted(tmp_path: Path) -> None:
    """IndexError, for a segment of no rows starts no group."""
    store = FeatureStore(tmp_path)
    store.put_many(KEY, ["a"], ROW[None], recipe=RECIPE)
    store.delete(KEY, ["a"])
    assert store.compact(KEY) == 0
    assert store.ids(KEY) == []


def test_threads_that_meet_a_recipe_first_share_what_they_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each made a feature set of its own, and `refresh` knew one: the other went on showing what was deleted."""
    root = tmp_path / "store"
    FeatureStore(root).put_many(KEY, ["a"], ROW[None], recipe=RECIPE)
    store = FeatureStore(root)
    make, both = catalog.FeatureSet, threading.Barrier(2)

    def slowly(*arguments: Any) -> Any:
        both.wait(5)  # both have looked whether there is one
        return make(*arguments)

    monkeypatch.setattr(catalog, "FeatureSet", slowly)
    with ThreadPoolExecutor(2) as pool:
        feature_sets = list(pool.map(lambda _: store.feature_set(KEY), range(2)))
    assert feature_sets[0] is feature_sets[1] is store.feature_set(KEY)


def test_ids_are_listed_though_their_segments_go_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second merge during one call was an error to the caller."""
    other, store = FeatureStore(tmp_path), FeatureStore(tmp_path)
    other.put_many(KEY, ["a"], ROW[None], recipe=RECIPE)
    feature_set = other.feature_set(KEY)
    assert feature_set is not None
    real, merges = reader.Segment.ids, iter(["b", "c", "d"])

    def beside_a_merge(segment: reader.Segment, *arguments: Any) -> Any:
        id = next(merges, None) if segment not in feature_set.reader.segments else None
        if id is not None:
            other.put_many(KEY, [id], ROW[None], recipe=RECIPE)
            feature_set.compact(grace_s=0)
        return real(segment, *arguments)

    monkeypatch.setattr(reader.Segment, "ids", beside_a_merge)
    assert store.ids(KEY) == ["a", "b", "c", "d"]


class Repaired(dict[str, str]):
    """Problems that another thread finds repaired, just after somebody asked whether there are any."""

    def __bool__(self) -> bool:
        there = len(self) > 0
        self.clear()
        return there


def test_damage_that_is_repaired_while_it_is_told_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """StopIteration, for the problem was gone when it was to be named."""
    store = FeatureStore(tmp_path)
    store.put_many(KEY, ["a"], ROW[None], recipe=RECIPE)
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    monkeypatch.setattr(reader.Reader, "problems", property(lambda self: Repaired(segment="a flipped bit")))
    with pytest.raises(CorruptSegmentError, match=r"1 segment is damaged, e\.g\. segment: a flipped bit"):
        raise absence.absence(tmp_path, KEY, ["b"], feature_set)

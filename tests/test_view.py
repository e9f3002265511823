"""View, to_numpy and open_zarr: all samples of a key at once, as they were at one moment."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from store_factories import ALL, KEY, RECIPE, batch, fill, segment_dirs, values_of

from featurestore import FeatureStore, MissingFeatureError
from featurestore.errors import StoreError
from featurestore.torch import FeatureDataset

IDS = ["a", "b", "c", "d"]
LENGTHS = {"a": 3, "b": 1, "c": 7}


def fill_ragged(root: Path) -> FeatureStore:
    store = FeatureStore(root)
    store.put_many(ALL, list(LENGTHS), [values_of(id, n) for id, n in LENGTHS.items()], recipe=RECIPE)
    return store


def test_a_view_is_a_mapping_of_what_is_stored(tmp_path: Path) -> None:
    store = fill(tmp_path, ["c", "a"], ["d", "b"])
    view = store.view(KEY)
    assert (len(view), list(view), "a" in view, "nobody" in view) == (4, IDS, True, False)
    for id in view:
        np.testing.assert_array_equal(view[id], values_of(id), strict=True)
        view[id][:] = 0  # ours to change
    assert view.keys() == set(IDS)
    np.testing.assert_array_equal(view.take([3, 0, 0]), batch(["d", "a", "a"]), strict=True)
    np.testing.assert_array_equal(view.take(np.array([1])), batch(["b"]), strict=True)
    assert view.take([]).shape == (0, 4, 6)
    with pytest.raises(KeyError, match="nobody"):
        view["nobody"]
    assert view.get("nobody") is None
    assert store.stats.disk_hits == 4 + 4 + 3 + 1


def test_a_view_of_some_keeps_their_order_and_refuses_what_is_not_stored(tmp_path: Path) -> None:
    store = fill(tmp_path, IDS)
    assert list(store.view(KEY, ["c", "a"])) == ["c", "a"]
    with pytest.raises(MissingFeatureError, match="nobody"):
        store.view(KEY, ["a", "nobody"])
    with pytest.raises(MissingFeatureError):
        store.view("mer2023/frame/CLIP_VIT_LARGE/uniform/9")


def test_what_comes_and_goes_later_does_not_show_in_a_view(tmp_path: Path) -> None:
    store = fill(tmp_path, IDS)
    view = store.view(KEY)
    assert view.is_current
    store.put_many(KEY, ["a"], batch(["x"]), recipe=RECIPE, overwrite=True)
    store.put_many(KEY, ["e"], batch(["e"]), recipe=RECIPE)
    store.delete(KEY, ["b"])
    assert not view.is_current
    assert list(view) == IDS
    np.testing.assert_array_equal(view.take([0, 1]), batch(["a", "b"]))
    np.testing.assert_array_equal(store.view(KEY)["a"], values_of("x"))
    assert list(store.view(KEY)) == ["a", "c", "d", "e"]


def test_a_view_whose_segments_are_gone_says_so(tmp_path: Path) -> None:
    store = fill(tmp_path, IDS)
    view = FeatureStore(tmp_path).view(KEY)
    store.delete(KEY, ["b"])
    store.gc(KEY, grace_s=0)
    for read in (  # nothing of it was open yet
        lambda: view["a"],
        lambda: view.take([0, 1]),
        lambda: view.take_ragged([0]),
    ):
        with pytest.raises(StoreError, match=r"was removed or damaged since it was made .*take a new view"):
            read()


def test_a_view_of_rows_of_several_lengths(tmp_path: Path) -> None:
    view = fill_ragged(tmp_path).view(ALL)
    for id, n in LENGTHS.items():
        np.testing.assert_array_equal(view[id], values_of(id, n), strict=True)
    for found, id in zip(view.take_ragged([2, 0]), ["c", "a"], strict=True):
        np.testing.assert_array_equal(found, values_of(id, LENGTHS[id]), strict=True)


def test_everything_as_numpy(tmp_path: Path) -> None:
    store = fill(tmp_path, ["c", "a"], ["d", "b"])
    ids, values = store.to_numpy(KEY)
    assert ids == IDS
    np.testing.assert_array_equal(values, batch(IDS), strict=True)
    assert values.flags.writeable
    assert values.flags.c_contiguous


def test_everything_of_several_lengths_as_numpy(tmp_path: Path) -> None:
    ids, values, offsets = fill_ragged(tmp_path).to_numpy(ALL)
    assert (ids, offsets.tolist(), values.shape) == (["a", "b", "c"], [0, 3, 4, 11], (11, 6))
    for i, id in enumerate(ids):
        np.testing.assert_array_equal(values[offsets[i] : offsets[i + 1]], values_of(id, LENGTHS[id]), strict=True)


@pytest.mark.parametrize("key", [KEY, ALL])
def test_of_nothing_there_is_nothing(tmp_path: Path, key: object) -> None:
    store = FeatureStore(tmp_path)
    for read in (store.view, store.to_numpy, store.open_zarr):
        with pytest.raises(MissingFeatureError, match="nothing is stored"):
            read(str(key))


@pytest.mark.parametrize("key", [KEY, ALL])
def test_where_all_was_deleted_everything_is_an_empty_array(tmp_path: Path, key: object) -> None:
    store = fill(tmp_path, IDS) if key == KEY else fill_ragged(tmp_path)
    store.delete(str(key), IDS)
    ids, values, *offsets = store.to_numpy(str(key))
    assert (ids, len(values)) == ([], 0)
    assert [each.tolist() for each in offsets] == ([[0]] if key == ALL else [])


def test_the_segments_as_a_zarr_group(tmp_path: Path) -> None:
    store = fill(tmp_path, ["b", "a"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = store.open_zarr(KEY)
        (name,) = group.array_keys()
    assert name == segment_dirs(tmp_path)[0].name
    np.testing.assert_array_equal(group[name][:], batch(["b", "a"]), strict=True)
    assert group[name].metadata.dimension_names == ("sample", "frame", "feature")
    with pytest.raises(ValueError, match="read"):
        group[name][0] = 1


def test_a_dataset_leaves_its_view_behind_when_it_is_pickled(tmp_path: Path) -> None:
    dataset = FeatureDataset(fill(tmp_path, IDS), KEY)
    dataset.find()
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again.read([1, 2]), batch(["b", "c"]))

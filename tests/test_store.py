"""FeatureStore: the names that users type, with what they promise."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_factories import ALL, DIM, KEY, RECIPE, Making, batch, fill, flip, segment_dirs, values_of

from featurestore import Failure, FeatureKey, FeatureStore, MissingFeatureError, Recipe
from featurestore.errors import (
    AmbiguousRecipeError,
    ConfigError,
    CorruptSegmentError,
    ExistsError,
    InvalidIdError,
    InvalidKeyError,
    ReadOnlyError,
    RecipeError,
    RecipeMismatchError,
    StoreError,
    UnknownRecipeError,
    ValuesError,
)
from featurestore.storage import feature_set as feature_set_module
from featurestore.storage import reader as reader_room
from featurestore.storage.memory import MemoryTier
from featurestore.storage.reader import Reader

IDS = ["a", "b", "c", "d"]
SPAWN = multiprocessing.get_context("spawn")
ODD_IDS = [
    "a/b", "../../etc/passwd", "..", ".", "-rf", "--", "é", "e\u0301", "\u00c5", "\u212b", "样本_1", "🎬", "a b", " a",
    "a ", "A", "a", "con", "nul", "x" * 512, "é" * 256, "%2e", "\\", "'\"`$(x)", "0", "None", "\u202eabc",
]  # fmt: skip


# -- constructing ------------------------------------------------------------------------------------


def test_constructing_and_looking_touch_no_disk(tmp_path: Path) -> None:
    root = tmp_path / "not" / "there"
    store = FeatureStore(root)
    assert store.keys() == []
    assert store.ids(KEY) == []
    assert store.recipes(KEY) == {}
    assert store.failures(KEY) == {}
    assert store.missing(KEY, ["a", "b", "a"]) == ["a", "b", "a"]
    assert store.available(KEY, ["a"]) == []
    assert store.delete(KEY, ["a"]) == 0
    assert store.compact(KEY) == 0
    store.refresh()
    with pytest.raises(MissingFeatureError):
        store.get(KEY, "a")
    assert list(tmp_path.iterdir()) == []


def test_a_relative_root_is_that_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = FeatureStore("features")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.put_many(KEY, ["a"], batch(["a"]), recipe=RECIPE)
    assert (tmp_path / "features" / "data").is_dir()
    assert store.root == tmp_path / "features"


def test_an_unknown_memory_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="memory_policy 'oldest' is not one of"):
        FeatureStore(tmp_path, memory_bytes=1000, memory_policy="oldest")
    with pytest.raises(ConfigError, match="memory_policy 'oldest' is not one of"):
        FeatureStore(tmp_path, memory_policy="oldest")


# -- round trip --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("memory_bytes", [0, 10**6])
def test_every_way_of_reading_returns_the_same_bits_in_arrays_of_ones_own(
    tmp_path: Path, dtype: Any, memory_bytes: int
) -> None:
    values = batch(IDS, dtype)
    values[0, 0, :4] = np.array([-0.0, np.finfo(dtype).tiny / 4, np.finfo(dtype).max, np.finfo(dtype).min], dtype)
    FeatureStore(tmp_path).put_many(KEY, IDS, values, recipe=RECIPE)
    store = FeatureStore(tmp_path, memory_bytes=memory_bytes)
    for _ in range(3):
        ways: list[Any] = [store.get(KEY, "a"), store.get_features(KEY, "a").values]
        many = store.get_many(KEY, ["b", "a"])
        out = np.empty((2, 4, DIM), dtype)
        assert store.get_many(KEY, ["b", "a"], out) is out
        for found in [*ways, many[1], out[1]]:
            assert found.dtype == dtype
            assert found.tobytes() == values[0].tobytes()
        for whole in [*ways, many]:
            assert whole.flags.owndata
            assert whole.flags.writeable
            assert whole.flags.c_contiguous
            whole[:] = 7  # ours: nobody else sees it
        out[:] = 7


def test_a_memory_tier_that_hands_out_its_own_rows_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant: the check above fails when a shared array is returned."""
    monkeypatch.setattr(MemoryTier, "get", lambda self, place: self._rows.get(place))
    with pytest.raises(AssertionError):
        test_every_way_of_reading_returns_the_same_bits_in_arrays_of_ones_own(tmp_path, np.float32, 10**6)


@pytest.mark.parametrize("view", ["transposed", "every other", "read-only", "reversed", "fortran"])
def test_values_are_stored_as_they_read_whatever_their_memory_looks_like(tmp_path: Path, view: str) -> None:
    base = np.random.default_rng(0).standard_normal((8, 8, 12)).astype(np.float32)
    values = {
        "transposed": base[:3, :DIM, :4].transpose(0, 2, 1),
        "every other": base[:6:2, ::2, ::2],
        "read-only": np.broadcast_to(base[0, :4, :DIM], (3, 4, DIM)),
        "reversed": base[2::-1, 3::-1, 5::-1],
        "fortran": np.asfortranarray(base[:3, :4, :DIM]),
    }[view]
    ids = ["a", "b", "c"]
    FeatureStore(tmp_path).put_many(KEY, ids, values, recipe=RECIPE)
    np.testing.assert_array_equal(FeatureStore(tmp_path).get_many(KEY, ids), values)
    np.testing.assert_array_equal(FeatureStore(tmp_path).get(KEY, "b"), values[1])


def test_frames_seconds_and_provenance_come_back_with_the_row(tmp_path: Path) -> None:
    sources = [{"path": "/videos/é 1.mp4", "size": 3, "mtime_ns": 1753000000123456789, "sha256": "ab"}]
    frames = np.array([[0, 3, 3, 2**53 + 1], [9, 8, 7, 6]], np.int64)
    seconds = np.array([[0.0, 0.1, 1 / 3, 1e-9], [9.5, 8.25, 7.125, np.nextafter(6, 7)]])
    notes = [{"sources": sources, "note": {"peak": 3, "how": None, "x": [1.5, True]}}, {}]
    store = FeatureStore(tmp_path)
    store.put_many(
        KEY, ["a", "b"], batch(["a", "b"]), recipe=RECIPE, frame_indices=frames, timestamps_s=seconds, provenance=notes
    )
    store.put_many(KEY, ["c"], batch(["c"]), recipe=RECIPE)
    for reader in (store, FeatureStore(tmp_path, memory_bytes=1000)):
        for row, id in enumerate(["a", "b"]):
            features = reader.get_features(KEY, id)
            assert features.frame_indices is not None
            assert features.timestamps_s is not None
            assert features.frame_indices.dtype == np.int64
            assert features.timestamps_s.dtype == np.float64
            np.testing.assert_array_equal(features.frame_indices, frames[row])
            assert features.timestamps_s.tobytes() == seconds[row].tobytes()
            assert features.provenance == notes[row]
            assert features.recipe == Recipe(RECIPE)
            np.testing.assert_array_equal(features.values, values_of(id))
        bare = reader.get_features(KEY, "c")
        assert (bare.frame_indices, bare.timestamps_s, bare.provenance) == (None, None, None)
    store.compact(KEY)
    np.testing.assert_array_equal(FeatureStore(tmp_path).get_features(KEY, "b").timestamps_s, seconds[1])


def test_the_answer_says_where_a_row_came_from(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    store = FeatureStore(tmp_path, memory_bytes=1000)
    assert [store.get_features(KEY, "a").served_from for _ in range(2)] == ["disk", "memory"]


def test_rows_of_several_lengths(tmp_path: Path) -> None:
    lengths = {"one": 1, "three": 3, "two": 2, "more": 3}
    rows = [values_of(id, n) for id, n in lengths.items()]
    store = FeatureStore(tmp_path)
    store.put_many(
        ALL,
        list(lengths),
        rows,
        recipe=RECIPE,
        frame_indices=[np.arange(n, dtype=np.int64) for n in lengths.values()],
        timestamps_s=[np.arange(n) / 10 for n in lengths.values()],
        provenance=[{"n": n} for n in lengths.values()],
    )
    assert len(segment_dirs(tmp_path, ALL)) == 1  # of any lengths
    for reader in (store, FeatureStore(tmp_path, memory_bytes=10**6)):
        for _ in range(2):
            found = reader.get_ragged(ALL, ["two", "more", "two"])
            assert isinstance(found, list)
            for values, row in zip(found, [rows[2], rows[3], rows[2]], strict=True):
                np.testing.assert_array_equal(values, row)
                assert values.flags.owndata
            assert found[0] is not found[2]
        for id, n in lengths.items():
            features = reader.get_features(ALL, id)
            assert features.values.shape == (n, DIM)
            assert features.frame_indices is not None
            assert features.frame_indices.tolist() == list(range(n))
            assert features.provenance == {"n": n}
    assert store.ids(ALL) == sorted(lengths)
    store.delete(ALL, ["three"])
    store.put_many(ALL, ["one"], [values_of("x", 5)], recipe=RECIPE, overwrite=True)
    store.compact(ALL)
    for reader in (store, FeatureStore(tmp_path)):
        assert reader.ids(ALL) == ["more", "one", "two"]
        np.testing.assert_array_equal(reader.get(ALL, "one"), values_of("x", 5))
        np.testing.assert_array_equal(reader.get(ALL, "more"), rows[3])


def test_ids_are_compared_exactly_and_never_become_paths(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.put_many(KEY, ODD_IDS, batch(ODD_IDS), recipe=RECIPE)
    for reader in (store, FeatureStore(tmp_path)):
        assert reader.ids(KEY) == sorted(ODD_IDS)
        np.testing.assert_array_equal(reader.get_many(KEY, ODD_IDS), batch(ODD_IDS))
        for id in ODD_IDS:
            np.testing.assert_array_equal(reader.get(KEY, id), values_of(id))
        assert reader.missing(KEY, [*ODD_IDS, "E\u0301", "a/../a/b", "x" * 511]) == ["E\u0301", "a/../a/b", "x" * 511]
    assert len(segment_dirs(tmp_path)) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"data", ".fstore"}


@pytest.mark.parametrize("id", ["", "x" * 513, "é" * 257, "a\nb", "a\0", "\x7f", "\udce9", 5, None, b"a"])
def test_what_is_no_id_is_refused_by_every_call(tmp_path: Path, id: Any) -> None:
    making = Making()
    computing = FeatureStore(tmp_path, compute=making)
    computing.get(KEY, "a")
    calls: list[Callable[[FeatureStore], Any]] = [
        lambda store: store.get(KEY, id),
        lambda store: store.get_features(KEY, id),
        lambda store: store.get_many(KEY, ["a", id]),
        lambda store: store.get_ragged(KEY, ["a", id]),
        lambda store: store.delete(KEY, [id]),
    ]
    for store in (computing, FeatureStore(tmp_path), FeatureStore(tmp_path, memory_bytes=100)):
        for call in calls:
            with pytest.raises(InvalidIdError, match="sample id"):
                call(store)
        with pytest.raises(InvalidIdError, match="sample id"):
            store.put_many(KEY, [id], batch(["a"]), recipe=RECIPE)
    assert making.asked == [["a"]]
    assert computing.ids(KEY) == ["a"]


def test_keys_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    store = fill(tmp_path, ["a"])
    for key, part in [
        (
            FeatureKey("MER2023", "frame", "CLIP_VIT_LARGE", "uniform", 4),
            "'MER2023' differs only in case from 'mer2023'",
        ),
        (FeatureKey("mer2023", "frame", "clip_vit_large", "uniform", 4), "'clip_vit_large' differs only in case"),
        (FeatureKey("mer2023", "frame", "CLIP_VIT_LARGE", "Uniform", 4), "'Uniform' differs only in case"),
    ]:
        with pytest.raises(InvalidKeyError, match=part):
            store.put_many(key, ["a"], batch(["a"]), recipe=RECIPE)
    assert store.keys() == [KEY]


# -- put_many ----------------------------------------------------------------------------------------


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.suffix != ".lock"}


def test_the_same_bits_again_are_nothing_at_all(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    assert store.put_many(KEY, IDS, batch(IDS), recipe=RECIPE) == 4
    before = files(tmp_path)
    assert store.put_many(KEY, IDS, batch(IDS), recipe=RECIPE) == 0
    assert FeatureStore(tmp_path).put_many(KEY, IDS[:2], batch(IDS[:2]), recipe=RECIPE, overwrite=True) == 0
    assert files(tmp_path) == before
    assert store.put_many(KEY, ["a", "e"], batch(["a", "e"]), recipe=RECIPE) == 1
    assert store.ids(KEY) == [*IDS, "e"]


def test_minus_zero_is_another_bit(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    values = np.zeros((1, 4, DIM), np.float32)
    store.put_many(KEY, ["a"], values, recipe=RECIPE)
    with pytest.raises(ExistsError):
        store.put_many(KEY, ["a"], -values, recipe=RECIPE)


def test_other_bits_are_refused_and_nothing_of_the_batch_is_stored(tmp_path: Path) -> None:
    store = fill(tmp_path, IDS)
    before = files(tmp_path)
    message = f"2 of 3 samples, e.g. 'b', are stored with other values under {KEY}@{Recipe(RECIPE).fingerprint}; pass"
    with pytest.raises(ExistsError, match=message):
        store.put_many(KEY, ["new", "b", "c"], batch(["new", "x", "y"]), recipe=RECIPE)
    assert files(tmp_path) == before
    np.testing.assert_array_equal(store.get_many(KEY, IDS), batch(IDS))


def test_overwrite_replaces_what_differs_and_adds_what_is_new(tmp_path: Path) -> None:
    store = fill(tmp_path, IDS, ["e"])
    count = store.put_many(KEY, ["new", "b", "c"], batch(["new", "x", "c"]), recipe=RECIPE, overwrite=True)
    assert count == 1
    expected = {"a": "a", "b": "x", "c": "c", "d": "d", "e": "e", "new": "new"}
    for reader in (store, FeatureStore(tmp_path)):
        assert reader.ids(KEY) == sorted(expected)
        np.testing.assert_array_equal(reader.get_many(KEY, list(expected)), batch(expected.values()))


def test_ids_are_given_once_and_every_column_is_as_long(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    with pytest.raises(ValuesError, match="ids are not unique: 'b' is given 2 times"):
        store.put_many(KEY, ["a", "b", "b"], batch(["a", "b", "b"]), recipe=RECIPE)
    with pytest.raises(ValuesError, match="2 ids, but 3 values"):
        store.put_many(KEY, ["a", "b"], batch(["a", "b", "b"]), recipe=RECIPE)
    for name in ("frame_indices", "timestamps_s", "provenance"):
        with pytest.raises(ValuesError, match=f"2 ids, but 1 {name}"):
            store.put_many(KEY, ["a", "b"], batch(["a", "b"]), recipe=RECIPE, **{name: [{}]})
    assert store.put_many(KEY, [], np.empty((0, 4, DIM), np.float32), recipe=RECIPE) == 0
    assert list(tmp_path.iterdir()) == []


BAD_VALUES: dict[str, tuple[Any, str]] = {
    "float64": (
        batch(["a"]).astype(np.float64),
        "sample 'a': values are float64, not an array of float16, float32, uint8 or bfloat16",
    ),
    "int": (np.ones((1, 4, DIM), np.int32), "values are int32"),
    "other byte order": (
        batch(["a"]).astype(">f4"),
        "values are >f4, not an array of float16, float32, uint8 or bfloat16",
    ),
    "n_frames": (batch(["a"])[:, :3], rf"sample 'a': values are \(3, {DIM}\), not \(4, \.\.\.\) as {KEY} says"),
    "two dimensions": (batch(["a"])[0, :1], r"values are \(6,\)"),
    "no dim": (np.empty((1, 4, 0), np.float32), r"values are \(4, 0\)"),
    "nan": (np.full((1, 4, DIM), np.nan, np.float32), "sample 'a': 24 of 24 values are NaN or infinite"),
    "infinity": (np.full((1, 4, DIM), -np.inf, np.float16), "24 of 24 values are NaN or infinite"),
    "list": ([[[1.0]]], "values are list"),
}


@pytest.mark.parametrize("what", BAD_VALUES)
def test_values_of_the_wrong_form_are_refused_before_the_disk_is_touched(tmp_path: Path, what: str) -> None:
    values, message = BAD_VALUES[what]
    with pytest.raises(ValuesError, match=message):
        FeatureStore(tmp_path).put_many(KEY, ["a"], values, recipe=RECIPE)
    assert list(tmp_path.iterdir()) == []


BAD_COLUMNS: dict[str, tuple[dict[str, Any], str]] = {
    "fractions of frames": ({"frame_indices": np.full((1, 4), 0.5)}, "frame_indices are .*float64.*, not int64"),
    "too few frames": ({"frame_indices": np.zeros((1, 3), np.int64)}, r"\(3,\)\), not int64 \(4,\)"),
    "text": ({"timestamps_s": [["a", "b", "c", "d"]]}, "timestamps_s are"),
    "nan": ({"timestamps_s": np.full((1, 4), np.nan)}, "timestamps_s hold NaN .* pass None where they are unknown"),
    "no object": ({"provenance": [[1, 2]]}, "sample 'a': provenance is not a JSON object"),
    "an array": ({"provenance": [{"x": np.ones(2)}]}, "provenance is not a JSON object: .*ndarray"),
    "nan in it": ({"provenance": [{"x": float("nan")}]}, "provenance is not a JSON object"),
    "a path in another encoding": ({"provenance": [{"path": "\udce9.mp4"}]}, "not a JSON object: .*utf-8"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_COLUMNS)
def test_what_goes_with_the_values_is_checked_too(tmp_path: Path, what: str) -> None:
    columns, message = BAD_COLUMNS[what]
    with pytest.raises(ValuesError, match=message):
        FeatureStore(tmp_path).put_many(KEY, ["a"], batch(["a"]), recipe=RECIPE, **columns)
    assert list(tmp_path.iterdir()) == []


def test_whole_numbers_and_seconds_of_any_type_are_taken(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    frames, seconds = [[1, 2, 3, 4]], np.array([[0, 1, 2, 3]], np.float32)
    store.put_many(KEY, ["a"], batch(["a"]), recipe=RECIPE, frame_indices=frames, timestamps_s=seconds)
    features = store.get_features(KEY, "a")
    assert features.frame_indices is not None
    assert features.timestamps_s is not None
    assert (features.frame_indices.dtype, features.timestamps_s.dtype) == (np.int64, np.float64)
    assert features.frame_indices.tolist() == frames[0]


@pytest.mark.parametrize(
    ("values", "what"),
    [(batch(["b"], np.float16), "float16 .feature 6."), (batch(["b"], dim=5), "float32 .feature 5.")],
)
def test_another_dtype_or_dim_under_one_fingerprint_is_refused(tmp_path: Path, values: Any, what: str) -> None:
    store = fill(tmp_path, ["a"])
    before = files(tmp_path)
    for reader in (store, FeatureStore(tmp_path)):
        with pytest.raises(
            RecipeMismatchError,
            match=f"sample 'b' has frames of {what}, but those of .* are float32 .feature 6.; put what differs",
        ):
            reader.put_many(KEY, ["b"], values, recipe=RECIPE, overwrite=True)
    assert files(tmp_path) == before
    store.put_many(KEY, ["b"], values, recipe={**RECIPE, "dtype": "other"})
    # Of one batch too.
    with pytest.raises(RecipeMismatchError, match=r"sample 'y' has frames of float32 \(feature 5\)"):
        store.put_many(ALL, ["x", "y"], [values_of("x", 1), values_of("y", 1, dim=5)], recipe=RECIPE)


def test_a_recipe_may_be_a_dict_or_a_recipe_and_is_kept_whole(tmp_path: Path) -> None:
    recipe = {"weights": {"sha256": "ab"}, "é": [1, 2.5, None, True]}
    store = FeatureStore(tmp_path)
    store.put_many(KEY, ["a"], batch(["a"]), recipe=recipe)
    store.put_many(KEY, ["b"], batch(["b"]), recipe=Recipe(recipe))
    assert FeatureStore(tmp_path).recipes(KEY) == {Recipe(recipe).fingerprint: Recipe(recipe)}
    assert store.ids(KEY) == ["a", "b"]
    for bad in ({"x": float("nan")}, {1: "x"}, None):
        with pytest.raises(RecipeError, match="recipe"):
            store.put_many(KEY, ["c"], batch(["c"]), recipe=bad)  # type: ignore[arg-type]


def test_a_put_that_does_not_look_again_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant: one's own rows show at once, and with them what others stored meanwhile is compared."""

    def check(root: Path) -> None:
        mine, other = FeatureStore(root), FeatureStore(root)
        mine.put_many(KEY, ["a"], batch(["a"]), recipe=RECIPE)
        other.put_many(KEY, ["b"], batch(["b"]), recipe=RECIPE)
        with pytest.raises(ExistsError):
            mine.put_many(KEY, ["b"], batch(["x"]), recipe=RECIPE)
        mine.put_many(KEY, ["c"], batch(["c"]), recipe=RECIPE)
        feature_set = mine.feature_set(KEY)
        assert feature_set is not None
        assert "c" in feature_set.reader

    check(tmp_path / "right")
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "see", lambda self, name: None)
        with pytest.raises(AssertionError):
            check(tmp_path / "without see")
    with monkeypatch.context() as patch:
        patch.setattr(feature_set_module.FeatureSet, "_look", lambda self, *how, **more: None)
        with pytest.raises(pytest.fail.Exception):
            check(tmp_path / "without look")


# -- put, remove, gc ---------------------------------------------------------------------------------


def test_put_stores_one_sample_as_put_many_does(tmp_path: Path) -> None:
    one, many = FeatureStore(tmp_path / "one"), FeatureStore(tmp_path / "many")
    frames, seconds, note = np.arange(4), np.arange(4) / 10, {"note": {"peak": 2}}
    made_with = {"device": "here"}
    assert one.put(
        KEY,
        "a",
        values_of("a"),
        recipe=RECIPE,
        frame_indices=frames,
        timestamps_s=seconds,
        provenance=note,
        made_with=made_with,
    )
    many.put_many(
        KEY,
        ["a"],
        batch(["a"]),
        recipe=RECIPE,
        frame_indices=frames[None],
        timestamps_s=seconds[None],
        provenance=[note],
        made_with=made_with,
    )
    found, expected = FeatureStore(one.root).get_features(KEY, "a"), FeatureStore(many.root).get_features(KEY, "a")
    for name in ("values", "frame_indices", "timestamps_s"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert (found.provenance, found.recipe) == (note, expected.recipe)
    assert one.info(KEY).made_with[0]["device"] == "here"
    assert one.put(KEY, "b", values_of("b"), recipe=RECIPE)
    assert not one.put(KEY, "a", values_of("a"), recipe=RECIPE)  # the same bits
    with pytest.raises(ExistsError, match="pass overwrite=True"):
        one.put(KEY, "a", values_of("x"), recipe=RECIPE)
    assert not one.put(str(KEY), "a", values_of("x"), recipe=RECIPE, overwrite=True)
    np.testing.assert_array_equal(one.get(KEY, "a"), values_of("x"))
    with pytest.raises(ValuesError):
        one.put(KEY, "c", values_of("c", 3), recipe=RECIPE)


@pytest.mark.parametrize("memory_bytes", [0, 10**6])
def test_remove_takes_one_feature_set_with_everything_in_it(tmp_path: Path, memory_bytes: int) -> None:
    store = FeatureStore(tmp_path, memory_bytes=memory_bytes)
    other = Recipe({"weights": "other"}).fingerprint
    store.put_many(KEY, ["a", "b"], batch(["a", "b"]), recipe=RECIPE)
    store.put_many(KEY, ["a"], batch(["x"]), recipe={"weights": "other"})
    with pytest.raises(AmbiguousRecipeError):
        store.remove(KEY)
    feature_set = store.feature_set(KEY, fingerprint=other)
    assert feature_set is not None
    feature_set.fail("bad", Failure("media", "an HTML page"))
    np.testing.assert_array_equal(store.get(KEY, "a", fingerprint=other), values_of("x"))
    assert store.remove(KEY, fingerprint=other[:6]) is True
    assert list(store.recipes(KEY)) == [Recipe(RECIPE).fingerprint]
    assert store.failures(KEY, fingerprint=other) == {}
    np.testing.assert_array_equal(store.get(KEY, "a"), values_of("a"))  # nothing to choose from any more
    with pytest.raises(UnknownRecipeError):
        store.get(KEY, "a", fingerprint=other)
    assert store.remove(KEY) is True
    assert store.keys() == []
    with pytest.raises(MissingFeatureError):
        store.get(KEY, "a")
    store.put_many(KEY, ["c"], batch(["c"]), recipe=RECIPE)
    assert store.ids(KEY) == FeatureStore(tmp_path).ids(KEY) == ["c"]


def test_upkeep_of_what_is_not_stored_does_nothing(tmp_path: Path) -> None:
    for compute in (None, Making()):
        store = FeatureStore(tmp_path / str(compute is None), compute=compute)
        assert (store.delete(KEY, ["a"]), store.compact(KEY), store.gc(KEY), store.remove(KEY)) == (0, 0, 0, False)
        for call in (store.compact, store.gc, store.remove):
            with pytest.raises(UnknownRecipeError, match="no recipe begins with '0123456789abcdef'"):
                call(KEY, fingerprint="0123456789abcdef")
        assert store.keys() == []


def test_a_store_that_is_only_read_is_not_tidied(tmp_path: Path) -> None:
    fill(tmp_path, ["a"], ["b"])
    store = FeatureStore(tmp_path, read_only=True)
    for call in (store.compact, store.gc, store.remove):
        for fingerprint in (None, Recipe(RECIPE).fingerprint):
            with pytest.raises(ReadOnlyError, match="nothing can be changed in it"):
                call(KEY, fingerprint=fingerprint)
    with pytest.raises(ReadOnlyError, match="nothing can be put into it"):
        store.put(KEY, "c", values_of("c"), recipe=RECIPE)
    assert store.info(KEY).segments == 2


def test_gc_frees_replaced_segments_once_their_grace_is_over(tmp_path: Path) -> None:
    store = fill(tmp_path, ["a"], ["b"])
    store.compact(KEY)
    assert (store.gc(KEY), len(segment_dirs(tmp_path))) == (0, 3)
    assert (store.gc(KEY, grace_s=0), len(segment_dirs(tmp_path))) == (2, 1)
    np.testing.assert_array_equal(store.get_many(KEY, ["a", "b"]), batch(["a", "b"]))


def test_gc_frees_what_a_killed_remove_left_where_the_whole_fingerprint_is_given(tmp_path: Path) -> None:
    store = fill(tmp_path, ["a"])
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    left = feature_set.layout.housekeeping / "tmp" / "gc-half-removed"
    left.parent.mkdir(exist_ok=True)
    feature_set.layout.recipe_dir.rename(left)
    again = FeatureStore(tmp_path)
    assert again.gc(KEY, grace_s=0) == 0
    assert left.exists()
    assert again.gc(KEY, fingerprint=feature_set.fingerprint, grace_s=0) == 1
    assert not left.exists()


# -- get_many ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_bytes", [0, 10**6])
def test_an_out_of_another_form_is_refused(tmp_path: Path, memory_bytes: int) -> None:
    fill(tmp_path, IDS)
    store = FeatureStore(tmp_path, memory_bytes=memory_bytes)
    locked = np.empty((2, 4, DIM), np.float32)
    locked.flags.writeable = False
    for out, found in [
        (np.empty((2, 4, DIM)), r"out is \(2, 4, 6\) float64"),
        (np.empty((2, 4, DIM), np.float16), r"out is \(2, 4, 6\) float16"),
        (np.empty((3, 4, DIM), np.float32), r"out is \(3, 4, 6\) float32"),
        (np.empty((2, 4, DIM), np.float32, "F"), r"out is \(2, 4, 6\) float32"),
        (np.empty((4, 4, DIM), np.float32)[::2], r"out is \(2, 4, 6\) float32"),
        (locked, r"out is \(2, 4, 6\) float32"),
        ([[]], "out is list"),
    ]:
        with pytest.raises(ValuesError, match=f"{found}, not a writable C-contiguous .* float32 as stored"):
            store.get_many(KEY, ["a", "b"], out)  # type: ignore[arg-type]


def test_get_many_gives_an_array_or_says_what_does_not(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    out = np.empty((1, 1, DIM), np.float32)
    asked: list[tuple[list[str], Any]] = [(["one"], None), (["one"], out), ([], None), ([], out)]
    for stored in (False, True):
        if stored:
            store.put_many(ALL, ["one"], [values_of("one", 1)], recipe=RECIPE)
        for key in (ALL, str(ALL)):
            for ids, given in asked:
                with pytest.raises(ValuesError, match=f"samples of {ALL} differ in .*: get_ragged gives a list"):
                    FeatureStore(tmp_path).get_many(key, ids, given)


@pytest.mark.parametrize("memory_bytes", [0, 10**6])
def test_get_ragged_gives_arrays_of_their_own_under_any_key(tmp_path: Path, memory_bytes: int) -> None:
    assert FeatureStore(tmp_path).get_ragged(KEY, []) == FeatureStore(tmp_path).get_ragged(ALL, []) == []
    with pytest.raises(MissingFeatureError, match="sample 'a' is not stored"):
        FeatureStore(tmp_path).get_ragged(KEY, ["a"])
    fill(tmp_path, IDS)
    store = FeatureStore(tmp_path, memory_bytes=memory_bytes)
    assert store.get_ragged(KEY, []) == []
    for _ in range(2):
        found = store.get_ragged(KEY, ["b", "a", "b"])
        for values, id in zip(found, ["b", "a", "b"], strict=True):
            np.testing.assert_array_equal(values, values_of(id))
            assert values.flags.owndata
            assert values.flags.writeable
            values[:] = np.nan  # ours: neither a later read nor the other `b` sees it
        found[0][:] = 1
        assert np.isnan(found[2]).all()
    with pytest.raises(MissingFeatureError, match=r"2 samples, e\.g\. 'x', are not stored"):
        store.get_ragged(KEY, ["a", "x", "y"])


def test_no_ids_are_an_empty_batch(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    assert np.shape(store.get_many(KEY, [])) == (0, 0, 0)
    fill(tmp_path, IDS)
    for reader in (FeatureStore(tmp_path), FeatureStore(tmp_path, memory_bytes=100)):
        found = reader.get_many(KEY, [])
        assert np.shape(found) == (0, 4, DIM)
        assert found.dtype == np.float32
        out = np.empty((0, 4, DIM), np.float32)
        assert reader.get_many(KEY, [], out) is out


def test_ids_may_be_any_sequence(tmp_path: Path) -> None:
    store = fill(tmp_path, IDS)
    for ids in (tuple(IDS), dict.fromkeys(IDS), iter(IDS), np.array(IDS)):
        np.testing.assert_array_equal(store.get_many(KEY, ids), batch(IDS))  # type: ignore[arg-type]


# -- a miss without a compute ------------------------------------------------------------------------


def test_a_miss_says_what_would_make_it(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    advice = f"; open it with one: `FeatureStore({str(tmp_path)!r}, compute=Extractor({{{KEY.dataset!r}: samples}}))`"
    with pytest.raises(MissingFeatureError, match=re.escape(advice) + "$") as caught:
        store.get(KEY, "a")
    assert (caught.value.key, caught.value.ids, caught.value.root) == (KEY, ("a",), tmp_path)
    assert isinstance(caught.value, LookupError)
    assert f"sample 'a' is not stored under {KEY} in {tmp_path}" in str(caught.value)
    fill(tmp_path, IDS)
    with pytest.raises(MissingFeatureError, match=re.escape(advice)) as caught:
        store.get_many(KEY, ["a", "x", "y", "x"])
    where = f"{KEY}@{Recipe(RECIPE).fingerprint[:8]}"
    assert f"2 samples, e.g. 'x', are not stored under {where}" in str(caught.value)
    with pytest.raises(MissingFeatureError):
        store.get_features(KEY, "x")


# -- snapshots ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_bytes", [0, 10**6])
def test_what_others_overwrite_or_delete_shows_after_refresh(tmp_path: Path, memory_bytes: int) -> None:
    fill(tmp_path, IDS)
    mine = FeatureStore(tmp_path, memory_bytes=memory_bytes)
    np.testing.assert_array_equal(mine.get_many(KEY, IDS), batch(IDS))
    other = FeatureStore(tmp_path)
    other.put_many(KEY, ["a"], batch(["x"]), recipe=RECIPE, overwrite=True)
    other.delete(KEY, ["b"])
    np.testing.assert_array_equal(mine.get_many(KEY, ["a", "b"]), batch(["a", "b"]))
    np.testing.assert_array_equal(mine.get(KEY, "a"), values_of("a"))
    assert FeatureStore(tmp_path).ids(KEY) == ["a", "c", "d"]
    mine.refresh()
    np.testing.assert_array_equal(mine.get(KEY, "a"), values_of("x"))
    with pytest.raises(MissingFeatureError):
        mine.get(KEY, "b")
    tier = mine._memory
    assert tier is None or len(tier) == 1  # rows of segments that went are let go of


def test_the_listing_of_a_miss_shows_what_others_did(tmp_path: Path) -> None:
    mine = fill(tmp_path, IDS)
    mine.get(KEY, "a")
    other = FeatureStore(tmp_path)
    other.put_many(KEY, ["a", "new"], batch(["x", "new"]), recipe=RECIPE, overwrite=True)
    np.testing.assert_array_equal(mine.get(KEY, "a"), values_of("a"))
    np.testing.assert_array_equal(mine.get(KEY, "new"), values_of("new"))
    np.testing.assert_array_equal(mine.get(KEY, "a"), values_of("x"))


def test_a_miss_lists_the_directory_once_per_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, ["a"])
    store = FeatureStore(tmp_path)
    store.get(KEY, "a")
    fill(tmp_path, ["b"])
    listed: list[bool] = []
    real = Reader.refresh
    monkeypatch.setattr(Reader, "refresh", lambda self, *how, **more: listed.append(True) or real(self, *how, **more))
    with pytest.raises(MissingFeatureError, match="2 samples"):
        store.get_many(KEY, ["b", "x", "a", "y"])
    assert listed == [True]


@pytest.mark.parametrize("memory_bytes", [0, 10**6])
def test_what_one_does_oneself_shows_at_once(tmp_path: Path, memory_bytes: int) -> None:
    store = FeatureStore(tmp_path, memory_bytes=memory_bytes)
    store.put_many(KEY, IDS, batch(IDS), recipe=RECIPE)
    np.testing.assert_array_equal(store.get_many(KEY, IDS), batch(IDS))
    store.put_many(KEY, ["a"], batch(["x"]), recipe=RECIPE, overwrite=True)
    np.testing.assert_array_equal(store.get(KEY, "a"), values_of("x"))
    np.testing.assert_array_equal(store.get_many(KEY, ["b", "a"]), batch(["b", "x"]))
    assert store.delete(KEY, ["a", "b", "nobody"]) == 2
    assert store.missing(KEY, IDS) == ["a", "b"]
    with pytest.raises(MissingFeatureError):
        store.get(KEY, "a")
    store.put_many(KEY, ["a"], batch(["y"]), recipe=RECIPE)
    np.testing.assert_array_equal(store.get(KEY, "a"), values_of("y"))
    assert store.compact(KEY) > 1
    np.testing.assert_array_equal(store.get_many(KEY, ["a", "c", "d"]), batch(["y", "c", "d"]))


def test_deleting_everything_leaves_an_empty_key_that_can_be_filled_again(tmp_path: Path) -> None:
    store = fill(tmp_path, IDS)
    assert store.delete(KEY, IDS) == 4
    for reader in (store, FeatureStore(tmp_path)):
        assert reader.ids(KEY) == []
        assert reader.missing(KEY, IDS) == IDS
        with pytest.raises(MissingFeatureError):
            reader.get(KEY, "a")
    assert store.keys() == [KEY]
    fill(tmp_path, IDS)
    assert FeatureStore(tmp_path).ids(KEY) == IDS


# -- read-only ---------------------------------------------------------------------------------------


def test_a_read_only_store_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path, IDS)
    before = files(tmp_path)
    store = FeatureStore(tmp_path, read_only=True)
    with pytest.raises(ReadOnlyError, match="opened for reading only: nothing can be put into it"):
        store.put_many(KEY, ["e"], batch(["e"]), recipe=RECIPE)
    for call in (lambda: store.delete(KEY, ["a"]), lambda: store.compact(KEY)):
        with pytest.raises(ReadOnlyError, match="opened for reading only: nothing can be changed in it"):
            call()
    np.testing.assert_array_equal(store.get_many(KEY, IDS), batch(IDS))
    assert files(tmp_path) == before


# -- damage ------------------------------------------------------------------------------------------


def damage(root: Path) -> None:
    flip(segment_dirs(root)[0] / "c.0.0.0", 4 * DIM * 4 + 4 + 10)  # of "b"


def test_damage_without_a_compute_is_said_to_be_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, IDS)
    damage(tmp_path)
    store = FeatureStore(tmp_path)
    for call in (
        lambda: store.get(KEY, "b"),
        lambda: store.get_many(KEY, IDS),
        lambda: store.get_features(KEY, "b"),
    ):
        with pytest.raises(CorruptSegmentError, match="sample 'b' is not to be had under") as caught:
            call()
        assert str(caught.value).endswith(
            "check_store(store.root, full=True, repair=True)` moves what is damaged aside"
        )
        assert (caught.value.key, caught.value.ids, caught.value.root) == (KEY, ("b",), tmp_path)
        assert segment_dirs(tmp_path)[0].name in str(caught.value)
    assert isinstance(caught.value, OSError)
    np.testing.assert_array_equal(store.get_many(KEY, ["a", "c", "d"]), batch(["a", "c", "d"]))
    assert store.missing(KEY, IDS) == ["b"]
    assert len(caplog.records) == 1


def test_damage_with_a_compute_is_a_clean_miss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    making = Making()
    FeatureStore(tmp_path, compute=making).get_many(KEY, IDS)
    damage(tmp_path)
    for _ in range(2):
        store = FeatureStore(tmp_path, compute=making)
        np.testing.assert_array_equal(store.get_many(KEY, IDS), batch(IDS))
        np.testing.assert_array_equal(store.get(KEY, "b"), values_of("b"))
    assert making.asked == [IDS, ["b"]]
    assert len([record for record in caplog.records if "row 1 of segment" in record.getMessage()]) == 2


def test_a_damaged_line_makes_the_sample_a_miss(tmp_path: Path) -> None:
    making = Making()
    FeatureStore(tmp_path, compute=making).get_many(KEY, IDS)
    flip(segment_dirs(tmp_path)[0] / "rows", -3)  # of "d"
    store = FeatureStore(tmp_path, compute=making)
    features = store.get_features(KEY, "d")
    assert features.served_from == "computed"
    np.testing.assert_array_equal(features.values, values_of("d"))
    assert making.asked == [IDS, ["d"]]
    flip(segment_dirs(tmp_path)[1] / "rows", -3)
    with pytest.raises(CorruptSegmentError):
        FeatureStore(tmp_path).get_features(KEY, "d")


def test_errors_of_the_system_are_ours_and_name_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, IDS)
    store = FeatureStore(tmp_path)

    def fail(*args: Any) -> Any:
        raise OSError(5, "Input/output error", "/the/path")

    monkeypatch.setattr(reader_room.os, "preadv", fail)
    for call in (lambda: store.get(KEY, "a"), lambda: store.get_features(KEY, "a")):
        with pytest.raises(StoreError, match=r"Input/output error; look at the path: '/the/path'"):
            call()
    monkeypatch.setattr(reader_room.os, "scandir", fail)
    monkeypatch.setattr(reader_room.os, "stat", fail)
    store = FeatureStore(tmp_path)
    for call in (lambda: store.keys(), lambda: store.ids(KEY), lambda: store.recipes(KEY), lambda: store.get(KEY, "a")):
        with pytest.raises(StoreError, match="Input/output error"):
            call()


# -- processes, threads, copies ----------------------------------------------------------------------


def test_a_store_is_pickled_as_its_settings(tmp_path: Path) -> None:
    fill(tmp_path, IDS)
    store = FeatureStore(
        tmp_path, compute=Making(RECIPE), memory_bytes=1000, memory_policy="lru", read_only=True,
        fingerprints={KEY: Recipe(RECIPE).fingerprint},
    )  # fmt: skip
    store.get_many(KEY, IDS)
    text = pickle.dumps(store)
    assert len(text) < 1000
    for again in (pickle.loads(text), copy.copy(store), copy.deepcopy(store)):
        assert again.root == store.root
        assert again.read_only
        assert again.pins == store.pins
        assert again.stats.disk_hits == 0
        np.testing.assert_array_equal(again.get(KEY, "a"), values_of("a"))
        np.testing.assert_array_equal(again.get(KEY, "new"), values_of("new"))
        assert again.get_features(KEY, "a").served_from == "memory"
        assert again.stats.not_kept == 1


def read_in_child(store: FeatureStore, ids: list[str], out: Path) -> None:
    np.save(out, np.stack([*store.get_many(KEY, ids), store.get(KEY, ids[0])]))


def test_a_store_goes_to_a_spawned_process(tmp_path: Path) -> None:
    store = fill(tmp_path, IDS)
    store.get_many(KEY, IDS)
    child = SPAWN.Process(target=read_in_child, args=(store, IDS, tmp_path / "out.npy"))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), batch([*IDS, "a"]))


@pytest.mark.parametrize("memory_bytes", [0, 10**6])
def test_a_fork_under_reading_threads_reads_and_writes(tmp_path: Path, memory_bytes: int) -> None:
    fill(tmp_path, IDS, ["e", "f"])
    store = FeatureStore(tmp_path, memory_bytes=memory_bytes)
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.001):  # without a pause four of them leave a loaded machine no time to fork
            store.get_many(KEY, IDS)
            store.get(KEY, "e")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(10):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: that is the point
                child = os.fork()
            if child == 0:
                code = 1
                try:
                    good = np.array_equal(store.get_many(KEY, ["f", "a"]), batch(["f", "a"]))
                    new = f"new{number}"
                    store.put_many(KEY, [new], batch([new]), recipe=RECIPE)
                    code = 0 if good and np.array_equal(store.get(KEY, new), values_of(new)) else 1
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()
    store.refresh()
    assert len(store.ids(KEY)) == 16


def test_threads_that_write_and_read_one_key_lose_nothing(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, memory_bytes=10**4)
    wrong: list[str] = []

    def work(name: str) -> None:
        for number in range(12):
            id = f"{name}{number}"
            store.put_many(KEY, [id], batch([id]), recipe=RECIPE)
            if not np.array_equal(store.get(KEY, id), values_of(id)):
                wrong.append(id)
            if number % 5 == 4:
                store.put_many(KEY, [id], batch([f"{id}!"]), recipe=RECIPE, overwrite=True)

    threads = [threading.Thread(target=work, args=(name,)) for name in "wxyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    expected = {f"{name}{n}": f"{name}{n}" + ("!" if n % 5 == 4 else "") for name in "wxyz" for n in range(12)}
    for reader in (store, FeatureStore(tmp_path)):
        reader.refresh()
        assert reader.ids(KEY) == sorted(expected)
        np.testing.assert_array_equal(reader.get_many(KEY, list(expected)), batch(expected.values()))


# -- what a hit costs --------------------------------------------------------------------------------

HITS = """
import json, sys
opened = []
sys.addaudithook(lambda event, args: opened.append((str(args[0]), args[2])) if event == "open" else None)
from featurestore import FeatureStore
class Compute:
    def recipe(self, key): return {recipe}
    def __call__(self, key, ids): raise AssertionError("a hit")
store = FeatureStore({root!r}, compute=Compute(), memory_bytes={memory_bytes})
for _ in range(3):
    store.get({key!r}, "a")
    store.get_many({key!r}, ["a", "b"])
    store.get_features({key!r}, "c")
loaded = sorted({{"zarr", "torch", "numcodecs", "filelock", "asyncio", "yaml", "click"}} & set(sys.modules))
print(json.dumps([loaded, [[path, flags] for path, flags in opened if path.startswith({root!r})]]))
"""


@pytest.mark.parametrize("memory_bytes", [0, 10**6])
def test_a_hit_imports_neither_zarr_nor_torch_and_opens_no_lock(tmp_path: Path, memory_bytes: int) -> None:
    root = tmp_path / "store"
    fill(root, IDS, ["e"])
    before = files(tmp_path)
    code = HITS.format(root=str(root), key=str(KEY), recipe=RECIPE, memory_bytes=memory_bytes)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    loaded, opened = json.loads(run.stdout)
    assert loaded == []
    assert opened
    for path, flags in opened:
        assert path.startswith(str(root / "data")), f"a hit opened {path}"
        assert flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) == 0, f"a hit opened {path} for writing"
    assert files(tmp_path) == before

"""Rows: what may be stored, checked and encoded once, and put together into what is committed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from store_factories import ALL, DIM, KEY, RECIPE, batch, values_of

from featurestore import FeatureKey, Features, FeatureStore
from featurestore.errors import RecipeMismatchError, ValuesError
from featurestore.storage import maintenance
from featurestore.storage import rows as room
from featurestore.storage.reader import Form
from featurestore.storage.rows import IMPORTED, Row, as_rows, check_form, checked

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def made(**values: NDArray[Any]) -> dict[str, Row]:
    return {id: Row.of(id, Features(value)) for id, value in values.items()}


def test_a_row_says_what_will_be_read_beside_its_values() -> None:
    indices, seconds = np.arange(4), np.linspace(0, 1, 4)
    source = {"path": "/a/\udce9.mp4", "size": 1, "mtime_ns": 2, "sha256": "00"}
    provenance = {"sources": (source,), "note": {"pair": (1, 2)}}
    row = checked(KEY, "a", Features(values_of("a"), indices, seconds, provenance))
    assert row.as_read() == {
        "id": "a",
        "frame_indices": indices.tolist(),
        "timestamps_s": seconds.tolist(),
        "provenance": {
            "sources": [{**source, "path": "/a/\\xe9.mp4", "path_bytes": "2f612fe92e6d7034"}],
            "note": {"pair": [1, 2]},
        },
    }
    assert checked(KEY, "a", Features(values_of("a"))).line == b'{"id":"a"}\n'


@pytest.mark.parametrize("provenance", [{"x": object()}, {"x": float("nan")}, {"x": "\ud800"}, ["x"], {"sources": 5}])
def test_provenance_that_json_cannot_hold_is_refused(provenance: Any) -> None:
    with pytest.raises(ValuesError, match="sample 'a': provenance"):
        checked(ALL, "a", Features(values_of("a"), provenance=provenance))


# -- what may be stored --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
@pytest.mark.parametrize("shape", [(4, 6), (4, 5, 6), (4, 2, 3, 5)])
def test_frames_of_any_shape_are_stored_as_they_are(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    row = checked(KEY, "a", Features(values))
    assert row.values is values
    axes = {1: ("feature",), 2: ("axis_1", "feature"), 3: ("axis_1", "axis_2", "feature")}[len(shape) - 1]
    assert row.form == Form(shape[1:], np.dtype(dtype), axes)
    assert row.line == b'{"id":"a"}\n'


def test_every_bfloat16_is_kept_exactly_as_float32_and_its_line_says_so(tmp_path: Path) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(BFLOAT16)
    every = every[np.isfinite(every.astype(np.float32))].reshape(4, -1)
    store = FeatureStore(tmp_path)
    assert store.put(KEY, "a", every, recipe=RECIPE)
    values = FeatureStore(tmp_path).get(KEY, "a")
    assert values.dtype == np.float32
    assert values.astype(BFLOAT16).tobytes() == every.tobytes()
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    assert feature_set.line("a") == {"id": "a", "dtype": "bfloat16"}
    assert not store.put(KEY, "a", every, recipe=RECIPE)  # the same again
    assert not store.put(KEY, "a", values, recipe=RECIPE)  # the same numbers


def test_a_bfloat16_that_is_no_number_is_refused() -> None:
    values = np.ones((4, DIM), BFLOAT16)
    values[1, 2:4] = np.inf, np.nan
    with pytest.raises(ValuesError, match="sample 'a': 2 of 24 values are NaN or infinite"):
        checked(KEY, "a", Features(values))


@pytest.mark.parametrize(
    "values", [np.ones((4, DIM), dtype) for dtype in ("int8", "int64", "float64", "bool", "complex64")]
    + [np.full((4, DIM), None), np.full((4, DIM), "x"), np.ones((4, DIM), ml_dtypes.float8_e4m3fn)],
    ids=lambda values: str(values.dtype),
)  # fmt: skip
def test_other_dtypes_are_refused_with_those_that_may_be(values: Any) -> None:
    allowed = "not an array of float16, float32, uint8 or bfloat16"
    with pytest.raises(ValuesError, match=f"sample 'a': values are {values.dtype}, {allowed}"):
        checked(KEY, "a", Features(values))


def test_what_is_no_array_is_refused() -> None:
    values: Any = [[1.0] * DIM] * 4
    with pytest.raises(ValuesError, match="sample 'a': values are list, not an array of float16, float32, uint8"):
        checked(KEY, "a", Features(values))


def test_float64_comes_in_with_imports_alone() -> None:
    row = checked(KEY, "a", Features(np.ones((4, DIM))), IMPORTED)
    assert row.form.dtype == np.float64
    with pytest.raises(ValuesError, match="int8, not an array of float16, float32, float64, uint8 or bfloat16"):
        checked(KEY, "a", Features(np.ones((4, DIM), np.int8)), IMPORTED)


@pytest.mark.parametrize(
    ("key", "shape", "expected"),
    [
        (KEY, (0, DIM), r"\(0, 6\), not \(4, ...\)"),
        (KEY, (3, DIM), r"\(3, 6\), not \(4, ...\)"),
        (KEY, (4,), r"\(4,\), not \(4, ...\)"),
        (KEY, (4, 0), r"\(4, 0\), not \(4, ...\)"),
        (KEY, (4, 5, 0), r"\(4, 5, 0\), not \(4, ...\)"),
        (ALL, (0, DIM), r"\(0, 6\), not \(n_frames, ...\)"),
        (ALL, (2,), r"\(2,\), not \(n_frames, ...\)"),
    ],
)
def test_a_sample_without_frames_or_of_another_shape_is_refused(
    key: FeatureKey, shape: tuple[int, ...], expected: str
) -> None:
    with pytest.raises(ValuesError, match=f"sample 'a': values are {expected} as {key} says"):
        checked(key, "a", Features(np.ones(shape, np.float32)))


def test_a_sample_has_less_than_4_gib() -> None:
    """Without its memory: all of its numbers are one."""

    def of(*shape: int, dtype: Any = np.float16) -> Features:
        return Features(np.broadcast_to(np.ones((), dtype), shape))

    check_form(ALL, "a", of((1 << 15) - 1, 1 << 16))
    check_form(ALL, "a", of((1 << 16) - 1, 1 << 16, dtype=np.uint8))
    for features in (of(1 << 15, 1 << 16), of(1 << 14, 1 << 16, dtype=BFLOAT16)):  # which takes twice as much
        with pytest.raises(
            ValuesError,
            match="sample 'a': values are 4294967296 bytes, and a sample may have 4294967295; store fewer frames of it",
        ):
            checked(ALL, "a", features)


@pytest.mark.parametrize(
    "axes",
    [
        ("token",), ("token", "layer", "feature"), (), ("token", "token"), ("frame", "feature"), ("token", "sample"),
        ("token", ""), ("token", "1st"), ("token", "a-b"), ("token", "größe"), ("token", "x" * 65), ("token", 5),
        ["token", "feature"], "token feature", ("token", "feature\n"),
    ],
)  # fmt: skip
def test_axes_are_names_of_the_axes_behind_the_frames(axes: Any) -> None:
    features = Features(np.ones((4, 2, DIM), np.float32), axes=axes)
    with pytest.raises(ValuesError, match="not a tuple of 2 different names, of letters, digits and _, for the axes"):
        checked(KEY, "a", features)


def test_axes_belong_to_what_rows_of_a_recipe_share(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    values = np.ones((4, 2, DIM), np.float32)
    store.put(KEY, "a", values, recipe=RECIPE, axes=("token", "feature"))
    for axes in (None, ("layer", "feature")):
        with pytest.raises(
            RecipeMismatchError, match=r"sample 'b' has frames of .* those of .* are float32 \(token 2, feature 6\)"
        ):
            store.put(KEY, "b", values, recipe=RECIPE, axes=axes)
    store.put(KEY, "b", values, recipe=RECIPE, axes=("token", "feature"))
    assert FeatureStore(tmp_path).get_features(KEY, "b").axes == ("token", "feature")


# -- batches -------------------------------------------------------------------------------------------


def test_samples_of_all_lengths_are_one_batch() -> None:
    features = {"a": values_of("a", 1), "b": values_of("b", 2), "c": values_of("c", 1)}
    (rows,) = as_rows(ALL, made(**features))
    assert (rows.shape, rows.n_frames, rows.counts, rows.ids) == ((4, DIM), None, [1, 2, 1], ["a", "b", "c"])
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks)), np.concatenate(list(features.values())))
    (rows,) = as_rows(KEY, made(a=values_of("a"), b=values_of("b")))
    assert (rows.shape, rows.n_frames, rows.counts) == ((2, 4, DIM), 4, [4, 4])
    assert as_rows(KEY, {}) == []


def test_batches_are_split_at_the_size_of_a_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "MAX_BYTES", 3 * DIM * 4)
    lengths = {"a": 1, "b": 2, "c": 1, "large": 4, "d": 1, "e": 3, "larger": 5}
    batches = as_rows(ALL, made(**{id: values_of(id, n) for id, n in lengths.items()}))
    assert [list(batch.ids) for batch in batches] == [["a", "b"], ["c"], ["large"], ["d"], ["e"], ["larger"]]


def test_rows_of_one_array_are_written_without_a_copy_and_no_others() -> None:
    array = np.arange(24, dtype=np.float32).reshape(6, 1, 4)

    def blocks(rows: list[np.ndarray]) -> list[np.ndarray]:
        (one,) = as_rows(ALL, made(**{f"s{number}": row for number, row in enumerate(rows)}))
        return list(one.blocks)

    (block,) = blocks([array[number] for number in range(1, 5)])
    assert np.shares_memory(block, array)
    np.testing.assert_array_equal(block, array[1:5].reshape(4, 4))
    # Also where they differ in length.
    (block,) = blocks([array.reshape(6, 4)[:2], array.reshape(6, 4)[2:5]])
    assert np.shares_memory(block, array)
    np.testing.assert_array_equal(block, array.reshape(6, 4)[:5])
    # Rows in another order, with gaps, of another array, across its end, turned round, and of no array at all.
    for rows in (
        [array[2], array[1]],
        [array[0], array[2], array[4]],
        [array[0], array.copy()[1]],
        [array[::-1][number] for number in range(6)],
        [array[:, :, ::2][number] for number in range(6)],
        [np.asfortranarray(array.reshape(6, 2, 2))[number] for number in range(6)],
        [array[number].copy() for number in range(3)],
    ):
        (block,) = blocks(rows)
        assert not np.shares_memory(block, array)
        np.testing.assert_array_equal(block, np.concatenate(rows))


@pytest.mark.parametrize("mutant", [False, True])
def test_an_axis_of_one_element_may_have_any_stride(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutant: bool
) -> None:
    """`vectors[:, None]` is contiguous, and the stride of its second axis 0; mutant: one that takes it as it is."""

    def as_they_are(first: NDArray[Any], shape: tuple[int, ...], strides: object) -> NDArray[Any]:
        return as_strided(first, shape, first.strides)

    as_strided = np.lib.stride_tricks.as_strided
    if mutant:
        monkeypatch.setattr(np.lib.stride_tricks, "as_strided", as_they_are)
    one = FeatureKey("mer2026", "audio", "wavlm-base", "utterance", 1)
    vectors = np.arange(20, dtype=np.float32).reshape(5, 4)
    right = []
    for number, values in enumerate([vectors[:, None], vectors[:, None, None], vectors[::-1][:, None]]):
        store = FeatureStore(tmp_path / str(number))
        ids = [f"s{number}" for number in range(5)]
        store.put_many(one, ids, values, recipe=RECIPE)
        right.append(store.get_many(one, ids).tobytes() == values.tobytes())
    assert all(right) is not mutant


def test_values_are_put_together_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte is written without a second copy of all of it."""
    values = batch([f"s{number}" for number in range(600)])
    (rows,) = as_rows(KEY, made(**{f"s{number}": values[number].copy() for number in range(600)}))
    sizes = [len(block) for block in rows.blocks]
    assert sum(sizes) == 600 * 4
    assert max(sizes) <= 256 * 4
    monkeypatch.setattr(room, "_BLOCK_BYTES", 10 * values[0].nbytes)
    assert [len(block) for block in rows.blocks] == [10 * 4] * 60
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks)), values.reshape(-1, DIM))

"""A shelf: what is compared before it is put, and what is put beside what others stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from keeping import DIM, KEY, RECIPE, batch, fill, recipe_dir, values_of

from featurestore import Failure, Features, FeatureStore, Recipe
from featurestore.errors import CorruptSegmentError, ExistsError, FormatVersionError, StoreError, UnknownRecipeError
from featurestore.levels import Place, read_recipe
from featurestore.reader import BadRowError, UnknownFormatError
from featurestore.shelf import Shelf, as_rows, reading

FINGERPRINT = Recipe(RECIPE).fingerprint


def shelf_at(root: Path) -> Shelf:
    return Shelf(root, KEY, FINGERPRINT, Recipe(RECIPE))


def features_of(**values: str) -> dict[str, Features]:
    return {id: Features(values_of(value)) for id, value in values.items()}


def stored(root: Path) -> dict[str, str]:
    """{id: the id whose values it has}."""
    store = FeatureStore(root)
    known = {values_of(name).tobytes(): name for name in "abcdxyz"}
    return {id: known[store.get(KEY, id).tobytes()] for id in store.ids(KEY)}


def test_a_shelf_touches_no_disk_until_it_is_used(tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path)
    assert shelf.recipe == Recipe(RECIPE)
    assert "a" not in shelf.reader
    assert shelf.failures.all() == {}
    assert list(tmp_path.iterdir()) == []


def test_put_says_how_many_were_not_there(tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path)
    assert shelf.put(features_of(a="a", b="b")) == 2
    assert shelf.put(features_of(b="b", c="c")) == 1
    assert shelf.put({}) == 0
    assert stored(tmp_path) == {"a": "a", "b": "b", "c": "c"}


def test_what_others_stored_is_refused_kept_or_replaced_sample_by_sample(tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path)
    shelf.put(features_of(a="a", b="b"))
    with pytest.raises(ExistsError, match=r"1 of 3 samples, e\.g\. 'b', are stored with other values"):
        shelf.put(features_of(a="x", b="y", c="c"), overwrite=["a"])
    assert stored(tmp_path) == {"a": "a", "b": "b"}
    shelf.put(features_of(a="x", b="y", c="c"), overwrite=["a"], keep_stored=True)
    assert stored(tmp_path) == {"a": "x", "b": "b", "c": "c"}
    shelf.put(features_of(a="y", d="d"), keep_stored=True)
    assert stored(tmp_path) == {"a": "x", "b": "b", "c": "c", "d": "d"}


def test_a_put_clears_the_records_of_what_it_stores(tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path)
    for id in ("a", "b"):
        shelf.fail(id, Failure("media", "bad"))
    shelf.put(features_of(a="a"))
    assert list(shelf.failures.all()) == ["b"]
    shelf.fail("a", Failure("media", "bad"))
    shelf.put(features_of(a="a"))  # the same bits
    assert list(shelf.failures.all()) == ["b"]


def test_a_failure_is_recorded_with_its_recipe_or_not_at_all(tmp_path: Path) -> None:
    shelf_at(tmp_path / "store").fail("a", Failure("media", "bad"))
    assert FeatureStore(tmp_path / "store").recipes(KEY) == {FINGERPRINT: Recipe(RECIPE)}
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"the failure of sample 'a' \(bad\) cannot be recorded: File exists"):
        shelf_at(tmp_path / "file").fail("a", Failure("media", "bad"))


def test_batches_are_split_by_row_count(tmp_path: Path) -> None:
    features = {"a": Features(values_of("a", 1)), "b": Features(values_of("b", 2)), "c": Features(values_of("c", 1))}
    rows = as_rows(features)
    assert [(one.shape, list(one.ids)) for one in rows] == [((1, DIM), ["a", "c"]), ((2, DIM), ["b"])]
    np.testing.assert_array_equal(
        np.concatenate(list(rows[0].blocks)), np.stack([values_of("a", 1), values_of("c", 1)])
    )


def test_the_recipe_is_read_from_beside_the_segments(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    assert Shelf(tmp_path, KEY, FINGERPRINT).recipe == Recipe(RECIPE)
    place = Place(tmp_path, KEY, "0123456789abcdef")
    with pytest.raises(UnknownRecipeError, match="cannot be read as a recipe"):
        read_recipe(place)
    recipe_dir(tmp_path).rename(place.recipe_dir)
    with pytest.raises(UnknownRecipeError, match="holds another recipe than its place says"):
        read_recipe(place)


def test_what_the_reader_raises_is_said_in_our_words(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    (segment,) = shelf_at(tmp_path).reader.segments
    own = StoreError("ours already")
    for error, kind in [
        (UnknownFormatError("upgrade"), FormatVersionError),
        (BadRowError(segment, 0, "bad"), CorruptSegmentError),
        (OSError(5, "Input/output error", "/path"), StoreError),
        (own, StoreError),
        (KeyError("not of the disk"), KeyError),
    ]:
        with pytest.raises(kind) as caught, reading(KEY):
            raise error
        assert caught.value is error if kind in (KeyError,) or error is own else caught.value is not error


def test_rows_of_one_array_are_written_without_a_copy_and_no_others() -> None:
    array = np.arange(24, dtype=np.float32).reshape(6, 1, 4)

    def blocks(rows: list[np.ndarray]) -> list[np.ndarray]:
        (one,) = as_rows({f"s{number}": Features(row) for number, row in enumerate(rows)})
        return list(one.blocks)

    (block,) = blocks([array[number] for number in range(1, 5)])
    assert np.shares_memory(block, array)
    np.testing.assert_array_equal(block, array[1:5])
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
        np.testing.assert_array_equal(block, np.stack(rows))


def test_values_are_stacked_in_blocks(tmp_path: Path) -> None:
    """A gigabyte is written without a second copy of all of it."""
    values = batch([f"s{number}" for number in range(600)])
    (rows,) = as_rows({f"s{number}": Features(values[number]) for number in range(600)})
    sizes = [len(block) for block in rows.blocks]
    assert sum(sizes) == 600
    assert max(sizes) <= 256

"""Rows: what may be stored, checked and encoded once, and put together into what is committed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from store_factories import ALL, DIM, KEY, batch, values_of

from featurestore import Features
from featurestore.errors import ValuesError
from featurestore.storage.rows import Row, as_rows, checked


def rows_of(**values: NDArray[Any]) -> dict[str, Row]:
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


def test_batches_are_split_by_row_count() -> None:
    features = {"a": values_of("a", 1), "b": values_of("b", 2), "c": values_of("c", 1)}
    rows = as_rows(rows_of(**features))
    assert [(one.shape, list(one.ids)) for one in rows] == [((1, DIM), ["a", "c"]), ((2, DIM), ["b"])]
    np.testing.assert_array_equal(
        np.concatenate(list(rows[0].blocks)), np.stack([values_of("a", 1), values_of("c", 1)])
    )


def test_rows_of_one_array_are_written_without_a_copy_and_no_others() -> None:
    array = np.arange(24, dtype=np.float32).reshape(6, 1, 4)

    def blocks(rows: list[np.ndarray]) -> list[np.ndarray]:
        (one,) = as_rows(rows_of(**{f"s{number}": row for number, row in enumerate(rows)}))
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


def test_values_are_stacked_in_blocks() -> None:
    """A gigabyte is written without a second copy of all of it."""
    values = batch([f"s{number}" for number in range(600)])
    (rows,) = as_rows(rows_of(**{f"s{number}": values[number] for number in range(600)}))
    sizes = [len(block) for block in rows.blocks]
    assert sum(sizes) == 600
    assert max(sizes) <= 256

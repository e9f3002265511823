"""Samples that wait for an encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from featurestore.compute.batching import Batch
from featurestore.compute.preparation import Prepared
from featurestore.features import Features


class OneBuffer:
    """The first pixel of each picture, always in the same array."""

    modality, version, dim, size = "frame", 1, 1, (1, 1)

    def __init__(self) -> None:
        self.buffer = np.zeros((64, 1), np.float32)
        self.calls: list[int] = []

    def config(self) -> dict[str, Any]:
        return {}

    def encode(self, images: Any) -> Any:
        self.calls.append(len(images))
        self.buffer[: len(images), 0] = images[:, 0, 0, 0]
        return self.buffer[: len(images)]


def pictures(first: int, count: int, more: bool = False) -> Prepared:
    numbers = np.arange(first, first + count)
    pixels = np.broadcast_to(numbers[:, None, None, None], (count, 1, 1, 3)).astype(np.uint8)
    return Prepared(pixels, numbers, numbers / 25, [{"path": "a.mp4"}], {}, more)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_are_those_of_their_pictures_in_whatever_pieces_and_from_one_buffer(dtype: str) -> None:
    encoder = OneBuffer()
    batch = Batch(encoder, 4, dtype, lambda stage: None)
    answers: list[Any] = []
    for id, prepared in (("a", pictures(0, 9, more=True)), ("b", pictures(50, 3)), ("a", pictures(9, 2))):
        batch.add(id, prepared)
        answers += batch.encode()
    assert [id for id, _ in answers] == ["b", "a"]
    for (_, made), first, count in zip(answers, (50, 0), (3, 11), strict=True):
        assert isinstance(made, Features)
        assert made.values.dtype == dtype
        np.testing.assert_array_equal(made.values[:, 0], np.arange(first, first + count))
        np.testing.assert_array_equal(made.frame_indices, np.arange(first, first + count))  # type: ignore[arg-type]
    assert max(encoder.calls) < 2 * batch.size


def test_a_sample_that_is_dropped_leaves_nothing_behind() -> None:
    batch = Batch(OneBuffer(), 4, "float32", lambda stage: None)
    batch.add("a", pictures(0, 4, more=True))
    assert batch.encode() == []
    batch.add("a", pictures(4, 2, more=True))
    batch.drop("a")
    batch.add("a", pictures(7, 1))
    [(_, made)] = batch.encode()
    assert isinstance(made, Features)
    assert made.values.tolist() == [[7]]

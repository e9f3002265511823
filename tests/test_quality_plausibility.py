"""Content: one piece looks at the values of a store and of a tree that is imported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from featurestore.quality.plausibility import Content

ROWS = np.arange(1, 33, dtype=np.float32).reshape(8, 4)
FIRST = np.repeat(ROWS[:1], 8, axis=0)


def suspected(values: Any, frames: list[int] | None = None, modality: str = "frame") -> list[tuple[str, int]]:
    return [(found.kind, found.rows) for found in Content(modality).look("a", values, frames)]


def changed(row: int, value: Any) -> Any:
    values = ROWS.copy()
    values[row] = value
    return values


@pytest.mark.parametrize(
    ("values", "frames", "found"),
    [
        (ROWS, None, []),
        (ROWS, list(range(8)), []),
        (changed(2, np.nan), None, [("nonfinite", 1)]),
        (changed(2, 0), None, [("zero", 1)]),
        (ROWS * 0, None, [("zero", 8)]),
        (changed(2, ROWS[5]), list(range(8)), [("repeated", 8)]),
        (changed(2, ROWS[5]), None, []),  # a short clip is padded
        (FIRST, None, [("identical", 8)]),
        (FIRST, list(range(8)), [("repeated", 8)]),
        (FIRST, [0] * 8, []),  # a clip of one frame, as recorded
        (FIRST[:1], None, []),
    ],
)
def test_what_a_sample_is_suspected_of(values: Any, frames: list[int] | None, found: list[tuple[str, int]]) -> None:
    assert suspected(values, frames) == found


def test_a_frame_of_several_axes_is_one_row() -> None:
    """A token, or a place in every token, may well be zero."""
    values = np.ones((3, 2, 4), np.float32) * np.arange(1, 4)[:, None, None]
    values[0, 1] = values[1, :, 2] = 0
    assert suspected(values) == []
    values[2, 1] = 0
    values[2, 0] = 0
    assert suspected(values) == [("zero", 1)]
    values[0, 0, 0] = values[0, 1, 3] = np.inf
    assert suspected(values) == [("nonfinite", 1), ("zero", 1)]


def test_what_may_repeat_is_not_suspected_of_it() -> None:
    assert suspected(FIRST, list(range(8)), "au") == []
    assert suspected(FIRST, None, "audio") == []  # windows of a sound that is shorter than one
    assert suspected(FIRST, None, "face") == [("identical", 8)]


def test_samples_with_the_same_values_are_put_together() -> None:
    content = Content("frame")
    zeros = ROWS * 0  # a kind of its own
    for id, values in zip("abcdef", (ROWS, ROWS + 1, ROWS.copy(), ROWS[::-1][::-1], zeros, zeros), strict=True):
        list(content.look(id, values))
    assert list(content.shared()) == [["a", "c", "d"]]

"""Comparing an encoder with a reference, and a broken encoder with the same reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[Any]


def assert_same(ours: Array, reference: Array, tolerance: float = 1e-6) -> None:
    """max|diff| <= 1e-6, for features of the size of 1."""
    assert ours.shape == reference.shape
    difference = np.abs(ours - reference).max() / max(1.0, np.abs(reference).max())
    assert difference <= tolerance, f"differs by {difference}"


def assert_caught(mutant: Array, reference: Array) -> None:
    """The comparison fails for a mutant, and not by rounding."""
    with pytest.raises(AssertionError):
        assert_same(mutant, reference, tolerance=1e-4)


def smooth_images() -> Array:
    """Smooth colour gradients with noise, as photographs are neither flat nor white noise; no channel like another."""
    generator = np.random.default_rng(3)
    y, x = np.mgrid[0:224, 0:224] / 224
    base = np.stack([255 * x, 180 * y, 120 * (1 - x * y)], axis=-1)
    return (base * generator.uniform(0.5, 1, (5, 1, 1, 3)) + generator.uniform(0, 30, (5, 224, 224, 3))).astype(
        np.uint8
    )

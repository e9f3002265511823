"""Comparing an encoder with a reference, and a broken encoder with the same reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.quality.compare import distance

Array = NDArray[Any]


def assert_same(ours: Any, reference: Any, allowed: float) -> None:
    """Two computations of the same features lie no farther apart than rounding explains; see docs/numbers.md.

    allowed   `featurestore.quality.compare.bound` of the encoder's config, or `rounding` of so many blocks
    """
    ours, reference = np.asarray(ours), np.asarray(reference)
    assert ours.shape == reference.shape
    off = distance(np.atleast_2d(ours), np.atleast_2d(reference))
    assert off.within(allowed), f"differs by {off.relative:.3g} of the largest, allowed are {allowed:.3g}"


def assert_caught(mutant: Array, reference: Array, allowed: float) -> None:
    """The comparison fails for a mutant, and not by a hair."""
    with pytest.raises(AssertionError):
        assert_same(mutant, reference, 10 * allowed)


def smooth_images() -> Array:
    """Smooth colour gradients with noise, as photographs are neither flat nor white noise; no channel like another."""
    generator = np.random.default_rng(3)
    y, x = np.mgrid[0:224, 0:224] / 224
    base = np.stack([255 * x, 180 * y, 120 * (1 - x * y)], axis=-1)
    return (base * generator.uniform(0.5, 1, (5, 1, 1, 3)) + generator.uniform(0, 30, (5, 224, 224, 3))).astype(
        np.uint8
    )

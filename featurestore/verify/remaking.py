"""Some samples made again, and compared with what is stored."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import ConfigError
from featurestore.features import Compute, Failure, Features
from featurestore.recipe import Recipe
from featurestore.shelf import Shelf
from featurestore.verify.findings import Findings

FULL_PRECISION, HALF_PRECISION = 1e-5, 2e-3  # relative to the largest value: batches change last bits
ADVICE = "find out which is right; `fstore rm KEY -- ID` removes it, then extract makes it again"


def check_again(shelf: Shelf, compute: Compute, ids: Sequence[str], where: str, findings: Findings) -> None:
    """Make samples again under the same recipe; values may differ by what batching does, frames not at all."""
    for id, made in compute(shelf.key, ids):
        if isinstance(made, Failure):
            findings.add("not_made", where, f"{made.reason}: {made.message}", "are its media still there?", id)
            continue
        found = shelf.reader.find(id)
        stored = shelf.reader.get(id)
        if found is None or stored is None:
            continue  # removed by another process meanwhile
        frames = found[0].line(found[1]).get("frame_indices")
        what = difference(stored, frames, made, tolerance_of(shelf.recipe, stored.dtype))
        if what is not None:
            findings.add("differs", where, what, ADVICE, id)


def choose(shelf: Shelf, samples: Mapping[str, Any], count: int) -> list[str]:
    """Up to `count` stored samples of the source, at random."""
    ids = [id for id in shelf.reader.ids() if id in samples]
    return sorted(random.sample(ids, min(count, len(ids))))


def tolerance_of(recipe: Recipe, dtype: np.dtype[Any]) -> float:
    """How far values made again may differ, relative to the largest of the sample."""
    half = dtype == np.float16 or recipe.data.get("compute_dtype") in ("float16", "bfloat16")
    return HALF_PRECISION if half else FULL_PRECISION


def difference(stored: NDArray[Any], frames: list[int] | None, made: Features, tolerance: float) -> str | None:
    """What differs, or None."""
    if frames is not None and made.frame_indices is not None and frames != made.frame_indices.tolist():
        return f"other frames: {made.frame_indices.tolist()}, stored {frames}"
    if made.values.shape != stored.shape:
        return f"other shape: {made.values.shape}, stored {stored.shape}"
    ours, theirs = stored.astype(np.float64), made.values.astype(np.float64)
    scale = float(np.abs(ours).max()) or 1.0
    off = float(np.abs(ours - theirs).max()) / scale
    # Written so that NaN counts as a difference.
    return None if off <= tolerance else f"values differ by up to {off:.2g} of the largest, allowed are {tolerance:g}"


def require_same_recipe(shelf: Shelf, own: Recipe) -> None:
    """ConfigError that says what the settings given here change."""
    if own.fingerprint != shelf.fingerprint:
        raise ConfigError(
            f"{shelf.key}@{shelf.fingerprint[:8]} cannot be made again with these settings: "
            f"{'; '.join(differences(shelf.recipe.data, own.data))}"
        )


def differences(stored: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`weights.digest is 'x' in the store and 'y' here` for every leaf that differs."""
    found = []
    for name in sorted({*stored, *here}):
        ours, theirs = stored.get(name), here.get(name)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            found += differences(ours, theirs, f"{prefix}{name}.")
        elif ours != theirs:
            found.append(f"{prefix}{name} is {ours!r} in the store and {theirs!r} here")
    return found

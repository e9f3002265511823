"""How far features of the same inputs may lie apart, and how far two arrays do: the only comparison there is.

Bits are equal where the same kernels saw the same shapes.  A batch of another size, another number of threads or
another processor sums in another order; then values differ by rounding, which grows with the network's depth.
`docs/numbers.md` has the policy, and what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNIT = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
"""what one rounding changes, relative to the value"""
SPREAD = {"float32": 6.0, "bfloat16": 1.5, "float16": 1.5}
"""units by which values of one layer came to differ: above all that `benchmarks/rounding.py` has measured"""
MARGIN = {"float32": 8.0, "bfloat16": 2.0, "float16": 2.0}
"""for networks and processors that were not measured"""
DEEPEST = 48
"""layers of a network that does not say how many it has"""
STEP = 2.0**-10
"""between two neighbours in float16, relative to the value: two that were rounded apart differ by it"""
SAME_DIRECTION = 0.999
"""cosine of two rows of the same frame by another decoder or in another precision; it is less for another frame"""
SAME_LENGTH = 1.05
"""ratio of the lengths of two such rows; L2-normalised rows have the same direction, and another length"""


@dataclass(frozen=True, slots=True)
class Distance:
    """How far two arrays of features lie apart."""

    max_abs: float
    """largest absolute difference of a value"""
    scale: float
    """largest absolute value of either side"""
    cosine: float
    """the smallest of two rows; 1 where both are zero, 0 where one is"""
    length: float
    """the largest ratio of two rows' lengths, the longer by the shorter; 1 where both are zero"""

    @property
    def relative(self) -> float:
        """`max_abs` by `scale`; NaN where a side is."""
        return self.max_abs / self.scale if self.max_abs else 0.0

    def within(self, allowed: float) -> bool:
        """Whether rounding explains it.  What is NaN or infinite on either side never is near."""
        return self.relative <= allowed


def distance(one: NDArray[Any], other: NDArray[Any]) -> Distance:
    """Compare two arrays (..., dim) of features, in float64.  Both have the same shape."""
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if a.size == 0:
        return Distance(0.0, 0.0, 1.0, 1.0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        lengths, others = np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1)
        products = lengths * others
        cosines = np.where(products > 0, (a * b).sum(-1) / products, lengths == others)
        ratios = np.maximum(lengths, others) / np.minimum(lengths, others)
        ratios = np.where((lengths == 0) & (others == 0), 1.0, ratios)
        return Distance(
            float(np.abs(a - b).max()),
            float(max(np.abs(a).max(), np.abs(b).max())),
            float(np.where(np.isfinite(products), cosines, np.nan).min()),
            float(ratios.max()),
        )


def farthest(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> Distance:
    """Of several samples: difference and scale of the one that is farthest off, and the worst cosine and length."""
    found = [distance(one, other) for one, other in pairs]
    worst = max(found, key=lambda each: math.inf if math.isnan(each.relative) else each.relative)
    cosine, length = (
        float(pick([getattr(each, name) for each in found])) for pick, name in ((np.min, "cosine"), (np.max, "length"))
    )
    return Distance(worst.max_abs, worst.scale, cosine, length)


def alike(cosine: float, length: float) -> bool:
    """Whether another decoder or precision explains it: each row has its counterpart's direction and length."""
    return cosine >= SAME_DIRECTION and length <= SAME_LENGTH


def bound(recipe: Mapping[str, Any], *dtypes: np.dtype[Any]) -> float:
    """How far a sample made again may lie from itself, relative to its largest value.

    recipe   of the features, or the config of an encoder: what the network computes in, and how many layers it has
    dtypes   in which the two sides were kept; float16 adds its own rounding
    """
    stored = STEP if any(dtype == np.float16 for dtype in dtypes) else 0.0
    return rounding(layers(recipe) or DEEPEST, compute_dtype(recipe)) + stored


def rounding(blocks: int, compute: str = "float32") -> float:
    """How far two computations of a network of so many blocks may lie apart, relative to the largest value.

    Two are added, for what stands before the first block and behind the last.
    """
    return MARGIN[compute] * SPREAD[compute] * UNIT[compute] * math.sqrt(blocks + 2)


def compute_dtype(recipe: Mapping[str, Any]) -> str:
    """What a network computes in; float32 where nothing is said."""
    said = recipe.get("compute_dtype")
    return said if isinstance(said, str) and said in UNIT else "float32"


def layers(recipe: Mapping[str, Any]) -> int | None:
    """How many blocks a network has one after the other, by a recipe or an encoder's config; None if it is not said."""
    encoder = recipe.get("encoder", recipe)
    config = encoder.get("config", encoder) if isinstance(encoder, Mapping) else {}
    architecture = config.get("architecture") if isinstance(config, Mapping) else None
    if not isinstance(architecture, Mapping):
        return None
    for part in (architecture, architecture.get("vision_cfg"), architecture.get("text_cfg")):
        if not isinstance(part, Mapping) or "timm_model_name" in part:
            continue
        said = part.get("num_hidden_layers", part.get("layers"))
        stages = said if isinstance(said, list) else [said]
        if all(type(stage) is int and stage > 0 for stage in stages) and stages:
            return sum(stages)
    return None

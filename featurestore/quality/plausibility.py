"""Plausibility: values that are whole and yet cannot be right, or are worth a look."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

MAY_REPEAT = "au"
"""the modality whose rows may rightly repeat, within a sample and among samples: "neutral expression" """
OF_PICTURES = ("frame", "face")

Kind = Literal["nonfinite", "zero", "repeated", "identical"]


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What one sample is suspected of."""

    kind: Kind
    """
    nonfinite   NaN or infinite values
    zero        rows of zeros
    repeated    rows of different frames that are equal
    identical   pictures that are all equal, of frames that nobody recorded
    """
    rows: int
    """how many rows it concerns"""


class Content:
    """Looks at the values of many samples, one by one; `shared` then tells which have the same."""

    def __init__(self, modality: str) -> None:
        self.modality = modality
        self._first: dict[bytes, str] = {}
        self._same: dict[bytes, list[str]] = {}

    def look(self, id: str, values: NDArray[Any], frames: Sequence[int] | None = None) -> Iterator[Suspicion]:
        """values: (n_frames, *item); frames: which they are of, None where that is not known."""
        values = values.reshape(len(values), -1)
        if broken := np.count_nonzero(~np.isfinite(values).all(axis=1)):
            yield Suspicion("nonfinite", int(broken))
        filled = values.any(axis=1)
        if zeros := len(values) - np.count_nonzero(filled):
            yield Suspicion("zero", int(zeros))
        if self.modality == MAY_REPEAT:
            return
        if frames is not None and repeats(values, frames):
            yield Suspicion("repeated", len(values))
        # Of sound not: all windows of a clip that is shorter than one are the same.
        known = frames is not None or self.modality not in OF_PICTURES or not filled.any()
        if not known and len(values) > 1 and (values == values[0]).all():
            yield Suspicion("identical", len(values))
        if filled.any():
            digest = hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).digest()
            first = self._first.setdefault(digest, id)
            if first != id:
                self._same.setdefault(digest, [first]).append(id)

    def shared(self) -> Iterator[list[str]]:
        """Ids that have the same values, two or more together."""
        yield from self._same.values()


def repeats(values: NDArray[Any], frames: Sequence[int]) -> bool:
    """Whether two rows are equal though they are of different frames."""
    seen: dict[bytes, int] = {}
    return any(seen.setdefault(row.tobytes(), frame) != frame for row, frame in zip(values, frames, strict=True))

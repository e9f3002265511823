"""Features: what an encoder made of one sample, and Failure: why it could not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from featurestore.errors import SampleError
from featurestore.recipe import Recipe

if TYPE_CHECKING:  # numpy costs more than the whole of `import featurestore`
    import numpy as np
    from numpy.typing import NDArray

Answer = Literal["memory", "disk", "computed"]


@dataclass(slots=True, eq=False)  # arrays have no single truth
class Features:
    """The features of one sample and where they come from."""

    values: NDArray[np.generic]
    """(n_frames, dim) float16 | float32"""
    frame_indices: NDArray[np.int64] | None = None
    """(n_frames,) 0-based: video frames, rows of a face file, or 16 kHz samples at which windows start"""
    timestamps_s: NDArray[np.float64] | None = None
    """(n_frames,) seconds from the start of the media"""
    provenance: Mapping[str, Any] | None = None
    """JSON: `sources` [{path, size, mtime_ns, sha256}] and the sampler's note"""
    recipe: Recipe | None = None
    """filled in by the store"""
    answer: Answer | None = None
    """filled in by the store: where this answer came from"""

    def __repr__(self) -> str:
        values = self.values
        recipe = self.recipe.fingerprint if self.recipe is not None else None
        return f"Features({values.shape} {values.dtype}, recipe={recipe!r}, answer={self.answer!r})"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the features of one sample cannot be made.

    Only deterministic failures are recorded; a time-out or a full disk may work next time.
    `sources` are those of the media that failed: a record is void when their size or mtime changes.
    """

    reason: str
    message: str
    deterministic: bool = True
    sources: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def of(cls, error: SampleError, sources: Sequence[Mapping[str, Any]] = ()) -> Failure:
        return cls(error.reason, str(error), error.deterministic, tuple(sources))

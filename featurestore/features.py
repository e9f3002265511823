"""Features: what an encoder made of one sample, Failure: why it could not, and Compute: what makes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from featurestore.errors import SampleError, ValuesError
from featurestore.key import FeatureKey, check_id
from featurestore.provenance import legible
from featurestore.recipe import Recipe

if TYPE_CHECKING:  # numpy costs more than the whole of `import featurestore`
    import numpy as np
    from numpy.typing import NDArray

ServedFrom = Literal["memory", "disk", "computed"]


@dataclass(slots=True, eq=False)  # arrays have no single truth
class Features:
    """The features of one sample and where they come from.

    Example:
        >>> Features(np.zeros((8, 768), np.float32), np.arange(8))                      # doctest: +SKIP
        Features((8, 768) float32, recipe=None, served_from=None)
    """

    values: NDArray[np.generic]
    """(n_frames, *item) float16 | float32 | uint8; item is (dim,), (tokens, dim), (layers, dim), ..."""
    frame_indices: NDArray[np.int64] | None = None
    """(n_frames,) 0-based: video frames, rows of a face file, or 16 kHz samples at which windows start"""
    timestamps_s: NDArray[np.float64] | None = None
    """(n_frames,) seconds from the start of the media"""
    provenance: Mapping[str, Any] | None = None
    """JSON: `sources` [{path, size, mtime_ns, sha256}] and the sampler's note"""
    recipe: Recipe | None = None
    """filled in by the store"""
    served_from: ServedFrom | None = None
    """filled in by the store: where the values came from"""
    axes: tuple[str, ...] | None = None
    """names of the axes of an item, e.g. ("token", "feature"); without them `feature`, and `axis_1`, ... before it"""

    def __repr__(self) -> str:
        values = self.values
        recipe = self.recipe.fingerprint if self.recipe is not None else None
        return f"Features({values.shape} {values.dtype}, recipe={recipe!r}, served_from={self.served_from!r})"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the features of one sample cannot be made.

    Only deterministic failures are recorded; a time-out or a full disk may work next time.

    Args:
        reason: A short stable word, e.g. `media`.
        message: What is wrong, for people.
        deterministic: Whether trying again with the same input would fail again.
        sources: [{path, size, mtime_ns}] of the media that failed: a record is void when their size or mtime changes.

    Example:
        >>> Failure("media", "there is no picture in it").deterministic
        True
    """

    reason: str
    message: str
    deterministic: bool = True
    sources: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def of(cls, error: SampleError, sources: Sequence[Mapping[str, Any]] = ()) -> Failure:
        """Make the failure that an error about a sample is.

        Args:
            error: What was raised.
            sources: [{path, size, mtime_ns}] of the media that failed.

        Returns:
            The error's reason, message and whether it is deterministic, with the sources.
        """
        return cls(error.reason, legible(str(error)), error.deterministic, tuple(sources))


class Compute(Protocol):
    """How a miss is made.  `Extractor` is one; so is any object with these two methods.

    Two more are used where it has them: `made_with(key)`, JSON about versions and devices, kept with each segment;
    and `outdated(key, record)`, whether a record of a failure no longer holds.
    """

    def recipe(self, key: FeatureKey) -> Recipe | Mapping[str, Any]:
        """Say what decides the numbers besides the key; cheap, asked once per key and store object.

        Args:
            key: Of the features that are to be made.

        Returns:
            A recipe, or the JSON object of one.
        """

    def __call__(self, key: FeatureKey, ids: Iterable[str]) -> Iterable[tuple[str, Features | Failure]]:
        """Make samples, each as soon as it is ready.

        Args:
            key: Of the features.
            ids: Of the samples: a list from a read, and from `extract` an iterator without a length.

        Yields:
            Each id once, in any order, with its features or why there are none.

        Raises:
            Exception: Only what concerns all ids; a sample that cannot be made is a Failure.
        """


def gathered(
    ids: Sequence[str],
    values: Any,
    frame_indices: Any,
    timestamps_s: Any,
    provenance: Any,
    axes: tuple[str, ...] | None = None,
) -> dict[str, Features]:
    """Columns of N rows as {id: Features}; ValuesError where they are not as long as the ids, or an id comes twice."""
    columns = {"values": values, "frame_indices": frame_indices, "timestamps_s": timestamps_s, "provenance": provenance}
    for name, column in columns.items():
        if column is not None and len(column) != len(ids):
            raise ValuesError(f"{len(ids)} ids, but {len(column)} {name}")
    for id in ids:
        check_id(id)
    for id, count in Counter(ids).most_common(1):
        if count > 1:
            raise ValuesError(f"ids are not unique: {id!r} is given {count} times")
    return {
        id: Features(
            values[row],
            _cast(frame_indices, row, "iu", "int64"),
            _cast(timestamps_s, row, "iuf", "float64"),
            None if provenance is None else provenance[row],
            axes=axes,
        )
        for row, id in enumerate(ids)
    }


def distinct(ids: Sequence[str]) -> dict[str, None]:
    """Each id once, in order; InvalidIdError for what cannot be one, and cannot be compared either."""
    try:
        return dict.fromkeys(ids)
    except TypeError:
        for id in ids:
            check_id(id)
        raise


def _cast(column: Any, row: int, kinds: str, dtype: str) -> Any:
    """One row in the dtype that is kept, where it is of a kind that loses nothing; else as it is, to be refused."""
    if column is None:
        return None
    import numpy as np  # the caller has it loaded; this room is also imported where nothing else needs it

    values = np.asarray(column[row])
    return values.astype(dtype) if values.dtype.kind in kinds else values

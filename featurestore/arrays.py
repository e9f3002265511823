"""Arrays: a feature set as named arrays with coordinates, as packs and xarray have it, read some samples at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import MissingFeatureError, StoreError
from featurestore.key import FeatureKey
from featurestore.storage.feature_set import reading
from featurestore.storage.reader import CorruptRowError, Found
from featurestore.store import FeatureStore

NO_FRAME = int(np.iinfo(np.int64).min)
"""the frame index of a sample that was stored without; no fill value, which would turn frame indices into floats"""
BESIDE = ("frame_index", "timestamp_s", "provenance", "made_in")
"""what is read of the line of a sample, and may be missing"""
COORDINATES = ("id", "offset", "n_frames", *BESIDE)
TAKEN = frozenset((*COORDINATES, "values", "id_utf8", "id_byte"))
"""what an axis of `values` cannot be called as well"""


class Variable(NamedTuple):
    """One array: names and lengths of its axes, and what its elements are."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: Any
    """of numpy; `str` for texts of any length"""


class Arrays:
    """The samples of one feature set as of one look at it, sorted by id.

    Stacked, `values` is (sample, frame, *item).  Ragged, under an `all` key, it is (frame, *item), the samples one
    after the other, with `offset` and `n_frames` of each.  Nothing is read but ids and records until it is asked for.

    Raises MissingFeatureError where nothing is stored, and what says that a recipe is not clear.
    """

    def __init__(self, store: FeatureStore, key: FeatureKey | str, fingerprint: str | None = None) -> None:
        self.ids = store.ids(key, fingerprint=fingerprint)
        feature_set = store.feature_set(key, fingerprint=fingerprint)
        if feature_set is None or not self.ids:
            raise MissingFeatureError(
                f"nothing is stored under {key} in {store.root}",
                advice="`store.keys()` lists what is",
                key=key,
                root=store.root,
            )
        form = feature_set.reader.form
        assert form is not None  # there are samples
        self.feature_set = feature_set
        self.ragged = feature_set.key.n_frames == "all"
        self._found: Found | None = None
        self.n_frames = np.zeros(0, np.int64)
        with reading(feature_set.key):
            self.n_frames = np.array([segment.shape_of(row)[0] for segment, row in self._look()], np.int64)
        self.offset = np.cumsum(self.n_frames) - self.n_frames
        total, samples = int(self.n_frames.sum()), len(self.ids)
        axes = tuple(f"{name}_axis" if name in TAKEN else name for name in form.axes)
        frames = ("frame",) if self.ragged else ("sample", "frame")
        lengths = (total,) if self.ragged else (samples, int(self.n_frames[0]))
        self.variables = {
            "values": Variable(frames + axes, lengths + form.item, form.dtype),
            "id": Variable(("sample",), (samples,), str),
            "frame_index": Variable(frames, lengths, np.dtype(np.int64)),
            "timestamp_s": Variable(frames, lengths, np.dtype(np.float64)),
            "provenance": Variable(("sample",), (samples,), str),
            "made_in": Variable(("sample",), (samples,), str),
        }
        if self.ragged:
            counts = Variable(("sample",), (samples,), np.dtype(np.int64))
            self.variables |= {"offset": counts, "n_frames": counts}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_found": None}  # what is open stays in this process

    def values(self, rows: NDArray[np.int64]) -> list[NDArray[Any]] | NDArray[Any]:
        """Values of some samples, by their positions: one array (k, n_frames, *item), or ragged a list of arrays."""
        reader = self.feature_set.reader
        read: Any = reader.take_ragged if self.ragged else reader.take
        values: list[NDArray[Any]] | NDArray[Any] = self._again(lambda: read(self._look()[rows]))
        return values

    def frames(self, row: int, frames: NDArray[np.int64]) -> NDArray[Any]:
        """Some frames of one sample, (k, *item), in ascending order."""

        def read() -> Any:
            ((segment, at),) = self._look()[[row]]
            return segment.read_frames(at, frames)

        found: NDArray[Any] = self._again(read)
        return found

    def beside(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The four of BESIDE for some samples; those of frames stacked, or ragged one after the other.

        What a sample lacks is NO_FRAME, NaN, or an empty text.  Provenance is JSON in one line.
        """
        lines = self._again(lambda: [segment.line(row) for segment, row in self._look()[rows]])
        counts = self.n_frames[rows].tolist()
        indices = [
            _column(line.get("frame_indices"), n, np.int64, NO_FRAME) for line, n in zip(lines, counts, strict=True)
        ]
        seconds = [
            _column(line.get("timestamps_s"), n, np.float64, np.nan) for line, n in zip(lines, counts, strict=True)
        ]
        joined: Callable[[Sequence[Any]], Any] = np.concatenate if self.ragged else np.stack
        texts = [json.dumps(line["provenance"]) if line.get("provenance") is not None else "" for line in lines]
        return {
            "frame_index": joined(indices),
            "timestamp_s": joined(seconds),
            "provenance": np.array(texts, object),
            "made_in": np.array([line.get("dtype", "") for line in lines], object),
        }

    def _look(self) -> Found:
        """Where all samples are."""
        found = self._found
        if found is None:
            found = self.feature_set.find_all(self.ids)
            gone = np.flatnonzero(found.numbers < 0)
            if len(gone):
                raise self._changed(self.ids[gone[0]])
            if len(self.n_frames):
                for id, count, (segment, row) in zip(self.ids, self.n_frames.tolist(), found, strict=True):
                    if segment.shape_of(row)[0] != count:
                        raise self._changed(id)
            self._found = found
        return found

    def _changed(self, id: str) -> StoreError:
        key = self.feature_set.key
        return StoreError(f"sample {id!r} of {key} was deleted or replaced while it was read: read {key} again")

    def _again(self, read: Callable[[], Any]) -> Any:
        """What a read gives; once more where segments were merged, and removed, since they were looked up."""
        with reading(self.feature_set.key):
            try:
                return read()
            except CorruptRowError:
                raise
            except OSError as error:
                self.feature_set.reader.recover(error)
                self._found = None
                return read()


def _column(numbers: Any, count: int, dtype: Any, missing: float) -> NDArray[Any]:
    return np.full(count, missing, dtype) if numbers is None else np.array(numbers, dtype)

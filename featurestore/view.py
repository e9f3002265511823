"""View: all samples of one feature set as they were at one moment, by id or by position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import StoreError
from featurestore.storage.feature_set import FeatureSet, reading
from featurestore.storage.reader import CorruptRowError, Form, Found


class View(Mapping[str, "NDArray[Any]"]):
    """The samples of one feature set under one snapshot: `FeatureStore.view`.

    What others add, replace or delete does not show.  Nothing is held in memory but where the samples are: a value is
    read when it is asked for.  A segment that was replaced stays readable for the 15 minutes of its grace.

    Example:
        >>> view = store.view("mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8")            # doctest: +SKIP
        >>> len(view), "sample_00000001" in view, view["sample_00000001"].shape         # doctest: +SKIP
        (411, True, (8, 768))
    """

    def __init__(self, feature_set: FeatureSet, ids: Sequence[str], found: Found, count: Callable[[int], None]) -> None:
        self.ids = ids
        """in the order of positions"""
        self._feature_set = feature_set
        self._found = found
        self._count = count
        self._seen = feature_set.reader.seen
        self._form = feature_set.reader.form or Form((0,), np.dtype(np.float32), ("feature",))
        self._positions: dict[str, int] | None = None

    @property
    def is_current(self) -> bool:
        """Whether this process has seen nothing come or go since."""
        return self._feature_set.reader.seen is self._seen

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, id: object) -> bool:
        return id in self._places()

    def __getitem__(self, id: str) -> NDArray[Any]:
        """A fresh, writable array (n_frames, *item); KeyError where the view has no such sample."""
        return self.take_ragged([self._places()[id]])[0]

    def take(self, positions: Any) -> NDArray[Any]:
        """Read samples by their positions among `ids`, as one array.

        Args:
            positions: An array or list of integers.

        Returns:
            (N, n_frames, *item), of a key whose samples have the same number of frames.

        Raises:
            StoreError: Something was removed or damaged since: take a new view.
        """
        batch: NDArray[Any] = self._read(self._feature_set.reader.take, self._found[positions])
        return batch

    def take_ragged(self, positions: Any) -> list[NDArray[Any]]:
        """Read samples by their positions among `ids`, each as an array (n_frames, *item).  Raises as `take`."""
        batch: list[NDArray[Any]] = self._read(self._feature_set.reader.take_ragged, self._found[positions])
        return batch

    def to_numpy(self) -> tuple[NDArray[Any]] | tuple[NDArray[Any], NDArray[np.int64]]:
        """Read all of them: `FeatureStore.to_numpy`."""
        if self._feature_set.key.n_frames != "all":
            return (self.take(np.arange(len(self.ids))),)
        offsets = np.zeros(len(self.ids) + 1, np.int64)
        np.cumsum([segment.shape_of(row)[0] for segment, row in self._found], out=offsets[1:])
        form = self._form

        def read(found: Found) -> NDArray[Any]:
            values = np.empty((int(offsets[-1]), *form.item), form.dtype)
            for (segment, row), start, stop in zip(found, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
                segment.read_into(row, values[start:stop])
            return values

        return self._read(read, self._found), offsets

    def _read(self, read: Callable[[Found], Any], found: Found) -> Any:
        with reading(self._feature_set.key):
            try:
                batch = read(found)
            except (FileNotFoundError, CorruptRowError) as error:
                raise StoreError(
                    f"{self._feature_set.key}: a sample of this view was removed or damaged since it was made "
                    f"({error}); take a new view"
                ) from error
        self._count(len(found))
        return batch

    def _places(self) -> dict[str, int]:
        if self._positions is None:
            self._positions = {id: position for position, id in enumerate(self.ids)}
        return self._positions

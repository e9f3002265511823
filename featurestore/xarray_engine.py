"""Features in xarray: `xarray.open_dataset(STORE, engine="featurestore", group=KEY)`, read when they are looked at."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.arrays import BESIDE, COORDINATES, Arrays
from featurestore.errors import ConfigError, MissingPackageError
from featurestore.store import FeatureStore

try:
    import xarray
    from xarray.backends import BackendArray, BackendEntrypoint
    from xarray.core import indexing
except ModuleNotFoundError as error:
    if error.name != "xarray":
        raise  # xarray is there, and something that it needs is not
    raise MissingPackageError(
        "xarray is not installed; the engine 'featurestore' is a part of it: pip install xarray"
    ) from None


class FeatureStoreBackend(BackendEntrypoint):
    """The engine `featurestore` of xarray.

    Example:
        >>> xarray.open_dataset("features", engine="featurestore", group=key)               # doctest: +SKIP
    """

    description = "Features of a featurestore, one key at a time"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "group")

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
    ) -> xarray.Dataset:
        """Look at what is stored under a key; no values are read.

        Args:
            filename_or_obj: The folder of the store.
            drop_variables: Names of variables to leave out.
            group: The text of the key, with `@PREFIX` of a fingerprint where it has several recipes.

        Returns:
            Variable `values`, coordinates `id` and those of packs.

        Raises:
            ConfigError: No key.
            FeatureStoreError: As reads do.
        """
        if not group:
            raise ConfigError(
                f"say which key of {filename_or_obj} is meant: group='DATASET/MODALITY/ENCODER/SAMPLING/N'"
            )
        key, _, prefix = group.partition("@")
        arrays = Arrays(FeatureStore(os.fspath(filename_or_obj), read_only=True), key, prefix or None)
        dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
        ready = {"id": np.array(arrays.ids, object), "offset": arrays.offset, "n_frames": arrays.n_frames}
        variables = {
            name: xarray.Variable(
                each.dims, ready[name] if name in ready else indexing.LazilyIndexedArray(_Lazy(arrays, name))
            )
            for name, each in arrays.variables.items()
            if name not in dropped
        }
        feature_set = arrays.feature_set
        attributes = {"key": str(feature_set.key), "fingerprint": feature_set.fingerprint}
        dataset = xarray.Dataset(variables, attrs=attributes)
        return dataset.set_coords([name for name in COORDINATES if name in variables])


class _Lazy(BackendArray):
    """One variable, of which only the samples are read that are looked at."""

    def __init__(self, arrays: Arrays, name: str) -> None:
        self.arrays = arrays
        self.name = name
        self.shape = arrays.variables[name].shape
        dtype = arrays.variables[name].dtype
        self.dtype = np.dtype(object if dtype is str else dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        first = np.arange(self.shape[0])[key[0]]
        wanted, places = np.unique(first, return_inverse=True)
        block = self._frames(wanted) if self._is_ragged else self._samples(wanted)
        for axis in range(len(key) - 1, 0, -1):  # from the last one, so that a number takes no axis from the others
            block = block[(slice(None),) * axis + (key[axis],)]
        # Of what was taken once, as often and in the order in which it was asked for.
        taken: NDArray[Any] = block[places.reshape(np.shape(first))]
        return taken

    @property
    def _is_ragged(self) -> bool:
        return self.arrays.variables[self.name].dims[0] == "frame"

    def _samples(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(k, ...) of these samples."""
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)
        found: Any = self.arrays.beside(rows)[self.name] if self.name in BESIDE else self.arrays.values(rows)
        return np.asarray(found)

    def _frames(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """(k, ...) of these frames, ascending among those of all samples."""
        arrays, out = self.arrays, np.empty((len(numbers), *self.shape[1:]), self.dtype)
        which = np.searchsorted(arrays.offset, numbers, "right") - 1
        for row in np.unique(which).tolist():
            slots = np.flatnonzero(which == row)
            frames = numbers[slots] - arrays.offset[row]
            if self.name in BESIDE:
                out[slots] = arrays.beside(np.array([row]))[self.name][frames]
            else:
                out[slots] = arrays.frames(row, frames)
        return out

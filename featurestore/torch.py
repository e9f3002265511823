"""Features in PyTorch: a Dataset, and a loader that reads whole batches in this process.

A stored sample is read in a few microseconds; sending it through a DataLoader worker costs ten times
that.  So `loader` reads in this process and is what to use unless a transform is expensive;
`FeatureDataset` is an ordinary Dataset for everything else.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import ConfigError, MissingFeatureError, MissingPackageError, StoreError, ValuesError
from featurestore.key import FeatureKey
from featurestore.storage.catalog import as_key
from featurestore.store import FeatureStore
from featurestore.view import View

try:
    import torch
    from torch.utils.data import ConcatDataset, Dataset, Subset
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise  # torch is there, and something that it needs is not
    raise MissingPackageError(
        "torch is not installed; featurestore.torch needs it: pip install 'featurestore[encoders]', or torch alone"
    ) from None


class Item(NamedTuple):
    """One sample: what a dataset gives, whichever way it is asked."""

    id: str
    features: torch.Tensor
    """(n_frames, *item)"""


@dataclass
class Batch:
    """Some samples in the order they were drawn."""

    ids: list[str]
    features: torch.Tensor
    """(batch, n_frames, *item); under an `all` key padded with zeros at the end to the longest"""
    lengths: torch.Tensor
    """(batch,) int64: rows of each sample that are not padding"""

    def pin_memory(self) -> Batch:
        """For DataLoader(pin_memory=True)."""
        return Batch(self.ids, self.features.pin_memory(), self.lengths.pin_memory())


class FeatureDataset(Dataset[Item]):
    """The features of `ids`: items (id, tensor (n_frames, *item) in the stored dtype).

    ids           default: all that are stored under the key, sorted
    fingerprint   a unique prefix of it, which says which recipe is read where the key has several
    transform     applied to each tensor
    Raises MissingFeatureError where no `ids` are given and nothing is stored.
    `dataset[3]` is an item; a slice, a list or an array of numbers gives a list of items, read together, and so
    does a DataLoader's request for a batch: give it `collate_fn=dataset.collate` to get a `Batch`.
    May be pickled, forked and spawned.
    """

    def __init__(
        self,
        store: FeatureStore,
        key: FeatureKey | str,
        ids: Sequence[str] | None = None,
        *,
        fingerprint: str | None = None,
        transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.store = store
        self.key = as_key(key)
        self.ids = list(store.ids(self.key, fingerprint=fingerprint) if ids is None else ids)
        if ids is None and not self.ids:
            raise MissingFeatureError(
                f"nothing is stored under {self.key} in {store.root}",
                advice="`store.keys()` lists what is; run `featurestore.extract` first, or pass ids=",
                key=self.key,
                root=store.root,
            )
        self.fingerprint = fingerprint
        self.transform = transform
        self._view: View | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __init_subclass__(cls) -> None:
        # A DataLoader asks for batches; without this it would pass by what a subclass does to an item.
        if "__getitem__" in vars(cls) and "__getitems__" not in vars(cls):
            cls.__getitems__ = _one_by_one  # type: ignore[method-assign, assignment]

    @overload
    def __getitem__(self, index: SupportsIndex) -> Item: ...
    @overload
    def __getitem__(self, index: slice | Iterable[SupportsIndex]) -> list[Item]: ...
    def __getitem__(self, index: SupportsIndex | slice | Iterable[SupportsIndex]) -> Item | list[Item]:
        if type(index) is not int:  # which nearly all are
            if isinstance(index, slice):
                return self.__getitems__(range(len(self.ids))[index])
            if getattr(index, "ndim", 0) or not isinstance(index, SupportsIndex):
                return self.__getitems__(_numbers(index))
        id = self.ids[index]
        tensor = torch.from_numpy(self.store.get(self.key, id, fingerprint=self.fingerprint))
        return Item(id, tensor if self.transform is None else self.transform(tensor))

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[Item]:
        """Items read together: what a DataLoader calls for a batch."""
        ids = [self.ids[index] for index in indices]
        read = self.store.get_ragged if self.key.n_frames == "all" else self.store.get_many
        tensors = map(torch.from_numpy, read(self.key, ids, fingerprint=self.fingerprint))
        return list(map(Item, ids, tensors if self.transform is None else map(self.transform, tensors)))

    def find(self) -> None:
        """Look up where all samples are: `read` does not look them up again while nothing changes."""
        self._view = None
        if self.store.memory_bytes or self.key.n_frames == "all":
            return  # what a tier keeps is not to be read from the disk
        with suppress(MissingFeatureError):  # is computed, or refused, when it is read
            self._view = self.store.view(self.key, self.ids, fingerprint=self.fingerprint)

    def read(self, indices: Sequence[int]) -> NDArray[Any]:
        """Values of several samples, (N, n_frames, *item), without the transform."""
        view = self._view
        if view is not None and view.is_current:
            with suppress(StoreError):  # said below, if it still is so
                return view.take(indices)
        return self.store.get_many(self.key, [self.ids[index] for index in indices], fingerprint=self.fingerprint)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_view": None}

    def collate(self, items: Sequence[Item]) -> Batch:
        """[(id, tensor)] -> Batch.  Raises ValuesError for anything else."""
        return collate(items)


def collate(items: Sequence[Item]) -> Batch:
    """[(id, tensor)] -> Batch, of one dataset or of several whose features have one dim and one dtype.

    Raises ValuesError for anything else.
    """
    for item in items:
        if type(item) is Item and type(item[1]) is torch.Tensor and item[1].ndim:
            continue  # as nearly all are
        if not (isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], str)):
            raise ValuesError(f"collate takes items of a FeatureDataset, (id, tensor), not {_form_of(item)}")
        if not isinstance(item[1], torch.Tensor) or item[1].ndim == 0:
            raise ValuesError(
                f"sample {item[0]!r} is {_form_of(item[1])}, not a tensor of rows; where a transform makes it, give "
                "the DataLoader a collate_fn of your own"
            )
    ids, tensors = [id for id, _ in items], [tensor for _, tensor in items]
    # Lengths are on the CPU, like the features, whatever torch.set_default_device was told.
    if len({tensor.shape for tensor in tensors}) == len({tensor.dtype for tensor in tensors}) == 1:
        return Batch(ids, torch.stack(tensors), torch.full((len(ids),), len(tensors[0]), device="cpu"))
    forms = {(tensor.shape[1:], tensor.dtype): id for id, tensor in items}
    if len(forms) != 1:
        rows = [f"{tuple(shape)} {dtype} ({id!r})" for (shape, dtype), id in forms.items()]
        raise ValuesError(f"no batch can be made of rows of {' and '.join(rows) or 'no samples'}")
    lengths = torch.tensor([len(tensor) for tensor in tensors], device="cpu")
    return Batch(ids, torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True), lengths)


class loader:
    """Batches of a dataset, read in this process.  Iterate it once per epoch.

    dataset   a FeatureDataset, or what PyTorch makes of some: Subset, random_split, ConcatDataset

    for epoch in range(10):
        for batch in loader(dataset, 64, shuffle=True, seed=epoch):
            batch.features          # (64, n_frames, dim)

    seed   of the shuffle: the same seed gives the same order on every machine
    """

    def __init__(
        self,
        dataset: Dataset[Item],
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size {batch_size} is not a positive number of samples")
        if not _is_readable(dataset):
            raise ConfigError(
                f"loader takes a FeatureDataset, or a Subset or ConcatDataset of such, not {_form_of(dataset)}; "
                "give it to a DataLoader"
            )
        self.dataset: Any = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last

    def __len__(self) -> int:
        """Number of batches."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    def __iter__(self) -> Iterator[Batch]:
        n = len(self.dataset)
        order: Any = np.random.default_rng(self.seed).permutation(n) if self.shuffle else range(n)
        for one in _datasets(self.dataset):
            one.find()
        for number in range(len(self)):
            indices = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield self._batch(self.dataset, indices)

    def _batch(self, dataset: Any, indices: Sequence[int]) -> Batch:
        while type(dataset) is Subset:
            dataset, indices = dataset.dataset, [dataset.indices[index] for index in indices]
        if type(dataset) is not FeatureDataset or dataset.transform is not None or dataset.key.n_frames == "all":
            return collate(_items(dataset, indices))
        values = dataset.read(indices)  # one array, no stacking of a batch that already is one
        ids = [dataset.ids[index] for index in indices]
        return Batch(ids, torch.from_numpy(values), torch.full((len(ids),), values.shape[1], device="cpu"))


def _is_readable(dataset: Dataset[Item]) -> bool:
    # Of exactly these types: a subclass may do something to its items.
    if type(dataset) is Subset:
        return _is_readable(dataset.dataset)
    if type(dataset) is ConcatDataset:
        return all(map(_is_readable, dataset.datasets))
    return isinstance(dataset, FeatureDataset)


def _datasets(dataset: Any) -> Iterator[FeatureDataset]:
    """The FeatureDatasets in what a loader takes."""
    if isinstance(dataset, FeatureDataset):
        yield dataset
        return
    for one in dataset.datasets if type(dataset) is ConcatDataset else [dataset.dataset]:
        yield from _datasets(one)


def _items(dataset: Dataset[Item], indices: Sequence[int]) -> list[Item]:
    """Items of a dataset in the order of the indices, with one read for each FeatureDataset in it."""
    if isinstance(dataset, FeatureDataset):
        return dataset.__getitems__(indices)
    if type(dataset) is Subset:
        return _items(dataset.dataset, [dataset.indices[index] for index in indices])
    joined: Any = dataset  # a ConcatDataset
    ends = joined.cumulative_sizes
    parts = [bisect_right(ends, index) for index in indices]
    found: list[Any] = [None] * len(parts)
    for part in sorted(set(parts)):
        places = [place for place, own in enumerate(parts) if own == part]
        start = ends[part - 1] if part else 0
        items = _items(joined.datasets[part], [indices[place] - start for place in places])
        for place, item in zip(places, items, strict=True):
            found[place] = item
    return found


def _one_by_one(dataset: FeatureDataset, indices: Sequence[SupportsIndex]) -> list[Item]:
    return [dataset[index] for index in indices]


def _numbers(index: Any) -> list[SupportsIndex]:
    numbers = index.tolist() if hasattr(index, "tolist") else [*index] if isinstance(index, Iterable) else [index]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, SupportsIndex):
            raise ValuesError(
                f"a dataset is asked by numbers, not by {_form_of(number)}: of a mask pass numpy.flatnonzero(mask), "
                "of an id dataset.ids.index(id)"
            )
    return numbers


def _form_of(value: object) -> str:
    """For messages: dtype and shape of a tensor or an array, the type of anything else."""
    shape = getattr(value, "shape", None)
    form = type(value).__name__
    return form if shape is None else f"a {form} of {getattr(value, 'dtype', '')} {tuple(shape)}"

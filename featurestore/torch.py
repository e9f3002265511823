"""Features in PyTorch: a Dataset, and a loader that reads whole batches in this process.

A stored sample is read in a few microseconds; sending it through a DataLoader worker costs ten times
that.  So `loader` reads in this process and is what to use unless a transform is expensive;
`FeatureDataset` is an ordinary Dataset for everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from featurestore.catalog import as_key
from featurestore.errors import ConfigError, MissingFeatureError
from featurestore.key import FeatureKey
from featurestore.store import FeatureStore


@dataclass
class Batch:
    """Some samples in the order they were drawn."""

    ids: list[str]
    features: torch.Tensor
    """(batch, n_frames, dim); under an `all` key padded with zeros at the end to the longest"""
    lengths: torch.Tensor
    """(batch,) int64: rows of each sample that are not padding"""

    def pin_memory(self) -> Batch:
        """For DataLoader(pin_memory=True)."""
        return Batch(self.ids, self.features.pin_memory(), self.lengths.pin_memory())


class FeatureDataset(Dataset[torch.Tensor]):
    """The features of `ids`, each a tensor (n_frames, dim) in the stored dtype.

    ids         default: all that are stored under the key, sorted
    transform   applied to each tensor
    Raises MissingFeatureError where no `ids` are given and nothing is stored.
    A DataLoader fetches a batch with one read (`__getitems__`); give it `collate_fn=dataset.collate`
    to get a `Batch`.  May be pickled, forked and spawned.
    """

    def __init__(
        self,
        store: FeatureStore,
        key: FeatureKey | str,
        ids: Sequence[str] | None = None,
        *,
        recipe: str | None = None,
        transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.store = store
        self.key = as_key(key)
        self.ids = list(store.ids(self.key, recipe=recipe) if ids is None else ids)
        if ids is None and not self.ids:
            raise MissingFeatureError(
                f"nothing is stored under {self.key} in {store.root}: run `fstore extract` first, or look with "
                "`fstore ls` how the key is spelt, or pass ids="
            )
        self.recipe = recipe
        self.transform = transform

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> torch.Tensor:
        tensor = torch.from_numpy(self.store.get(self.key, self.ids[index], recipe=self.recipe))
        return tensor if self.transform is None else self.transform(tensor)

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[str, torch.Tensor]]:
        """[(id, tensor)] read together: what a DataLoader calls for a batch."""
        ids = [self.ids[index] for index in indices]
        values = self.store.get_many(self.key, ids, recipe=self.recipe)
        tensors = map(torch.from_numpy, values)
        return list(zip(ids, tensors if self.transform is None else map(self.transform, tensors), strict=True))

    def collate(self, items: Sequence[tuple[str, torch.Tensor]]) -> Batch:
        """[(id, tensor)] -> Batch."""
        ids, tensors = [id for id, _ in items], [tensor for _, tensor in items]
        lengths = torch.tensor([len(tensor) for tensor in tensors])
        if len(set(lengths.tolist())) <= 1:
            return Batch(ids, torch.stack(tensors), lengths)
        return Batch(ids, torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True), lengths)


class loader:
    """Batches of a dataset, read in this process.  Iterate it once per epoch.

    for epoch in range(10):
        for batch in loader(dataset, 64, shuffle=True, seed=epoch):
            batch.features          # (64, n_frames, dim)

    seed   of the shuffle: the same seed gives the same order on every machine
    """

    def __init__(
        self,
        dataset: FeatureDataset,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size {batch_size} is not a positive number of samples")
        self.dataset = dataset
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
        for number in range(len(self)):
            indices = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield self._batch(indices)

    def _batch(self, indices: Sequence[int]) -> Batch:
        dataset = self.dataset
        if dataset.transform is not None or dataset.key.n_frames == "all":
            return dataset.collate(dataset.__getitems__(indices))
        # One array, no stacking of a batch that already is one.
        ids = [dataset.ids[index] for index in indices]
        values: Any = dataset.store.get_many(dataset.key, ids, recipe=dataset.recipe)
        return Batch(ids, torch.from_numpy(values), torch.full((len(ids),), values.shape[1]))

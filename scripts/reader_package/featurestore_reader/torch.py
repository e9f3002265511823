"""A store as a PyTorch `Dataset`: items (id, tensor), and a `collate` that pads.

dataset = FeatureDataset("features", "mer2026/audio/chinese-hubert-large/utterance/1", ids)
for ids, features, lengths in DataLoader(dataset, 64, shuffle=True, collate_fn=collate): ...
"""

from __future__ import annotations

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from featurestore_reader.reader import open_key


class Batch(NamedTuple):
    """Some samples in the order they were drawn."""

    ids: List[str]
    features: torch.Tensor  # (batch, n_frames, *item), padded with zeros at the end to the longest
    lengths: torch.Tensor  # (batch,) int64: rows of each sample that are not padding


class FeatureDataset(Dataset):  # type: ignore[type-arg]
    """The features of `ids`, or of all that are stored, sorted: items (id, tensor (n_frames, *item)).

    Raises LookupError for samples that are not stored, at once rather than in a worker.
    """

    def __init__(
        self, store: str, key: str, ids: Optional[Sequence[str]] = None, fingerprint: Optional[str] = None
    ) -> None:
        self.reader = open_key(store, key, fingerprint)
        self.ids = self.reader.ids() if ids is None else list(ids)
        absent = [id for id in self.ids if id not in self.reader]
        if absent or not self.ids:
            what = f"{len(absent)} of {len(self.ids)} ids are not stored, e.g. {absent[0]!r}" if absent else "no ids"
            raise LookupError(f"{what}, under {key} in {store!r}; open_key(store, key).ids() lists those that are")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Tuple[str, torch.Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> List[Tuple[str, torch.Tensor]]:
        """Read together: what a DataLoader of PyTorch 2 calls for a batch."""
        ids = [self.ids[index] for index in indices]
        return list(zip(ids, map(torch.from_numpy, self.reader.get_ragged(ids))))


def collate(items: Sequence[Tuple[str, Any]]) -> Batch:
    """[(id, tensor)] -> Batch."""
    ids, tensors = [id for id, _ in items], [tensor for _, tensor in items]
    return Batch(ids, pad_sequence(tensors, batch_first=True), torch.tensor([len(tensor) for tensor in tensors]))

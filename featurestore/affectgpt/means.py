"""Means: which utterances are the mean of the frames that lie in a folder beside theirs, to the bit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.affectgpt.intake import Batch
from featurestore.affectgpt.tree import FeatureFolder


class Means:
    """The means of the folders of frames of a tree, by sample; frames have to be seen before their utterances."""

    def __init__(self, folders: Sequence[FeatureFolder]) -> None:
        frames = {_of(folder): folder.name for folder in folders if _is(folder, "frames")}
        self.frames_of = {
            folder.name: frames[_of(folder)]
            for folder in folders
            if _is(folder, "utterance") and _of(folder) in frames and folder.model and folder.model.mean_of
        }
        """folder of utterances -> folder of the frames they should be the mean of"""
        self._wanted = set(self.frames_of.values())
        self._means: dict[str, dict[str, bytes]] = {}

    def see_frames(self, folder: FeatureFolder, batch: Batch) -> None:
        """One batch of a folder of frames; those that have no utterances are passed over."""
        if folder.name in self._wanted:
            found = self._means.setdefault(folder.name, {})
            for id, values in batch.rows().items():
                found[id] = digest(mean_of(values))

    def of(self, folder: FeatureFolder) -> dict[str, bytes]:
        """Digests of the means that belong to a folder of utterances, by sample."""
        return self._means.get(self.frames_of.get(folder.name, ""), {})

    def equal(self, folder: FeatureFolder, batch: Batch) -> int:
        """How many utterances of a batch are the mean of their frames."""
        means = self.of(folder)
        return sum(means.get(id) == digest(row[0]) for id, row in batch.rows().items()) if means else 0


def mean_of(frames: NDArray[Any]) -> NDArray[Any]:
    """(dim,): frames averaged as the published scripts do, in their own dtype."""
    mean: NDArray[Any] = np.mean(frames, axis=0)
    return mean


def digest(values: NDArray[Any]) -> bytes:
    """What two arrays of one dtype have in common where they have the same bits."""
    return hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).digest()


def _of(folder: FeatureFolder) -> tuple[str, str, str]:
    return folder.key.parts[:3]


def _is(folder: FeatureFolder, level: str) -> bool:
    return folder.model is not None and folder.model.level == level

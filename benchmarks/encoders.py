"""Encoders that cost nothing, to see what everything around an encoder costs."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Free:
    """The first 768 bytes of each image as numbers."""

    modality = "frame"
    version = 1
    dim = 768
    size = (224, 224)

    def __init__(self, weights: str | None, device: str | None) -> None:
        self.weights = weights

    def config(self) -> dict[str, Any]:
        return {"free": True}

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return batch.reshape(len(batch), -1)[:, : self.dim].astype(np.float32)


class FreeSound(Free):
    """Windows of sound by their first 1024 numbers, at no cost."""

    modality = "audio"
    dim = 1024

    def encode(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return batch[:, : self.dim].astype(np.float32)


class FreeText(Free):
    """Descriptions by their lengths, at no cost."""

    modality = "au"
    dim = 512

    def encode(self, batch: Any) -> NDArray[np.float32]:
        return np.full((len(batch), self.dim), [[len(text)] for text in batch], np.float32)


class Slow(Free):
    """One that takes as long as decoding does: what `tests/test_guard.py` must notice."""

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        time.sleep(0.02 * len(batch))
        return super().encode(batch)

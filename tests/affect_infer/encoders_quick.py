"""Encoders for the tests of the loop: as wide as the tiny model wants, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore import register_encoder

NAMES = {"visual": "QUICK_PIXELS", "acoustic": "QUICK_SOUND", "au": "QUICK_TEXT"}


def register() -> None:
    """Make them known under the names above."""
    for name, own in zip(NAMES.values(), ("QuickPixels", "QuickSound", "QuickText"), strict=True):
        register_encoder(name, f"encoders_quick:{own}")


class _Quick:
    version = 1

    def __init__(self, weights: str | None, device: str | None) -> None:
        self.weights = weights

    def config(self) -> dict[str, Any]:
        return {"quick": self.weights or ""}


class QuickPixels(_Quick):
    """Means of 24 parts of a picture, in 0 to 1."""

    modality, dim, size = "frame", 24, (16, 16)

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        parts = batch.reshape(len(batch), 24, -1).mean(-1)
        return (parts / 255 + (0.25 if self.weights else 0)).astype(np.float32)


class QuickSound(_Quick):
    """Root mean squares of 32 parts of a window."""

    modality, dim = "audio", 32

    def encode(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.sqrt((batch.reshape(len(batch), 32, -1) ** 2).mean(-1)).astype(np.float32)


class QuickText(_Quick):
    """Sixteen bytes of the digest of a text, in 0 to 1."""

    modality, dim = "au", 16

    def encode(self, batch: Sequence[str]) -> NDArray[np.float32]:
        digests = [hashlib.sha256(text.encode()).digest()[:16] for text in batch]
        return np.array([list(digest) for digest in digests], np.float32) / 255

"""Encoders for tests: so small that the right numbers are known, and some that misbehave on purpose."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class MeanColour:
    """The mean of each channel of an image, (n, 3) float32 in 0 to 255."""

    modality = "frame"
    version = 1
    dim = 3
    size = (48, 64)

    def __init__(self, weights: str | None, device: str | None) -> None:
        self.weights = weights
        self.device = device

    def config(self) -> dict[str, Any]:
        return {"mean": "rgb"}

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert batch.dtype == np.uint8
        assert batch.shape[1:] == (48, 64, 3)
        return batch.mean(axis=(1, 2)).astype(np.float32)


class Logged(MeanColour):
    """Writes a line per call to the file named by ENCODE_LOG: how many images went through together."""

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with open(os.environ["ENCODE_LOG"], "a") as file:
            file.write(f"{len(batch)}\n")
        return super().encode(batch)


class Sleepy(Logged):
    """Takes a tenth of a second per call, so that a test can come between."""

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        time.sleep(0.1)
        return super().encode(batch)


class OneBuffer(MeanColour):
    """Hands out the same array at every call."""

    buffer = np.empty((1024, 3), np.float32)

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.buffer[: len(batch)] = super().encode(batch)
        return self.buffer[: len(batch)]


class WrongDim(MeanColour):
    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return super().encode(batch)[:, :2]


class WrongCount(MeanColour):
    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return super().encode(batch)[:-1]


class WrongDtype(MeanColour):
    def encode(self, batch: NDArray[np.uint8]) -> NDArray[Any]:
        return super().encode(batch).astype(np.float64)


class Overflow(MeanColour):
    """Fits float32, not float16."""

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return super().encode(batch) * 1e4


class Marked(MeanColour):
    """Raises, or makes NaN, for the clip whose first frame has the mean that RAISE_AT or NAN_AT says."""

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = super().encode(batch)
        for name in ("RAISE_AT", "NAN_AT"):
            mark = os.environ.get(name)
            hit = np.abs(values[:, 0] - float(mark)) < 1e-4 if mark else np.zeros(len(values), bool)
            if hit.any() and name == "RAISE_AT":
                raise RuntimeError("this picture is not to my taste")
            values[hit] = np.nan
        return values


NAMES = {
    name: f"{Path(__file__).stem}:{name}"
    for name in (
        "MeanColour",
        "Logged",
        "Sleepy",
        "OneBuffer",
        "WrongDim",
        "WrongCount",
        "WrongDtype",
        "Overflow",
        "Marked",
    )
}

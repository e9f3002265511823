"""Encoders for tests: so small that the right numbers are known, and some that misbehave on purpose."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.encoders.contract import made_up
from featurestore.errors import WeightsNotFoundError


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


class Wide(MeanColour):
    """Takes images of 147 KiB."""

    size = (224, 224)

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return batch[:, ::16, ::16].mean(axis=(1, 2)).astype(np.float32)


class Logged(MeanColour):
    """Writes a line per call to the file named by ENCODE_LOG: how many images went through together.

    Those with which every encoder is tried are no images of a sample.
    """

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        if not np.array_equal(batch, made_up(self)):
            with open(os.environ["ENCODE_LOG"], "a", encoding="utf-8") as file:
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


class WrongLater(MeanColour):
    """Right when it is tried, and wrong with the pictures of samples."""

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = super().encode(batch)
        return values if np.array_equal(batch, made_up(self)) else values[:, :2]


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


class Breaking(MeanColour):
    """Breaks what an encoder must keep, as BREAK says, for the clip that has a picture with the means BREAK_AT."""

    def encode(self, batch: NDArray[np.uint8]) -> Any:
        values = super().encode(batch)
        mark = np.array(os.environ["BREAK_AT"].split(), np.float32)
        if not (np.abs(values - mark) < 1e-4).all(axis=1).any():
            return values
        ways = {
            "a row too few": lambda: values[:-1],
            "a row too many": lambda: np.concatenate([values, values[:1]]),
            "no rows": lambda: values[:0],
            "one mean of all": lambda: values.mean(axis=0),
            "nothing": lambda: None,
            "a list": values.tolist,
            "whole numbers": lambda: values.astype(np.int64),
            "no numbers": lambda: values * np.nan,
            "raises": lambda: {}["a name that is not there"],
            "lacks its weights": self.lacks,
        }
        return ways[os.environ["BREAK"]]()

    def lacks(self) -> None:
        raise WeightsNotFoundError("the weights went away")


NAMES = {
    name: f"{Path(__file__).stem}:{name}"
    for name in (
        "MeanColour",
        "Logged",
        "Sleepy",
        "OneBuffer",
        "WrongDim",
        "WrongCount",
        "WrongLater",
        "WrongDtype",
        "Overflow",
        "Marked",
        "Breaking",
    )
}

"""Encoders whose numbers follow from what they are given, and that misbehave where the environment says so."""

from __future__ import annotations

import ctypes
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore import register_encoder
from featurestore.encoders.contract import made_up

DIM = 8
NAME = "TORTURE_TEXTS"


def row_of(text: str, weights: str = "") -> NDArray[np.float32]:
    """(8,) that no other text has."""
    raw = hashlib.shake_128(f"{weights}\0{text}".encode()).digest(DIM)
    return np.frombuffer(raw, np.uint8).astype(np.float32)


class Texts:
    """(n, 8) float32 of n texts.  A text is needed for the au modality only, which takes no decode workers.

    ENCODE_LOG   a file that gets a line per text
    MISBEHAVE    `WORD@TEXT`: what happens when a text comes along: `hang`, `crash`
    The weights are a file whose content changes every number.
    """

    modality = "au"
    version = 1
    dim = DIM

    def __init__(self, weights: str | None, device: str | None) -> None:
        self.weights = weights

    def config(self) -> dict[str, Any]:
        return {"made": "of texts"}

    def encode(self, batch: Sequence[str]) -> NDArray[np.float32]:
        what, _, where = os.environ.get("MISBEHAVE", "").partition("@")
        with open(os.environ["ENCODE_LOG"], "ab", buffering=0) as log:
            for text in batch if batch != made_up(self) else ():  # that one is only a trial
                log.write(f"{text}\n".encode())
                time.sleep(0.001)
                if text == where and what == "hang":
                    time.sleep(3600)
                elif text == where and what == "crash":
                    ctypes.string_at(0)  # SIGSEGV, as of a bug in compiled code
        weights = Path(self.weights).read_text(encoding="utf-8") if self.weights else ""
        return np.stack([row_of(text, weights) for text in batch])


register_encoder(NAME, f"{__name__}:Texts")

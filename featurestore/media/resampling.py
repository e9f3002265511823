"""Resampling: parts of a sound, each with a rate and channels of its own, become one at 16 kHz and mono.

Block by block, so that the result is all that grows; the numbers are those of resampling all at once.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import MediaError, MissingPackageError

SAMPLE_RATE_HZ = 16_000
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 768_000
_BLOCK = 1 << 16  # samples that are resampled at a time


class Mono:
    """Sound at 16 kHz that grows by what is added.

    Attributes:
        seconds: how long it is, exactly.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = Fraction(0)
        self._samples = bytearray()  # grows in place, and leaves what it may still need untouched
        self._kind = (SAMPLE_RATE_HZ, 1)
        self._resampler: Any = None
        self._waiting: list[NDArray[np.float32]] = []
        self._count = 0

    def add(self, block: NDArray[np.float32], rate: int) -> None:
        """Samples (channels, n) that follow.  Raises MediaError if they are none, or are more than stereo."""
        if (rate, len(block)) != self._kind:
            self._end_part()
            self._begin_part(rate, len(block))
        self._waiting.append(block)
        self._count += block.shape[1]
        self.seconds += Fraction(block.shape[1], rate)
        if self._count >= _BLOCK:
            self._resample()

    def add_silence(self, seconds: Fraction) -> None:
        rate, channels = self._kind
        for at in range(0, count := round(seconds * rate), _BLOCK):
            self.add(np.zeros((channels, min(_BLOCK, count - at)), np.float32), rate)

    def finish(self, least: int) -> NDArray[np.float32]:
        """(n,) all that was added, and silence up to at least so many samples."""
        self._end_part()
        self._samples.extend(bytes(max(4 * least - len(self._samples), 0)))
        return np.frombuffer(self._samples, np.float32)

    def _begin_part(self, rate: int, channels: int) -> None:
        if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
            raise MediaError(
                f"{self.path} says that it has {rate} samples a second; {MIN_RATE_HZ} to {MAX_RATE_HZ} are read: its "
                "header is damaged, or it is no sound",
                self.path,
            )
        if channels > 2:
            what = "mix it to stereo or mono first, e.g. ffmpeg -ac 1"
            raise MediaError(f"{self.path} has {channels} channels; {what}", self.path)
        self._kind = rate, channels
        self._resampler = None
        if rate != SAMPLE_RATE_HZ:
            try:
                import soxr  # costs time, which importing this module must not
            except ImportError as error:
                raise MissingPackageError("reading sound needs soxr: pip install 'featurestore[encoders]'") from error
            self._resampler = soxr.ResampleStream(rate, SAMPLE_RATE_HZ, channels, dtype="float32", quality="HQ")

    def _end_part(self) -> None:
        self._resample(last=True)
        # Rounded up, as torchaudio does; soxr leaves the last one out for some rates.
        size = 4 * ceil(self.seconds * SAMPLE_RATE_HZ)
        del self._samples[size:]
        self._samples.extend(bytes(size - len(self._samples)))

    def _resample(self, last: bool = False) -> None:
        channels = self._kind[1]
        sound = np.concatenate([np.empty((channels, 0), np.float32), *self._waiting], axis=1).T
        self._waiting, self._count = [], 0
        if not np.isfinite(sound).all():
            raise MediaError(f"{self.path} holds samples that are NaN or infinite", self.path)
        if self._resampler is not None:
            sound = self._resampler.resample_chunk(np.ascontiguousarray(sound), last=last)
        mono = sound.mean(axis=1) if channels == 2 else sound[:, 0]
        self._samples.extend(np.ascontiguousarray(mono).data.cast("B"))

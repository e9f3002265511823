"""Samplers that look at nothing but how much there is, and at the id."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from fractions import Fraction

from featurestore.errors import ConfigError, SamplingError
from featurestore.sample import Sample

SAMPLE_RATE_HZ = 16_000
WINDOW_SECONDS = 2


def uniform(sample: Sample, total: int, n_frames: int | str) -> Sequence[int]:
    """Frames at equal distances from the first on: floor(i * total / n); the last is never taken.

    (45, 8) -> 0 5 11 16 22 28 33 39.  Fewer frames than wanted: all, and the last again, (5, 8) -> 0 1 2 3 4 4 4 4.
    "all" takes every frame.
    Source: AffectGPT, video_processor.py, load_video and load_face.
    """
    if n_frames == "all":
        return range(total)
    n = count_of(n_frames, "uniform")
    taken = min(n, total)
    return padded([i * total // taken for i in range(taken)], n)


def headtail(sample: Sample, total: int, n_frames: int | str) -> Sequence[int]:
    """As many random frames of the first half as of the second, in order of time.

    The same id always gets the same ones, on every machine: the generator is seeded with a digest of the id.
    An odd number has one less, and the last is taken twice, as in AffectGPT, which does not seed.
    """
    n = count_of(n_frames, "headtail")
    half = min(n, total) // 2
    if half == 0:
        raise SamplingError(f"sample {sample.id!r}: headtail takes at least one frame of each half, of {total} in all")
    seed = int.from_bytes(hashlib.sha256(sample.id.encode()).digest(), "big")
    generator = random.Random(seed)  # its `random()` is promised to give the same in later Pythons
    order = sorted(range(total), key=lambda _: generator.random())
    head = sorted([i for i in order if i < total // 2][:half])
    tail = sorted([i for i in order if i >= total // 2][:half])
    return padded(head + tail, n)


def const_clips(sample: Sample, total: int, n_frames: int | str) -> Sequence[int]:
    """First samples of n windows of two seconds at equal distances: window i starts at i * (seconds - 2) / n.

    10 s -> 0 16000 32000 ... 112000.  The duration is a float, and from there on all is exact, as in
    pytorchvideo 0.1.5 (ConstantClipsPerVideoSampler), which AffectGPT uses: another rounding starts one in
    thirty windows one sample later.
    """
    n = count_of(n_frames, "const_clips")
    latest = Fraction(max(total / SAMPLE_RATE_HZ - WINDOW_SECONDS, 0.0))
    return [int(latest / n * i * SAMPLE_RATE_HZ) for i in range(n)]


def au_summary(sample: Sample, total: int, n_frames: int | str) -> Sequence[int]:
    """Every description, in the order of its frame."""
    every(n_frames)
    return range(total)


def padded(indices: list[int], n: int) -> list[int]:
    """The last index again until there are n: [0, 1, 2], 5 -> [0, 1, 2, 2, 2]."""
    return indices + indices[-1:] * (n - len(indices))


def two_halves(n_frames: int | str) -> None:
    """ConfigError for a number that is not two at least: headtail takes one of each half."""
    if count_of(n_frames, "headtail") < 2:
        raise ConfigError(f"headtail takes frames of both halves: use a key that ends in /2 or more, not /{n_frames}")


def every(n_frames: int | str) -> None:
    """ConfigError for a number: au_summary takes all there are."""
    if n_frames != "all":
        raise ConfigError(f"au_summary gives a row for each description: use a key that ends in /all, not /{n_frames}")


def count_of(n_frames: int | str, sampling: str) -> int:
    """`n_frames` as a number; ConfigError for "all"."""
    if not isinstance(n_frames, int):
        raise ConfigError(f"{sampling} needs a number of frames, e.g. a key that ends in /8, not /{n_frames}")
    return n_frames

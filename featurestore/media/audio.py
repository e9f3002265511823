"""Sound as the speech encoders take it: mono, 16 kHz, at least two seconds, cut into windows of two seconds.

As in AffectGPT (ImageBind/data.py): resampled first, then averaged to mono if there are exactly two
channels, padded with silence to two seconds.  It resamples with torchaudio's kernel; here it is soxr HQ,
which is cleaner, and a file that is at 16 kHz, as MER's are, is not resampled by either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import MediaError
from featurestore.media.audio_track import Soundtrack
from featurestore.media.container import opened_audio, out_of_memory
from featurestore.media.extent import parts_of
from featurestore.media.parts import Part
from featurestore.media.resampling import SAMPLE_RATE_HZ, Mono
from featurestore.media.source import Reading, Span, check_unchanged, opened_file, source_of

WINDOW = 2 * SAMPLE_RATE_HZ
"""samples in a window"""


@dataclass(frozen=True)
class Audio:
    samples: NDArray[np.float32]
    """(n,) mono, 16 kHz, in [-1, 1]; n >= 32000"""
    source: dict[str, Any]
    """{path, size, mtime_ns, sha256}"""
    cut_off: bool = False
    """it ends or begins in the middle of a packet, and states no length that would tell how much is missing"""


def audio_recipe() -> dict[str, Any]:
    """What decides the samples besides the file."""
    return {
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "resample": "soxr HQ",
        "mono": "mean of two channels",
        "pad": "zeros to 2 s",
    }


def read_audio(path: str | Path) -> Audio:
    """All the sound of a file of sound, or of a video's best audio stream.

    Raises MediaError if the file is missing, empty, shorter than it says, damaged or changed meanwhile, has no
    audio, holds NaN or infinity, or has more than two channels (a mix of 5.1 would be a guess).
    """
    path = Path(path)
    mono = Mono(path)
    try:
        with opened_file(path) as (file, status):
            reading = Reading(file, path, digest=True)
            cut_off = False
            for part in parts_of(path, reading, status.st_size):
                cut_off |= _read(path, reading, part, mono)
            source = source_of(path, status, reading.sha256())
        samples = mono.finish(WINDOW)
    except MemoryError as error:
        raise out_of_memory(path) from error
    check_unchanged(source)
    if not mono.seconds:
        raise MediaError(f"{path} holds no sound: 0 samples", path)
    return Audio(samples, source, cut_off)


def _read(path: Path, reading: Reading, part: Part, mono: Mono) -> bool:
    """Add a part of a file to the sound: whether a packet at its end is incomplete, and was left out."""
    span = Span(reading, part.spans)
    with opened_audio(path, span) as (container, stream):
        if stream.codec_context.name.startswith("pcm"):
            reading.most_zeros = None  # they are silence
        track = Soundtrack(path, part, span, container, stream, mono)
        track.decode()
    return track.incomplete


def audio_windows(samples: NDArray[np.float32], starts: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
    """Windows of two seconds that start at these samples: (windows, 32000).  Raises MediaError past the end."""
    first = np.asarray(starts, np.int64)
    if first.size == 0 or first.min() < 0 or first.max() + WINDOW > len(samples):
        raise MediaError(f"windows of {WINDOW} samples at {first.tolist()} do not fit into {len(samples)} samples")
    return np.stack([samples[start : start + WINDOW] for start in first])

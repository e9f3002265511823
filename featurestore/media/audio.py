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

from featurestore.errors import MediaError, MissingPackageError
from featurestore.media.container import import_av, opened_audio
from featurestore.media.source import TOLERANCE_S, file_source

SAMPLE_RATE_HZ = 16_000
WINDOW = 2 * SAMPLE_RATE_HZ
"""samples in a window"""
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 768_000
MAX_CHUNKS = 10_000  # of a wav before its sound
_BLOCK = 1 << 20  # samples read at a time
_UNKNOWN_FORMAT = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT: not sound alone, so perhaps a video
_UNKNOWN_LENGTH = (0, 0xFFFFFFFF)  # as programs write that cannot seek back to the header


@dataclass(frozen=True)
class Audio:
    samples: NDArray[np.float32]
    """(n,) mono, 16 kHz, in [-1, 1]; n >= 32000"""
    source: dict[str, Any]
    """{path, size, mtime_ns, sha256}"""


def audio_recipe() -> dict[str, Any]:
    """What decides the samples besides the file."""
    return {
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "resample": "soxr HQ",
        "mono": "mean of two channels",
        "pad": "zeros to 2 s",
    }


def read_audio(path: str | Path) -> Audio:
    """All the sound of a wav, flac or mp3, or of a video's best audio stream.

    Raises MediaError if the file is missing, empty, cut off, has no audio, holds NaN or infinity, or has
    more than two channels (a mix of 5.1 would be a guess).
    """
    path = Path(path)
    try:
        return _read_mono(path)
    except MemoryError as error:
        failed = MediaError(f"{path} needs more memory than this process may have", path)
        failed.deterministic = False
        raise failed from error


def _read_mono(path: Path) -> Audio:
    source = file_source(path)
    _check_complete(path, source["size"])
    sound, rate = _read(path)
    if len(sound) == 0:
        raise MediaError(f"{path} holds no sound: 0 samples", path)
    if not np.isfinite(sound).all():
        raise MediaError(f"{path} holds samples that are NaN or infinite", path)
    channels = sound.shape[1]
    if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
        raise MediaError(
            f"{path} says that it has {rate} samples a second; {MIN_RATE_HZ} to {MAX_RATE_HZ} are read: its header is "
            "damaged, or it is no sound",
            path,
        )
    if channels > 2:
        raise MediaError(f"{path} has {channels} channels; mix it to stereo or mono first, e.g. ffmpeg -ac 1", path)
    sound = _resample(sound, rate)
    mono = sound.mean(axis=1) if channels == 2 else sound[:, 0]
    samples = np.zeros(max(len(mono), WINDOW), np.float32)
    samples[: len(mono)] = mono
    return Audio(samples, source)


def audio_windows(samples: NDArray[np.float32], starts: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
    """Windows of two seconds that start at these samples: (windows, 32000).  Raises MediaError past the end."""
    first = np.asarray(starts, np.int64)
    if first.size == 0 or first.min() < 0 or first.max() + WINDOW > len(samples):
        raise MediaError(f"windows of {WINDOW} samples at {first.tolist()} do not fit into {len(samples)} samples")
    return np.stack([samples[start : start + WINDOW] for start in first])


def _read(path: Path) -> tuple[NDArray[np.float32], int]:
    """((samples, channels) float32, sample rate in Hz)."""
    try:
        import soundfile  # these cost 0.1 s, which importing this module must not
    except ImportError as error:
        raise _missing(error) from error
    try:
        with soundfile.SoundFile(path) as file:
            announced, rate = file.frames, file.samplerate
            # In blocks: a header may announce any number of samples, and the memory for all would be asked for at once.
            blocks = [file.read(_BLOCK, "float32", always_2d=True)]
            while len(blocks[-1]) == _BLOCK:
                blocks.append(file.read(_BLOCK, "float32", always_2d=True))
        sound = np.concatenate(blocks)
    except soundfile.LibsndfileError as error:
        if error.code == _UNKNOWN_FORMAT:
            return _read_container(path)
        raise MediaError(f"{path} cannot be read as sound: {error.error_string}", path) from error
    if len(sound) < announced:
        raise _cut_off(path, f"{announced} samples", f"{len(sound)}")
    return sound, rate


def _read_container(path: Path) -> tuple[NDArray[np.float32], int]:
    av = import_av()
    with opened_audio(path) as (container, stream):
        planar = av.AudioResampler(format="fltp")  # the number format only; rate and channels stay
        decoded = (frame for packet in container.demux(stream) for frame in stream.decode(packet))
        frames = [wide for frame in decoded for wide in planar.resample(frame)]
        frames += planar.resample(None) if frames else []
        announced = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        rate = stream.rate
    if not frames:
        raise MediaError(f"{path} has an audio stream without sound", path)
    sound = np.concatenate([frame.to_ndarray() for frame in frames], axis=1).T
    if len(sound) / rate < announced - TOLERANCE_S:
        raise _cut_off(path, f"{announced:.2f} s", f"{len(sound) / rate:.2f} s")
    return sound, rate


def _resample(sound: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    if rate == SAMPLE_RATE_HZ:
        return sound
    try:
        import soxr  # as above
    except ImportError as error:
        raise _missing(error) from error
    resampled = soxr.resample(sound, rate, SAMPLE_RATE_HZ, quality="HQ")
    # Rounded up, as torchaudio does; soxr leaves the last one out for some rates.
    length = -(-len(sound) * SAMPLE_RATE_HZ // rate)
    exact = np.zeros((length, sound.shape[1]), np.float32)
    exact[: len(resampled)] = resampled[:length]
    return exact


def _check_complete(path: Path, size: int) -> None:
    """MediaError if a RIFF file is shorter than its `data` chunk says: readers return what there is, in silence."""
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return
        # Few: gigabytes of zeros would be that many empty chunks.
        for _ in range(MAX_CHUNKS):
            if len(chunk := file.read(8)) < 8:
                break
            length = int.from_bytes(chunk[4:], "little")
            there = size - file.tell()
            if chunk[:4] == b"data":
                if length not in _UNKNOWN_LENGTH and length > there:
                    raise _cut_off(path, f"{length} bytes of sound", f"{there}")
                return
            file.seek(length + length % 2, 1)
    raise MediaError(f"{path} is a wav without sound: its header is cut off or damaged", path)


def _cut_off(path: Path, announced: str, there: str) -> MediaError:
    return MediaError(
        f"{path} is cut off: its header announces {announced}, and {there} are there; copy or extract it again", path
    )


def _missing(error: ImportError) -> MissingPackageError:
    return MissingPackageError(f"reading sound needs {error.name}: pip install 'featurestore[encoders]'")

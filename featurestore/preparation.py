"""From a sample to what an encoder takes: one generator per modality.

Each yields jobs `(function, *arguments)` for a decode worker and is sent the result; samplers run
here, in the parent, so that any callable can be one.  What it returns is `Prepared`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import MediaError
from featurestore.key import FeatureKey
from featurestore.samples import Sample

Job = tuple[Any, ...]  # function, *arguments
Preparation = Generator[Job, Any, "Prepared"]


@dataclass
class Prepared:
    """The input of an encoder for one sample."""

    inputs: Any
    """frame, face: (n, height, width, 3) uint8; audio: (n, 32000) float32; au: list of n texts"""
    frame_indices: NDArray[np.int64]
    timestamps_s: NDArray[np.float64] | None
    sources: Sequence[Mapping[str, Any]]
    note: Mapping[str, Any] = field(default_factory=dict)

    @property
    def provenance(self) -> dict[str, Any]:
        """What is kept with the row; files that the sampler read are sources like the media."""
        note = dict(self.note)
        sources = [dict(source) for source in (*self.sources, *note.pop("sources", ()))]
        return {"sources": sources, **({"note": note} if note else {})}


@dataclass(frozen=True)
class Sampling:
    """A sampler with its options, bound to a key."""

    key: FeatureKey
    options: Mapping[str, Any]

    def choose(self, sample: Sample, total: int) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """(indices, note); raises SamplingError."""
        from featurestore.samplers import choose  # registered samplers may need numpy; names must not

        return choose(self.key.sampling, sample, total, self.key.n_frames, self.options)


def frames(sample: Sample, sampling: Sampling, size: tuple[int, int], allow_corrupt: bool) -> Preparation:
    """Frames of the video, squashed to `size` (height, width)."""
    from featurestore.media import decode_frames, index_video  # PyAV, which a hit does not need

    index = yield index_video, _path(sample, "video", sampling.key)
    indices, note = sampling.choose(sample, index.total)
    decoded = yield decode_frames, index, indices, size, allow_corrupt
    if index.missing_s:
        note["cut_off"] = {"missing_s": round(index.missing_s, 3)}
    return Prepared(decoded.pixels, indices, decoded.timestamps_s, [index.source], note)


def faces(sample: Sample, sampling: Sampling, size: tuple[int, int], allow_corrupt: bool) -> Preparation:
    """Rows of the face file, in its channel order."""
    from featurestore.media import count_faces, read_faces  # OpenCV, which a hit does not need

    index = yield count_faces, _path(sample, "face", sampling.key)
    indices, note = sampling.choose(sample, index.total)
    pixels = yield read_faces, index, indices, size
    return Prepared(pixels, indices, None, [index.source], note)


def windows(sample: Sample, sampling: Sampling, size: tuple[int, int], allow_corrupt: bool) -> Preparation:
    """Two-second windows of the sound at 16 kHz."""
    from featurestore.media import SAMPLE_RATE_HZ, audio_windows, read_audio  # soundfile, which a hit does not need

    audio = yield read_audio, _path(sample, "audio", sampling.key)
    starts, note = sampling.choose(sample, len(audio.samples))
    return Prepared(audio_windows(audio.samples, starts), starts, starts / SAMPLE_RATE_HZ, [audio.source], note)


def texts(sample: Sample, sampling: Sampling, size: tuple[int, int], allow_corrupt: bool) -> Preparation:
    """Descriptions that MER-Factory wrote, in the order of their frames."""
    from featurestore.merfactory import descriptions_of

    yield from ()  # a generator like the others, though it has no work for a decode worker
    found = descriptions_of(sample)
    chosen, note = sampling.choose(sample, len(found.texts))
    return Prepared([found.texts[i] for i in chosen], chosen, None, [found.source], {**note, **found.note})


PREPARATIONS: Mapping[str, Callable[[Sample, Sampling, tuple[int, int], bool], Preparation]] = {
    "frame": frames,
    "face": faces,
    "audio": windows,
    "au": texts,
}


def _path(sample: Sample, column: str, key: FeatureKey) -> Path:
    path: Path | None = getattr(sample, column)
    if path is None:
        error = MediaError(
            f"sample {sample.id!r} has no {column}, which {key} needs; add the column {column!r} to the manifest"
        )
        error.deterministic = False  # nothing is wrong with the sample: the next manifest may name it
        raise error
    return path

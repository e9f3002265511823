"""From a sample to what an encoder takes: one generator per modality.

Each yields jobs `(function, *arguments)` for a decode worker and is sent the result; samplers run
here, in the parent, so that any callable can be one.  What it returns is `Prepared`; a sample of many
pictures comes in pieces, of which all but the last are yielded.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurestore.compute.counterparts import column_of
from featurestore.errors import MediaError, SampleError
from featurestore.key import FeatureKey
from featurestore.provenance import misfit, written
from featurestore.sample import Sample

if TYPE_CHECKING:
    from featurestore.media import DecodedFrames

Job = tuple[Any, ...]  # function, *arguments
Preparation = Generator[Any, Any, "Prepared"]  # of jobs and, of a sample in pieces, of what they gave

PIECE_BYTES = 64 << 20
"""of pixels that a job sends back: memory is bounded by it, whatever the length of a video"""


@dataclass
class Prepared:
    """The input of an encoder for one sample, or a piece of it."""

    inputs: Any
    """frame, face: (n, height, width, 3) uint8; audio: (n, 32000) float32; au: list of n texts"""
    frame_indices: NDArray[np.int64]
    timestamps_s: NDArray[np.float64] | None
    sources: Sequence[Mapping[str, Any]]
    """the media, and then what the sampler read"""
    note: Mapping[str, Any] = field(default_factory=dict)
    more: bool = False
    """whether other pieces of the sample follow"""

    @property
    def provenance(self) -> dict[str, Any]:
        """What is kept with the row."""
        return {"sources": list(self.sources), **({"note": self.note} if self.note else {})}


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
    if index.missing_s:
        note["cut_off"] = {"missing_s": round(index.missing_s, 3)}

    def prepared(numbers: NDArray[np.int64], decoded: DecodedFrames, more: bool) -> Prepared:
        return Prepared(decoded.pixels, numbers, decoded.timestamps_s, [index.source], note, more)

    *pieces, last = in_pieces(indices, size)
    for piece in pieces:  # none of which has a name here, or it would stay until the next one came
        yield prepared(piece, (yield decode_frames, index, piece, size, allow_corrupt), True)
    return prepared(last, (yield decode_frames, index, last, size, allow_corrupt), False)


def faces(sample: Sample, sampling: Sampling, size: tuple[int, int], allow_corrupt: bool) -> Preparation:
    """Rows of the face file, in its channel order."""
    from featurestore.media import count_faces, read_faces  # OpenCV, which a hit does not need

    index = yield count_faces, _path(sample, "face", sampling.key)
    indices, note = sampling.choose(sample, index.total)
    *pieces, last = in_pieces(indices, size)
    for piece in pieces:
        yield Prepared((yield read_faces, index, piece, size), piece, None, [index.source], note, more=True)
    return Prepared((yield read_faces, index, last, size), last, None, [index.source], note)


def windows(sample: Sample, sampling: Sampling, size: tuple[int, int], allow_corrupt: bool) -> Preparation:
    """Two-second windows of the sound at 16 kHz."""
    from featurestore.media import SAMPLE_RATE_HZ, audio_windows, read_audio  # PyAV, which a hit does not need

    audio = yield read_audio, _path(sample, "audio", sampling.key)
    starts, note = sampling.choose(sample, len(audio.samples))
    if audio.cut_off:
        note["cut_off"] = {"missing_s": None}  # its file does not say
    return Prepared(audio_windows(audio.samples, starts), starts, starts / SAMPLE_RATE_HZ, [audio.source], note)


def texts(sample: Sample, sampling: Sampling, size: tuple[int, int], allow_corrupt: bool) -> Preparation:
    """Descriptions that MER-Factory wrote, in the order of their frames."""
    from featurestore.merfactory import descriptions_of

    yield from ()  # a generator like the others, though it has no work for a decode worker
    found = descriptions_of(sample)
    chosen, note = sampling.choose(sample, len(found.texts))
    return Prepared([found.texts[i] for i in chosen], chosen, None, [found.source], {**note, **found.note})


def in_pieces(indices: NDArray[np.int64], size: tuple[int, int]) -> Iterator[NDArray[np.int64]]:
    """Of pictures of that (height, width), as many at a time as PIECE_BYTES hold, and one at the least."""
    height, width = size
    most = max(PIECE_BYTES // (height * width * 3), 1)
    for start in range(0, len(indices), most):
        yield indices[start : start + most]


def prepare(sample: Sample, sampling: Sampling, size: tuple[int, int], allow_corrupt: bool) -> Preparation:
    """The preparation of the key's modality; each file that was read goes with the column that names it."""
    modality = sampling.key.modality
    try:
        prepared = yield from PREPARATIONS[modality](sample, sampling, size, allow_corrupt)
    except SampleError as error:
        error.column = column_of(sample, error.path, modality)
        raise
    files = (*prepared.sources, *prepared.note.get("sources", ()))
    prepared.sources = [_named(sample, file, modality) for file in files]
    prepared.note = {name: value for name, value in prepared.note.items() if name != "sources"}
    return prepared


def _named(sample: Sample, file: Any, modality: str) -> Any:
    """A source with its column; what is none, of a sampler of one's own, is refused when it is stored."""
    if misfit([file]) is not None:
        return file
    return written({**file, "column": file.get("column") or column_of(sample, file["path"], modality)})


def expected_bytes(job: Job) -> int:
    """How much a job will send back at least, as far as its arguments tell: the pixels of frames and faces."""
    function, *arguments = job
    if function.__name__ not in ("decode_frames", "read_faces"):
        return 0
    _, indices, (height, width), *_ = arguments
    return int(len(indices) * height * width * 3)


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

"""Frames of a video by their number, exactly, at the cost of decoding little more than they need.

An index is a scan of the packets, which costs a few milliseconds and decodes nothing: the frames that
a player would show are the packets that no edit list discards, ordered by presentation time.  Frames
are then found by their time, never by counting what a decoder returns: decoders drop and reorder.

Pixels are those of AffectGPT's reader, `decord.VideoReader(path, height=224, width=224)` of decord 0.6.0:
turned upright, then squashed by libavfilter's `scale` with `flags=bilinear`, bit for bit.  (decord2 and
ffmpeg 5 or later scale bicubically when not told.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import MediaError
from featurestore.media.container import import_av, opened_video, packets_of
from featurestore.media.scaling import Scale
from featurestore.media.source import TOLERANCE_S, check_unchanged, file_source

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


@dataclass(frozen=True)
class VideoIndex:
    """What a packet scan tells: how many frames there are, and which packets they come from.

    The arrays have one entry per packet with data, in the order of the file, which is that of decoding.
    """

    path: Path
    total: int
    """frames that a player shows; frame numbers are 0 to total - 1"""
    pts: NDArray[np.int64]
    """(packets,) presentation time in units of `time_base`, unique"""
    keyframe: NDArray[np.bool_]
    """(packets,)"""
    shown: NDArray[np.bool_]
    """(packets,) False where an edit list leaves the frame out; it is decoded all the same"""
    time_base: Fraction
    """seconds"""
    source: dict[str, Any]
    """{path, size, mtime_ns, sha256}"""
    missing_s: float = 0.0
    """seconds between the end of the last frame and the end that the header announces: the file is cut off"""
    counted: bool = False
    """the file has no usable times: frames were decoded to count them, and `pts` is their number"""

    @property
    def positions(self) -> NDArray[np.int64]:
        """(total,) for each frame number, the position of its packet."""
        shown = np.flatnonzero(self.shown)
        return shown[np.argsort(self.pts[shown])]


@dataclass(frozen=True)
class DecodedFrames:
    pixels: NDArray[np.uint8]
    """(n, height, width, 3) RGB"""
    timestamps_s: NDArray[np.float64]
    """(n,) seconds after the first frame"""


def video_recipe(size: tuple[int, int], allow_corrupt: bool = False) -> dict[str, Any]:
    """What decides pixels besides the frame number."""
    return {
        "decoder": "pyav",
        "resize": "libavfilter scale, flags=bilinear, squashed",
        "size": list(size),
        "color": "rgb",
        "allow_corrupt": allow_corrupt,
    }


def index_video(path: str | Path) -> VideoIndex:
    """Scan the packets of the best video stream (no cover art, the largest of several).

    Raises MediaError if the file is missing, empty, no video, or has no video stream or no frames.
    """
    path = Path(path)
    source = file_source(path)
    with opened_video(path) as (container, stream):
        # What a packet says, without its data: a list of packets would hold the whole file.
        scan = [_Scanned.of(packet) for packet in packets_of(container, stream)]
        # The last packet of a file that was cut off is incomplete; it would be a frame made up by the decoder.
        while scan and scan[-1].corrupt:
            scan.pop()
        reorders = stream.codec_context.has_b_frames
        missing_s = _missing_seconds(stream, scan)
        time_base = stream.time_base or Fraction(1)
    times = [packet.time for packet in scan if packet.time is not None]
    index = VideoIndex(
        path=path,
        total=sum(packet.shown for packet in scan),
        pts=np.array(times, np.int64),
        keyframe=np.array([packet.keyframe for packet in scan], np.bool_),
        shown=np.array([packet.shown for packet in scan], np.bool_),
        time_base=time_base,
        source=source,
        missing_s=missing_s,
    )
    unclear = len(set(times)) < len(scan)
    # Some containers, like AVI, have no times of display, and what stands for them is the order of the file.
    if unclear or (reorders and len(scan) > 1 and times == sorted(times)):
        index = _counted(index, unclear)
    if index.total == 0:
        raise MediaError(f"{path} has a video stream without frames; copy or download it again", path)
    return index


class _Scanned(NamedTuple):
    time: int | None
    duration: int
    keyframe: bool
    shown: bool
    corrupt: bool

    @classmethod
    def of(cls, packet: Packet[VideoStream]) -> _Scanned:
        shown = not packet.is_discard
        return cls(packet.pts, packet.duration or 0, packet.is_keyframe, shown, packet.is_corrupt)


def _missing_seconds(stream: VideoStream, scan: Sequence[_Scanned]) -> float:
    """A file whose end is missing looks like a shorter one, but for what its header says, if it does."""
    shown = [(packet.time, packet.duration) for packet in scan if packet.time is not None and packet.shown]
    if not shown or not stream.duration or not stream.time_base:
        return 0.0
    first, (last, duration) = min(shown)[0], max(shown)
    if not duration:
        return 0.0
    seconds = float((stream.duration - (last + duration - first)) * stream.time_base)
    return seconds if seconds > TOLERANCE_S else 0.0


def _counted(index: VideoIndex, unclear: bool) -> VideoIndex:
    """Decode everything, and number the frames as they come unless their times are right after all."""
    with opened_video(index.path) as (container, stream):
        times = [frame.pts for packet in container.demux(stream) for frame in packet.decode()]
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    if not unclear and times == sorted(index.pts[index.shown].tolist()):
        return index
    total = len(times)
    return replace(
        index,
        total=total,
        pts=np.arange(total),
        keyframe=np.arange(total) == 0,
        shown=np.ones(total, np.bool_),
        time_base=1 / Fraction(rate),
        counted=True,
    )


def decode_frames(
    index: VideoIndex,
    indices: Sequence[int] | NDArray[np.int64],
    size: tuple[int, int] = (224, 224),
    allow_corrupt: bool = False,
) -> DecodedFrames:
    """The frames with these numbers, in this order, repeated where a number is; squashed to `size` (height, width).

    A damaged frame is an error, and so is one that is predicted from it although its own data are whole:
    decoders conceal both and report only the first.  With `allow_corrupt` what they make up is taken.
    What a decoder does not notice cannot be told: H.264 and MPEG-4 notice nearly all damage, HEVC some, VP9 little.

    Raises MediaError if a frame is damaged, is not in the video or is not decoded, or the file changed.
    """
    numbers = np.asarray(indices, np.int64)
    if numbers.size == 0 or numbers.min() < 0 or numbers.max() >= index.total:
        raise MediaError(
            f"{index.path}: frames {numbers.tolist()} were asked for, of 0 to {index.total - 1}", index.path
        )
    check_unchanged(index.source)
    positions = index.positions
    asked = positions[numbers]
    rows: dict[int, list[int]] = {}
    for row, position in enumerate(asked):
        rows.setdefault(int(index.pts[position]), []).append(row)
    pixels = np.empty((len(numbers), *size, 3), np.uint8)
    missing = set(rows)
    damaged: list[int] = []
    scale = Scale(index.path, index.time_base, size)
    for time, frame in _decode(index, set(rows), int(asked.max()), damaged):
        if time in missing:
            missing.discard(time)
            for row in rows[time]:
                pixels[row] = scale(frame)
    if missing or (damaged and not allow_corrupt):
        _refuse_damaged(index, numbers, missing, damaged, allow_corrupt)
    timestamps = (index.pts[asked] - index.pts[positions[0]]) * float(index.time_base)
    return DecodedFrames(pixels, timestamps)


def _decode(index: VideoIndex, wanted: set[int], last: int, damaged: list[int]) -> Iterator[tuple[int, VideoFrame]]:
    """(time, frame) of all that must be decoded to see the `wanted` times, with damaged positions noted.

    Packets after the position `last` are not read.  Frames that no other frame needs and nobody wants
    are not decoded: skipping them saves a third of the work and changes no bit of the others.
    """
    av = import_av()
    at = {int(time): position for position, time in enumerate(index.pts)}
    count = 0

    def tell(frames: Iterable[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        nonlocal count
        for frame in frames:
            time = count if index.counted or frame.pts is None else frame.pts
            count += 1
            if frame.is_corrupt:
                damaged.append(at.get(time, 0))
            yield time, frame

    with opened_video(index.path) as (container, stream):
        context = stream.codec_context
        for position, packet in enumerate(packets_of(container, stream)):
            if not index.counted:
                context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            try:
                yield from tell(stream.decode(packet))
            except av.error.InvalidDataError:
                damaged.append(0 if index.counted else position)
            if (count > last) if index.counted else (position == last):
                break
        yield from tell(stream.decode(None))


def _refuse_damaged(
    index: VideoIndex, numbers: NDArray[np.int64], missing: set[int], damaged: list[int], allow_corrupt: bool
) -> None:
    """MediaError if a wanted frame is missing, damaged, or decoded after damage without a keyframe between."""
    positions = index.positions
    broken = np.array(sorted(set(damaged)), np.int64)
    keyframes = np.flatnonzero(index.keyframe)
    for number in np.unique(numbers):
        position = positions[number]
        time = index.pts[position]
        if int(time) in missing:
            raise MediaError(
                f"{index.path}: frame {number} of {index.total} cannot be decoded: the file is damaged there; copy or "
                "download it again",
                index.path,
            )
        # Frames shown before a keyframe though stored after it may need the pictures before it.
        fresh = keyframes[(keyframes <= position) & (index.pts[keyframes] <= time)]
        start = fresh[-1] if fresh.size else 0
        if not allow_corrupt and ((broken >= start) & (broken <= position)).any():
            raise MediaError(
                f"{index.path}: frame {number} of {index.total} is damaged, or predicted from a damaged one; copy or "
                "download the file again, or extract the whole key under another recipe with --allow-corrupt (Python: "
                "allow_corrupt=True), which takes the picture that the decoder makes up",
                index.path,
            )

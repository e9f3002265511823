"""Frames of a video by their number, exactly, at the cost of decoding little more than they need.

The index tells which picture each frame is; pictures are found by the packet that they are of, never by
counting what a decoder returns: decoders drop and reorder.  Only the groups of pictures that hold a wanted
frame are decoded, each from a picture that needs nothing before it, so every pixel is as if all were.

Pixels are those of AffectGPT's reader, `decord.VideoReader(path, height=224, width=224)` of decord 0.6.0:
turned upright, then squashed by libavfilter's `scale` with `flags=bilinear`, bit for bit.  (decord2 and
ffmpeg 5 or later scale bicubically when not told.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import MediaError
from featurestore.media.container import opened_video, packets_of
from featurestore.media.decoder import EACH, Decoder
from featurestore.media.index import VideoIndex, index_video
from featurestore.media.marks import CLEAN, OPEN, WHOLE
from featurestore.media.scaling import Scale
from featurestore.media.scan import NO_TIME
from featurestore.media.source import check_unchanged, unavailable

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["DecodedFrames", "VideoIndex", "decode_frames", "index_video", "video_recipe"]

SEEK_BYTES = 8 << 20
"""that are read rather than sought over"""


@dataclass(frozen=True)
class DecodedFrames:
    pixels: NDArray[np.uint8]
    """(n, height, width, 3) RGB"""
    timestamps_s: NDArray[np.float64] | None
    """(n,) seconds after the first frame; None where the file does not say"""


def video_recipe(size: tuple[int, int], allow_corrupt: bool = False) -> dict[str, Any]:
    """What decides pixels besides the frame number."""
    return {
        "decoder": "pyav",
        "resize": "libavfilter scale, flags=bilinear, squashed",
        "size": list(size),
        "color": "rgb",
        "allow_corrupt": allow_corrupt,
    }


def decode_frames(
    index: VideoIndex,
    indices: Sequence[int] | NDArray[np.int64],
    size: tuple[int, int] = (224, 224),
    allow_corrupt: bool = False,
) -> DecodedFrames:
    """The frames with these numbers, in this order, repeated where a number is; squashed to `size` (height, width).

    A damaged frame is an error, and so is one that is predicted from it although its own data are whole:
    decoders conceal both and report only the first.  With `allow_corrupt` what they make up is taken.
    What a decoder does not notice cannot be told: see docs/samplers_and_media.md for what each notices.

    Raises MediaError if a frame is damaged, is not in the video or is not decoded, or the file changed.
    """
    numbers = np.asarray(indices, np.int64)
    if numbers.size == 0 or numbers.min() < 0 or numbers.max() >= index.total:
        raise MediaError(
            f"{index.path}: frames {numbers.tolist()} were asked for, of 0 to {index.total - 1}", index.path
        )
    check_unchanged(index.source)
    rows: dict[int, list[int]] = {}
    for row, number in enumerate(numbers):
        rows.setdefault(int(index.frames[number]), []).append(row)
    decoded = _decoded(index, rows, size, allow_corrupt)
    check_unchanged(index.source)
    if decoded.missing or not allow_corrupt:
        _refuse_damaged(index, numbers, decoded.missing, decoded.damaged, allow_corrupt)
    return DecodedFrames(decoded.pixels, None if index.seconds is None else index.seconds[numbers])


@dataclass
class _Decoded:
    pixels: NDArray[np.uint8]
    missing: set[int]  # pictures that did not come out
    damaged: list[int]  # positions


def _decoded(index: VideoIndex, rows: dict[int, list[int]], size: tuple[int, int], allow_corrupt: bool) -> _Decoded:
    """The pictures with these numbers, each in its rows."""
    if not index.counted:
        with suppress(MediaError):
            decoded = _decode(index, rows, size, allow_corrupt, quick=True)
            if not decoded.missing:
                return decoded
    return _decode(index, rows, size, allow_corrupt)


def _decode(
    index: VideoIndex, rows: dict[int, list[int]], size: tuple[int, int], allow_corrupt: bool, quick: bool = False
) -> _Decoded:
    count = sum(map(len, rows.values()))
    decoded = _Decoded(np.empty((count, *size, 3), np.uint8), set(rows), [])
    scale = Scale(index.path, Fraction(1), size)
    for picture, frame in _pictures(index, set(rows), decoded.damaged, allow_corrupt, quick):
        if picture in decoded.missing:
            decoded.missing.discard(picture)
            for row in rows[picture]:
                decoded.pixels[row] = scale(frame)
    return decoded


def _pictures(
    index: VideoIndex, wanted: set[int], damaged: list[int], allow_corrupt: bool, quick: bool = False
) -> Iterator[tuple[int, VideoFrame]]:
    """(picture, frame) of all that must be decoded to see the wanted pictures, with damaged positions noted."""
    spans = _spans(index, wanted)
    positions = {picture // EACH for picture in wanted}
    missing = set(wanted)
    with ExitStack() as closing:
        container, stream = closing.enter_context(opened_video(index.path, track=index.track, quick=quick))
        decoder = Decoder(stream, index.skips, allow_corrupt)
        packets = _Packets(index, container, stream, closing)
        for first, last in spans:
            for position, packet in packets.between(first, last):
                for picture, frame in decoder.decode(packet, position, position in positions):
                    missing.discard(picture)
                    yield picture, frame
                if index.counted and not missing:
                    break
            yield from decoder.drain()
        damaged += decoder.damaged


def _spans(index: VideoIndex, wanted: set[int]) -> list[tuple[int, int]]:
    """[(first, last)] positions of packets that must be decoded to see the wanted pictures."""
    if index.counted:
        return [(0, len(index.flags) - 1)]
    begins = np.flatnonzero(index.flags & (CLEAN | OPEN))
    ends: dict[int, int] = {}
    for picture in wanted:
        position = picture // EACH
        first = _begin(index, begins, position)
        ends[first] = max(ends.get(first, 0), position)
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ends.items()):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _begin(index: VideoIndex, begins: NDArray[np.int64], position: int) -> int:
    """Of these positions, the last that makes the picture of a packet whole; 0 if there is none."""
    for begin in reversed(begins[: np.searchsorted(begins, position, "right")]):
        if index.flags[begin] & CLEAN or index.pts[begin] <= index.pts[position]:
            return int(begin)
    return 0


class _Packets:
    """Packets of a file by their position, read or sought for, and each compared with what the index saw there."""

    def __init__(self, index: VideoIndex, container: Any, stream: Any, closing: ExitStack) -> None:
        self.index = index
        self.container = container
        self.stream = stream
        self.closing = closing  # of the files that are opened here
        self.position = 0  # of the packet that comes next
        self.packets = packets_of(index.path, container, stream)
        self.starts = np.concatenate([[0], np.cumsum(index.size, dtype=np.int64)])

    def between(self, first: int, last: int) -> Iterator[tuple[int, Any]]:
        """(position, packet) from the first to the last; may be left before that."""
        if self.starts[first] - self.starts[self.position] > SEEK_BYTES:
            self._seek(first)
        for packet in self.packets:
            position = self.position
            self.position += 1
            if not self._is(packet, position):
                raise unavailable(self.index.path, "changed while it was being read; run again when it is complete")
            if position >= first:
                yield position, packet
            if position >= last:
                return

    def _is(self, packet: Any, position: int) -> bool:
        """Whether a packet is the one that the index saw there."""
        if position >= len(self.index.size):
            return False
        time = NO_TIME if packet.pts is None else packet.pts
        return bool(packet.size == self.index.size[position] and time == self.index.pts[position])

    def _seek(self, first: int) -> None:
        """Go near a packet; where a file does not lead there, and surely, all packets up to it are read instead."""
        self.container.seek(int(self.index.pts[first]), stream=self.stream)
        packets = packets_of(self.index.path, self.container, self.stream)
        for packet in packets:
            found = np.flatnonzero(self.index.pts == (NO_TIME if packet.pts is None else packet.pts))
            at = int(found[0]) if len(found) == 1 else -1
            if not 0 <= at <= first or not self._is(packet, at):
                break
            if at == first:
                self.packets, self.position = chain((packet,), packets), first
                return
        self.container, self.stream = self.closing.enter_context(opened_video(self.index.path, track=self.index.track))
        self.packets, self.position = packets_of(self.index.path, self.container, self.stream), 0


def _refuse_damaged(
    index: VideoIndex, numbers: NDArray[np.int64], missing: set[int], damaged: list[int], allow_corrupt: bool
) -> None:
    """MediaError if a wanted frame is missing, damaged, or decoded after damage and before what makes it whole."""
    broken = np.array(sorted(set(damaged)), np.int64)
    begins = np.flatnonzero(index.flags & (CLEAN | OPEN | WHOLE))
    for number in np.unique(numbers):
        picture = int(index.frames[number])
        if picture in missing:
            raise MediaError(
                f"{index.path}: frame {number} of {index.total} cannot be decoded: the file is damaged there; copy or "
                "download it again",
                index.path,
            )
        if allow_corrupt:
            continue
        position = picture // EACH
        if index.damaged is not None:
            bad = bool(index.damaged[number])
        else:
            start = index.begun[_begin(index, begins, position)]
            bad = bool(((broken >= start) & (broken <= position)).any())
        if bad:
            raise MediaError(
                f"{index.path}: frame {number} of {index.total} is damaged, or predicted from a damaged one; copy or "
                "download the file again, or extract the whole key under another recipe with --allow-corrupt (Python: "
                "allow_corrupt=True), which takes the frame that the decoder makes up",
                index.path,
            )

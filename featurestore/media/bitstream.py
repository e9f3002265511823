"""What a packet says about its picture, of the codecs where a packet is a picture: where decoding may begin.

A container marks packets as keyframes, and means several things by it: pictures that forget all that was
before, pictures after which all that is shown is whole, and points at which a refresh of many pictures
begins.  Only the packet itself tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable

from featurestore.media.marks import CLEAN, HIDDEN, Bitstream
from featurestore.media.nal import H264, Hevc

ONE_BY_ONE = frozenset("mjpeg prores dnxhd huffyuv ffvhuff utvideo magicyuv rawvideo v210 png jpeg2000".split())
"""codecs that predict nothing from another picture"""


def bitstream_of(codec: str, extradata: bytes | None) -> Bitstream | None:
    """The reader for a codec by the name of its decoder; None where packets are not known to be pictures."""
    if codec in ONE_BY_ONE:
        return _EachForItself()
    make = _READERS.get(codec)
    return make(extradata or b"") if make is not None else None


class _EachForItself(Bitstream):
    def look(self, data: memoryview, position: int) -> int:
        return CLEAN


class _Ffv1(Bitstream):
    """Its coder keeps what it learned from picture to picture; the first bit that it codes says where it forgets."""

    def __init__(self, extradata: bytes) -> None:
        super().__init__()

    def look(self, data: memoryview, position: int) -> int:
        return CLEAN if int.from_bytes(data[:2], "big") >= 0x7F80 else 0


class _Vp8(Bitstream):
    def __init__(self, extradata: bytes) -> None:
        super().__init__()

    def look(self, data: memoryview, position: int) -> int:
        return (0 if data[0] & 1 else CLEAN) | (0 if data[0] & 16 else HIDDEN)


class _Vp9(Bitstream):
    def __init__(self, extradata: bytes) -> None:
        super().__init__()

    def look(self, data: memoryview, position: int) -> int:
        shown, key = 0, False
        for number, frame in enumerate(self.frames(data)):
            first = frame[0] << (frame[0] & 0x30 == 0x30)  # profile 3 has one more bit before these
            shown += bool(first & 0b1010)  # one that was decoded before, or this one
            key |= number == 0 and not first & 0b1100
        self.odd |= shown > 1
        return (CLEAN if key else 0) | (0 if shown else HIDDEN)

    @staticmethod
    def frames(data: memoryview) -> list[memoryview]:
        marker = data[-1]
        if marker & 0xE0 != 0xC0:
            return [data]
        count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
        index = len(data) - 2 - count * width
        if index < 0 or data[index] != marker:
            return [data]
        found, at = [], 0
        for number in range(count):
            where = index + 1 + number * width
            size = int.from_bytes(data[where : where + width], "little")
            if size:
                found.append(data[at : at + size])
            at += size
        return [frame for frame in found if len(frame)]


class _Av1(Bitstream):
    """A packet is a temporal unit, of which one picture is shown."""

    SEQUENCE, FRAME_HEADER, FRAME = 1, 3, 6

    def __init__(self, extradata: bytes) -> None:
        super().__init__()

    def look(self, data: memoryview, position: int) -> int:
        at, end, sequence = 0, len(data), False
        while at < end:
            head = data[at]
            kind, extended, sized = head >> 3 & 15, head & 4, head & 2
            at += 2 if extended else 1
            size = end - at
            if sized:
                size, at = _leb128(data, at)
            if kind == self.SEQUENCE:
                sequence = True
            elif kind in (self.FRAME_HEADER, self.FRAME):
                # show_existing_frame 0, frame_type 00 (key), show_frame 1
                return CLEAN if sequence and at < end and data[at] >> 4 == 0b0001 else 0
            at += size
        return 0


_READERS: dict[str, Callable[[bytes], Bitstream]] = {
    "h264": H264,
    "hevc": Hevc,
    "ffv1": _Ffv1,
    "vp8": _Vp8,
    "vp9": _Vp9,
    "libdav1d": _Av1,
    "av1": _Av1,
}


def _leb128(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for byte in range(8):
        if at >= len(data):
            break
        value |= (data[at] & 127) << 7 * byte
        at += 1
        if not data[at - 1] & 128:
            break
    return value, at

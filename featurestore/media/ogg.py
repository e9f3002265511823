"""Pages of Ogg: each carries a checksum and its number, and the last one of a stream says that it is the last.

FFmpeg leaves out pages that are damaged, and does not miss those that are not there.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from featurestore.errors import MediaError
from featurestore.media.parts import Part, cut_off
from featurestore.media.source import Reading

_BEGINS, _ENDS = 2, 4
_NO_TIME = 0xFFFFFFFFFFFFFFFF
_AFTER = 1 << 16  # bytes that may follow the last page, such as tags
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass
class _Stream:
    rate: int
    """units of time in a second; 0 if it is no sound, or of a codec that is not known here"""
    skipped: int
    """units at the beginning that are not heard"""
    number: int = 0
    """of its last page"""
    first: int | None = None
    """time at the end of the first page that has sound"""
    last: int = 0
    whole: bool = True
    """its sound follows its header"""
    ended: bool = False


def ogg_parts(path: Path, file: Reading) -> list[Part]:
    """The parts of an Ogg file.

    Raises MediaError if a page is damaged or missing, or the file ends before the page that is to be the last.
    """
    file.seek(0)
    parts: list[Part] = []
    streams: dict[int, _Stream] = {}
    beginning = False
    at = 0
    while (page := _page(path, file)) is not None:
        flags, time, serial, number, body = page
        if flags & _BEGINS:
            if not beginning:  # what came before may have been left without an end
                _end(parts, streams, at)
                parts.append(Part([(at, at)]))
                streams = {}
            beginning = True
            streams[serial] = _beginning(body)
        elif serial in streams:
            beginning = False
            _follow(path, file, streams[serial], number, time)
        if serial in streams:
            streams[serial].ended = bool(flags & _ENDS)
        at = file.tell()
    if any(stream.rate and not stream.ended for stream in streams.values()):
        raise cut_off(path, "an end of its stream", "none")
    _end(parts, streams, at)
    return parts


def _end(parts: list[Part], streams: dict[int, _Stream], at: int) -> None:
    if not parts:
        return
    parts[-1].spans = [(parts[-1].spans[0][0], at)]
    sounds = [each for each in streams.values() if each.rate]
    if len(sounds) == 1 and sounds[0].whole:
        parts[-1].samples, parts[-1].rate = max(sounds[0].last - sounds[0].skipped, 0), sounds[0].rate


def _page(path: Path, file: Reading) -> tuple[int, int, int, int, bytes] | None:
    """(flags, time, serial number, number, data) of the page that comes next; None at the end."""
    at = file.tell()
    head = file.read(27)
    if head[:4] != b"OggS":
        rest = head + file.read(_AFTER)
        if len(rest) <= _AFTER and b"OggS" not in rest:
            return None
        raise _damaged(path, at)
    table = file.read(head[26]) if len(head) == 27 else b""
    body = file.read(sum(table))
    if len(head) < 27 or len(table) < head[26] or len(body) < sum(table):
        raise cut_off(path, "a page of sound", f"{file.tell() - at} bytes of it")
    _, flags, time, serial, number, checksum = struct.unpack_from("<BBQIII", head, 4)
    if _checksum(head[:22] + bytes(4) + head[26:] + table + body) != checksum:
        raise _damaged(path, at)
    return flags, time, serial, number, body


def _follow(path: Path, file: Reading, stream: _Stream, number: int, time: int) -> None:
    if number != stream.number + 1 & 0xFFFFFFFF:
        # What was recorded from the middle of a broadcast has the header of its beginning.
        stream.whole = False
        if stream.first is not None:
            raise _damaged(path, file.tell())
    stream.number = number
    if time not in (0, _NO_TIME):
        stream.first = time if stream.first is None else stream.first
        stream.last = time


def _beginning(body: bytes) -> _Stream:
    rate, skipped = 0, 0
    if body.startswith(b"\x01vorbis") and len(body) >= 16:
        rate = int.from_bytes(body[12:16], "little")
    elif body.startswith(b"OpusHead") and len(body) >= 12:
        rate, skipped = 48_000, int.from_bytes(body[10:12], "little")
    elif body.startswith(b"Speex   ") and len(body) >= 40:
        rate = int.from_bytes(body[36:40], "little")
    elif body.startswith(b"\x7fFLAC") and len(body) >= 31:
        rate = int.from_bytes(body[27:30], "big") >> 4
    return _Stream(rate, skipped)


def _checksum(data: bytes) -> int:
    """The CRC of Ogg, which is that of zlib seen in a mirror, begun at 0 and not inverted."""
    mirrored = zlib.crc32(data.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _damaged(path: Path, at: int) -> MediaError:
    return MediaError(f"{path} is damaged near byte {at}; copy or download it again", path)

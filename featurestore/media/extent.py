"""How far a file of sound says that it goes.  Readers return what is there, without a word about what is not.

A length may be stated, estimated, or unknown.  Only one that somebody wrote down tells that a file is cut off;
what FFmpeg works out from a rate of bits is not looked at, and one that was not known when it was written
(into a pipe, or by a recorder that was switched off) is none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from featurestore.errors import MediaError
from featurestore.media.container import opened_audio
from featurestore.media.frames import frame_parts, tag_bytes
from featurestore.media.lengths import vint
from featurestore.media.ogg import ogg_parts
from featurestore.media.parts import Part, cut_off
from featurestore.media.source import Reading, Span

MAX_CHUNKS = 10_000  # before the sound; gigabytes of zeros would be that many empty ones
_MAX_BOXES = 1_000_000  # of an mp4 that was written in fragments
_NEAR_LIMIT = 1 << 12  # programs that cannot seek back write a size near 2 or 4 GiB
_RIFF64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_DATA64 = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_OTHERS = (b"fLaC", b"wvpk", b"TTA1", b"#!AMR", b"G@\0", b"\0\0\1\xba")  # that are no frames of MP3 or AAC
_EBML = b"\x1a\x45\xdf\xa3"
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"moof", b"sidx", b"pnot", b"uuid")


@dataclass(frozen=True)
class _Chunks:
    """How a file of chunks is laid out: (id, length, data) one behind the other."""

    first: int
    """where they begin"""
    id: int
    """bytes of an id"""
    width: int
    """bytes of a length"""
    order: Literal["little", "big"]
    sound: tuple[bytes, ...]
    """chunks that must be there to their end"""
    again: bytes
    """what another file begins with, if it was appended"""
    itself: int = 0
    """bytes of id and length that the length counts"""
    even: int = 1
    """lengths are rounded up to a multiple of this"""


_FORMS: tuple[tuple[int, bytes, _Chunks], ...] = (
    (8, b"WAVE", _Chunks(12, 4, 4, "little", (b"data",), b"RIFF", even=2)),
    (8, b"AVI ", _Chunks(0, 4, 4, "little", (b"RIFF",), b"", even=2)),  # FFmpeg goes on by itself
    (8, b"AIFF", _Chunks(12, 4, 4, "big", (b"SSND",), b"FORM", even=2)),
    (8, b"AIFC", _Chunks(12, 4, 4, "big", (b"SSND",), b"FORM", even=2)),
    (0, _RIFF64[:8], _Chunks(40, 16, 8, "little", (_DATA64,), _RIFF64, itself=24, even=8)),
    (0, b"caff", _Chunks(8, 4, 8, "big", (b"data",), b"caff")),
    (0, _ASF, _Chunks(0, 16, 8, "little", (_ASF, _ASF_DATA), _ASF, itself=24)),
)


def parts_of(path: Path, file: Reading, size: int) -> list[Part]:
    """The parts of a file, to be read one by one.

    Raises MediaError if the file is shorter than its headers say, or they end in the middle.
    """
    file.seek(0)
    head = file.read(64)
    if head[:4] == b"OggS":
        return ogg_parts(path, file)
    if not _known(head) and (parts := _frames(path, file, size)):
        return parts
    parts = []
    at = 0
    while at < size:
        end, stated = _extent(path, Span(file, [(at, size)]), size - at)
        parts.append(Part([(at, at + end)], stated=stated))
        at += end
    return parts


def _known(head: bytes) -> bool:
    if head[4:8] in _BOXES or head.startswith((_EBML, b"FLV", b".snd", *_OTHERS)):
        return True
    return any(head[at : at + len(magic)] == magic for at, magic, _ in _FORMS)


def _frames(path: Path, file: Reading, size: int) -> list[Part]:
    """The parts of what FFmpeg takes for frames without a container; none of anything else."""
    with opened_audio(path, Span(file, [(0, size)])) as (container, _):
        bare = container.format.name in ("mp3", "aac")
    return frame_parts(path, file, size) if bare else []


def _extent(path: Path, file: Span, size: int) -> tuple[int, bool]:
    """(where another file begins that was appended, or the end, whether the length of this one is stated)."""
    head = file.read(64)
    if head[:4] == _EBML:
        return _matroska(path, file, size)
    if head[4:8] in _BOXES:
        return _boxes(path, file, size)
    if head[:4] == b"TTA1" or head[:3] == b"ID3":
        return _true_audio(file, size), False  # its length is in the header that FFmpeg reads
    if head[:3] == b"FLV":
        return _flash(path, file, size)
    if head[:4] == b".snd" and len(head) >= 12:
        start, length = struct.unpack(">II", head[4:12])
        stated = _check(path, length, size - start)
        return _appended(file, start + length if stated else size, size, b".snd"), stated
    for at, magic, form in _FORMS:
        if head[at : at + len(magic)] == magic:
            return _chunks(path, file, size, form, head)
    return size, False


def _chunks(path: Path, file: Span, size: int, form: _Chunks, head: bytes) -> tuple[int, bool]:
    wave = head[8:12] == b"WAVE"
    order: Literal["little", "big"] = "big" if head[:4] == b"RIFX" else form.order
    wide, stated, found = 0, False, False
    for at, id, length, there in _walk(file, size, form, order):
        if id == form.again and found and at:
            return at, stated
        if wave and id == b"ds64" and there >= 16:
            wide = int.from_bytes(file.read(16)[8:], "little")
        if id in form.sound:
            found = True
            if wave and not length and _is_chunk(file.read(8), there):
                raise MediaError(f"{path} holds no sound: 0 samples", path)
            stated = _check(path, wide if wide and length == 0xFFFFFFFF else length, there)
            if not stated:
                break
    if wave and not found:
        raise MediaError(f"{path} is a wav without sound: its header is cut off or damaged", path)
    return size, stated


def _walk(
    file: Span, size: int, form: _Chunks, order: Literal["little", "big"]
) -> Iterator[tuple[int, bytes, int, int]]:
    """(where it begins, id, length, bytes that are there) of each chunk."""
    at = form.first
    for _ in range(MAX_CHUNKS):
        file.seek(at)
        head = file.read(form.id + form.width)
        if len(head) < form.id + form.width:
            return
        length = int.from_bytes(head[form.id :], order) - form.itself
        yield at, head[: form.id], length, size - at - len(head)
        if length < 0 or at + len(head) + length > size:
            return
        at += len(head) + length + -length % form.even


def _is_chunk(head: bytes, there: int) -> bool:
    """Whether a chunk begins here that ends with the file: of what follows the sound, not of the sound."""
    length = int.from_bytes(head[4:], "little")
    return head[:4].isascii() and head[:4].decode().isprintable() and 0 <= there - 8 - length <= 1


def _check(path: Path, length: int, there: int, unit: str = "bytes of sound") -> bool:
    """Whether a length is stated, with MediaError if less is there."""
    limits = (1 << 31, 1 << 32)
    if length == 0 or length >= 1 << 62 or any(abs(length - limit) <= _NEAR_LIMIT for limit in limits):
        return False
    if length > there:
        raise cut_off(path, f"{length} {unit}", f"{max(there, 0)}")
    return True


def _appended(file: Span, end: int, size: int, magic: bytes) -> int:
    """The end of a file if another one begins there, else that of all."""
    file.seek(end)
    return end if 0 < end < size and file.read(len(magic)) == magic else size


def _boxes(path: Path, file: Span, size: int) -> tuple[int, bool]:
    """Of an mp4 or mov, whose boxes are one behind the other."""
    at, seen = 0, set[bytes]()
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if head[4:8] == b"ftyp" and b"moov" in seen:
            return at, True
        if len(head) < 8 or length < 8:  # the end, or up to the end
            break
        if at + length > size and head[4:8] in (b"mdat", b"moov", b"moof"):
            raise cut_off(path, f"{length} bytes of {head[4:8].decode()}", f"{size - at}")
        seen.add(head[4:8])
        at += length
    return size, at == size


def _matroska(path: Path, file: Span, size: int) -> tuple[int, bool]:
    file.seek(0)
    head = file.read(1 << 12)
    length, at = vint(head, 4)
    at += length
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return size, False
    length, start = vint(head, at + 4)
    if length == (1 << 7 * (start - at - 4)) - 1:  # not known
        return size, False
    stated = _check(path, length, size - start, "bytes of its segment")
    return _appended(file, start + length, size, head[:4]) if stated else size, stated


def _flash(path: Path, file: Span, size: int) -> tuple[int, bool]:
    file.seek(0)
    head = file.read(1 << 16)
    at = head.find(b"filesize\0") + 9
    if at <= 8 or len(head) < at + 8:
        return size, False
    (length,) = struct.unpack(">d", head[at : at + 8])
    stated = _check(path, int(length) if 0 < length < 1e18 else 0, size, "bytes")
    return _appended(file, int(length), size, b"FLV") if stated else size, stated


def _true_audio(file: Span, size: int) -> int:
    """Where another TTA begins, behind one, whose table has the lengths of its frames, and behind tags; or the end."""
    at = _after_tags(file, 0)
    file.seek(at)
    head = file.read(22)
    if head[:4] != b"TTA1" or len(head) < 22:
        return size
    rate, samples = struct.unpack("<II", head[10:18])
    frames = -(-samples // max(256 * rate // 245, 1))
    table = at + len(head)
    if table + 4 * frames + 4 > size:
        return size
    lengths = np.frombuffer(file.read(4 * frames), "<u4")
    end = _after_tags(file, table + 4 * frames + 4 + int(lengths.sum(dtype=np.int64)))
    return _appended(file, end, size, b"TTA1")


def _after_tags(file: Span, at: int) -> int:
    while tag := tag_bytes(file, at):
        at += tag
    return at

"""Files that are nothing but frames of sound, one behind the other: MP3 (with its elder layers) and AAC (ADTS).

Each frame says how long it is.  What lies between two of them is a tag, which is left out, or damage.
Where several such files were joined, each MP3 begins with a frame that says how many follow (Xing, Info, VBRI).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from featurestore.errors import MediaError
from featurestore.media.parts import Part
from featurestore.media.source import Reading, Span

_SEARCHED = 1 << 16  # bytes in which a first frame is looked for
_LONGEST = 1 << 13  # bytes of a frame

# Thousands of bits in a second, by (version 1, layer) and the number in the header; 0 is not stated.
_LOWER = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_BIT_RATES = {
    (True, 1): tuple(range(0, 449, 32)),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): _LOWER,
    (False, 3): _LOWER,
}
_RATES = (44_100, 48_000, 32_000)


def mpeg_bytes(header: bytes) -> int:
    """Length of a frame of MPEG audio by its first bytes; 0 if they do not say."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    number, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or number in (0, 15) or rate == 3:
        return 0
    bits = _BIT_RATES[version == 3, layer][number] * 1000
    hertz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    if layer == 1:
        return (12 * bits // hertz + padding) * 4
    return (144 if version == 3 or layer == 2 else 72) * bits // hertz + padding


def adts_bytes(header: bytes) -> int:
    """Length of a frame of ADTS by its first bytes; 0 if they do not say."""
    if len(header) < 6 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return 0
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length > 7 else 0


def frame_parts(path: Path, file: Reading, size: int) -> list[Part]:
    """The parts of a file of frames; none if it is no such file.

    Raises MediaError if something else than frames and tags is in its middle.
    """
    at = 0
    while tag := tag_bytes(file, at):
        at += tag
    for length in (mpeg_bytes, adts_bytes):
        first = _first(file, at, size, length)
        if first is not None:
            return _walked(path, file, size, first, length, begins=first == at)
    return []


def _walked(path: Path, file: Reading, size: int, at: int, length: Callable[[bytes], int], begins: bool) -> list[Part]:
    parts = [Part([], incomplete=not begins)]
    start = at  # of the range of frames that is walked through
    while at < size:
        header = _peek(file, at, 6)
        step = length(header)
        if step and at + step <= size:
            stated = stated_frames(_peek(file, at, 192)) if length is mpeg_bytes and (at == start or step > 100) else 0
            if stated and parts[-1].frames:
                parts[-1].spans.append((start, at))
                parts.append(Part([]))
                start = at
            if stated:
                parts[-1].stated_frames = stated
            else:
                parts[-1].frames += 1
            at += step
            continue
        if start < at:
            parts[-1].spans.append((start, at))
        if tag := tag_bytes(file, at):
            start = at = at + tag
            continue
        following = _first(file, at + 1, size, length)
        if following is not None:
            raise MediaError(f"{path} is damaged near byte {at}; copy or download it again", path)
        start = size
        parts[-1].incomplete |= bool(_peek(file, at, _SEARCHED).strip(b"\0"))
        break
    if start < at:
        parts[-1].spans.append((start, at))
    return parts


def _first(file: Reading, at: int, size: int, length: Callable[[bytes], int]) -> int | None:
    """Where the first frame is that another one, a tag or the end of the file follows; None if nowhere near."""
    data = _peek(file, at, _SEARCHED)
    found = data.find(b"\xff")
    while found >= 0:
        step = length(data[found : found + 6])
        after = at + found + step
        if step and (after == size or length(_peek(file, after, 6)) or (after < size and tag_bytes(file, after))):
            return at + found
        found = data.find(b"\xff", found + 1)
    return None


def tag_bytes(file: Reading | Span, at: int) -> int:
    """Length of a tag that begins there; 0 if none does."""
    head = _peek(file, at, 32)
    if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 128:
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        return 10 + size + (10 if head[5] & 0x10 else 0)
    if head[:3] == b"TAG":
        return 227 if head[3:4] == b"+" else 128
    if head[:8] == b"APETAGEX" and len(head) == 32:
        header = head[23] & 0x20
        return 32 + (int.from_bytes(head[12:16], "little") if header else 0)
    if head[:11] == b"LYRICSBEGIN":
        end = _peek(file, at, 1 << 20).find(b"LYRICS200")
        return end + 9 if end > 0 else 0
    return 0


def stated_frames(frame: bytes) -> int:
    """How many frames follow the first frame of an MP3 that says so; 0 for any other frame."""
    lower_rates, mono = not frame[1] & 0x08, frame[3] >> 6 == 3
    at = 4 + ((9 if mono else 17) if lower_rates else (17 if mono else 32))
    if frame[at : at + 4] in (b"Xing", b"Info"):
        return int.from_bytes(frame[at + 8 : at + 12], "big") if frame[at + 7] & 1 else 0
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big")
    return 0


def _peek(file: Reading | Span, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)

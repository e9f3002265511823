"""How long a file says that it is: only that tells one that was cut off from a shorter one.

A length that FFmpeg works out from the bit rate or from the last time that it finds is no statement, and a
stream of broadcast states none.
"""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.media.container import import_av, opened_video
from featurestore.media.scan import NO_TIME, SHOWN, Scan
from featurestore.media.source import TOLERANCE_S, Span

_TAG = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
_HEADER_BYTES = 1 << 16  # of a Matroska file that are searched for its length


def stated_seconds(format: str, stream: Any, file: BufferedReader | Span) -> tuple[float, bool]:
    """(seconds that the header states for a stream, whether it is of this stream); 0 where it states none.

    What is not of this stream alone is of the longest of the file.
    """
    if format.startswith("mov") or format in ("wav", "w64", "aiff", "caf"):
        return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0, True
    if format.startswith("matroska"):
        found = _TAG.match(stream.metadata.get("DURATION", ""))
        if found:
            return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]), True
        return _matroska_seconds(file), False
    if format == "avi":
        rate = stream.average_rate or Fraction(0)
        return float(stream.frames / rate) if rate else 0.0, True
    if format in ("flv", "asf", "asf_o"):
        return (stream.container.duration or 0) / 1e6, False
    return 0.0, False


def _matroska_seconds(file: BufferedReader | Span) -> float:
    """The element Duration of a Matroska file; 0 if it has none, as where it was written into a pipe."""
    file.seek(0)
    head = file.read(_HEADER_BYTES)
    info = head.find(b"\x15\x49\xa9\x66")
    if info < 0:
        return 0.0
    size, at = vint(head, info + 4)
    end = min(at + size, len(head))
    scale, duration = 1_000_000, 0.0
    while at < end:
        id, at = vint(head, at, keep=True)
        length, at = vint(head, at)
        data = head[at : at + length]
        if id == 0x2AD7B1:
            scale = int.from_bytes(data, "big")
        elif id == 0x4489 and length in (4, 8):
            duration = struct.unpack(">f" if length == 4 else ">d", data)[0] if len(data) == length else 0.0
        at += length
    seconds = duration * scale / 1e9
    return seconds if 0 < seconds < 1e9 else 0.0


def vint(data: bytes, at: int, keep: bool = False) -> tuple[int, int]:
    """(a number of EBML, where it ends); ids keep the bits that say how long they are."""
    if at >= len(data) or not data[at]:
        return 0, len(data)
    width = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + width], "big")
    return (value if keep else value & (1 << 7 * width) - 1), at + width


def missing_seconds(path: Path, stream: Any, scan: Scan, file: BufferedReader) -> float:
    """A file whose end is missing looks like a shorter one, but for what its header says, if it does."""
    stated, of_this = stated_seconds(scan.format, stream, file)
    shown = scan.flags & SHOWN > 0
    timed = shown & (scan.pts != NO_TIME)
    if not stated or not timed.any():
        return 0.0
    last = int(np.argmax(np.where(timed, scan.pts, NO_TIME)))
    duration = scan.durations[last]
    if scan.format == "avi" and scan.rate:
        seconds = stated - float((int(scan.dts.max()) + 1) * scan.time_base)
    elif not duration and of_this:
        return 0.0
    else:
        seconds = stated - float((int(scan.pts[last]) + duration - int(scan.pts[timed].min())) * scan.time_base)
    if seconds > TOLERANCE_S and not of_this:
        seconds = min(seconds, stated - _end_of_all(path))
    return seconds if seconds > TOLERANCE_S else 0.0


def _end_of_all(path: Path) -> float:
    """Seconds at which the last packet of any stream ends."""
    end, start = 0.0, float("inf")
    av = import_av()
    with opened_video(path) as (container, _):
        try:
            for packet in container.demux():
                if packet.pts is not None and packet.size:
                    start = min(start, float(packet.pts * packet.time_base))
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        except av.error.FFmpegError:
            pass
    return end - min(start, 0.0) if end else 0.0

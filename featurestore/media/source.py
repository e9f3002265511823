"""Which file was read: path, size, mtime and digest, as they go into the provenance of a row."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from itertools import accumulate
from pathlib import Path
from typing import Any

from featurestore.errors import MediaError
from featurestore.untrusted_io.files import open_untrusted

TOLERANCE_S = 0.25
"""seconds by which a stream may be shorter than its header announces: codecs pad, and headers round"""

NEAR = 1 << 20
"""bytes that are read rather than gone back for"""
MOST_ZEROS = 32 << 20
"""bytes; a picture of that many zeros would be black, raw, and 10,000 pixels wide"""

STEP = 64
"""bytes of zeros as which each step in them counts: some demuxers take two for each eight, and each asks for a call"""

LARGEST = (1 << 63) - 1
"""bytes of a file; a demuxer may be led beyond by what it reads"""

LOOK = "look at the path in the manifest, and whether the file is there and may be read"


def file_source(path: Path) -> dict[str, Any]:
    """{path, size, mtime_ns, sha256} of a file.

    Raises MediaError if it is missing, empty, not a file or cannot be read.  A missing or unreadable file
    may be there next time, so only an empty one is a failure worth recording.
    """
    with opened_file(path) as (file, status):
        return source_of(path, status, hashlib.file_digest(file, "sha256").hexdigest())


class Reading:
    """An open file as a demuxer reads it, bounded, and on demand with the digest of all of it: one read does for both.

    Demuxers go forward, but for a table at the end of the file; what they skip is read here.  Some walk through
    a hole of any size in search of the next picture: after MOST_ZEROS of nothing else the file seems to be over.

    Attributes:
        zeros: bytes of zeros that were read in a row, and steps in them.
        most_zeros: how many may be; None: any number.
        gave_up: whether there were too many.
    """

    def __init__(self, file: BufferedReader, path: Path, digest: bool = False) -> None:
        self.file = file
        self.name = str(path)  # demuxers look at its ending where the bytes leave a doubt
        self.zeros = 0
        self.most_zeros: int | None = MOST_ZEROS
        self.gave_up = False
        self._sha256 = hashlib.sha256() if digest else None
        self._hashed = 0

    def read(self, size: int) -> bytes:
        if self.most_zeros is not None and self.zeros > self.most_zeros:
            self.gave_up = True
            return b""
        at = self.file.tell()
        if self._sha256 is not None and 0 < at - self._hashed <= NEAR:
            self._catch_up(at)
        data = self.file.read(size)
        self.zeros = self.zeros + len(data) if _is_nothing(data) else 0
        fresh = self._hashed - at
        if self._sha256 is not None and 0 <= fresh < len(data):
            self._sha256.update(memoryview(data)[fresh:])
            self._hashed = at + len(data)
        return data

    def begin(self) -> None:
        """What was read to find out what the file is does not count."""
        self.zeros = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0 and not 0 <= offset <= LARGEST:
            return -1
        if self.zeros:
            self.zeros += STEP
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def begins_with(self, marks: tuple[bytes, ...]) -> bool:
        """Whether one of these is where an ISO file names its first box."""
        return os.pread(self.file.fileno(), 8, 0)[4:] in marks

    def header_is_cut(self) -> bool:
        """Whether an ISO file ends within its table of contents, so that tracks or frames of it may be unknown."""
        at, end = 0, os.fstat(self.file.fileno()).st_size
        while at < end:
            head = os.pread(self.file.fileno(), 16, at)
            size = int.from_bytes(head[:4], "big")
            if size == 1:
                size = int.from_bytes(head[8:], "big")
            if head[4:8] == b"moov" and at + size > end:
                return True
            if size < 8:  # to the end of the file, or no box
                return False
            at += size
        return False

    def sha256(self) -> str:
        """Hexadecimal, of the whole file; reads what was not read yet.  MediaError if that was given up too early."""
        assert self._sha256 is not None
        if self._catch_up(None) and self.gave_up:
            raise MediaError(
                f"{self.name} has a hole: zeros that are not walked through, up to {MOST_ZEROS >> 20} MiB, and then "
                "other bytes; copy or download it again",
                Path(self.name),
            )
        return self._sha256.hexdigest()

    def _catch_up(self, end: int | None) -> bool:
        """Hash up to a place in the file, or its end: whether there was something else than zeros."""
        assert self._sha256 is not None
        something = False
        self.file.seek(self._hashed)
        while end is None or self._hashed < end:
            data = self.file.read(NEAR if end is None else min(NEAR, end - self._hashed))
            if not data:
                break
            something = something or not _is_nothing(data)
            self._sha256.update(data)
            self._hashed += len(data)
        if end is not None:
            self.file.seek(end)
        return something


def _is_nothing(data: bytes) -> bool:
    return not any(data[:16]) and data == bytes(len(data))  # most are told by their beginning


class Span:
    """Pieces of a file, one behind the other, as a demuxer reads them: [(first byte, byte after the last)]."""

    def __init__(self, whole: Reading, pieces: list[tuple[int, int]]) -> None:
        self.name = whole.name
        self._whole = whole
        self._pieces = pieces
        self._starts = [0, *accumulate(end - start for start, end in pieces)]
        self._at = 0

    def read(self, size: int) -> bytes:
        if not 0 <= self._at < self._starts[-1]:
            return b""
        number = bisect_right(self._starts, self._at) - 1
        start, end = self._pieces[number]
        at = start + self._at - self._starts[number]
        if self._whole.tell() != at:
            self._whole.seek(at)
        data = self._whole.read(min(size, end - at))
        self._at += len(data)
        return data

    def begin(self) -> None:
        self._whole.begin()

    def seek(self, offset: int, whence: int = 0) -> int:
        at = offset + (0, self._at, self._starts[-1])[whence]
        if not 0 <= at <= LARGEST:
            return -1
        if self._whole.zeros:
            self._whole.zeros += STEP
        self._at = at
        return at

    def tell(self) -> int:
        return self._at


@contextmanager
def opened_file(path: Path) -> Iterator[tuple[BufferedReader, os.stat_result]]:
    """(the file, its status) for reading; MediaError as of `file_source`, also for what goes wrong while it is read."""
    try:
        with open_untrusted(path) as (file, status):
            if status.st_size == 0:
                raise MediaError(f"{path} is empty (0 bytes); copy or download it again", path)
            yield file, status
    except OSError as error:
        raise unavailable(path, f"{error.strerror or error}; {LOOK}") from error


def source_of(path: Path, status: os.stat_result, sha256: str) -> dict[str, Any]:
    """As it goes into the provenance of a row."""
    return {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256}


def check_unchanged(source: dict[str, Any]) -> None:
    """MediaError if the file is not the one that was read before: its index would point at other frames."""
    path = Path(source["path"])
    try:
        status = os.stat(path)
    except OSError as error:
        raise unavailable(path, f"{error.strerror or error}; {LOOK}") from error
    if (status.st_size, status.st_mtime_ns) != (source["size"], source["mtime_ns"]):
        raise unavailable(path, "changed while it was being read; run again when it is complete")


def unavailable(path: Path, why: str) -> MediaError:
    """A MediaError that is not recorded: the same path may work next time."""
    error = MediaError(f"{path}: {why}", path)
    error.deterministic = False
    return error

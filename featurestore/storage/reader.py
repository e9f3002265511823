"""The read path: one committed recipe of a feature store, with the standard library and numpy only.

This file is complete in itself.  Copied into an old training environment (Python 3.8, numpy 1.20)
it reads a store without the package:

    from reader import open_key
    features = open_key("features", "mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8")
    features.get("sample_00000001")            # (8, 768) array, or None if it is not stored
    features.get_many(ids)                     # (N, 8, 768); LookupError names what is not stored

On disk a recipe is a directory with `segments/<name>/{zarr.json,c.0.0.0,rows}`; a segment is never
changed once it is there.  `docs/format.md` has every byte.  Nothing here locks, writes, or starts a
thread, so that a reader may be forked at any moment; pickled, it is its path and reopens.

Checksums need the package google-crc32c; without it rows are returned unchecked, after one warning.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import logging
import mmap
import os
import re
import resource
import stat
import threading
import time
import warnings
import weakref
from collections import deque
from typing import Any, Callable, Container, Dict, Iterator, List, Optional, Sequence, Set, Tuple

import numpy as np

try:
    import google_crc32c

    crc32c = google_crc32c.value  # of bytes or of a C-contiguous array
except ImportError:  # pragma: no cover - exercised by the test that copies this file alone
    crc32c = None

FORMAT = 1
DTYPES = {"float16": "<f2", "float32": "<f4"}
SEAL_MARK = b'"seal":"'
SEAL_SIZE = 64
# One record of the fixed part of `rows`: which id, where its line begins, and what both must hash to.
RECORD = np.dtype([("hi", ">u8"), ("lo", ">u8"), ("line", "<u8"), ("crc", "<u4"), ("line_crc", "<u4")])
CHUNK_INDEX = np.dtype([("offset", "<u8"), ("size", "<u8")])
MEMO_IDS = 65_536  # ids whose position is remembered, which spares their digest
DICT_ROWS = 200_000  # above this a sorted numpy table: 24 bytes a row instead of about 150
_MAY_OPEN = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # files of this process; -1 for no limit
# Whose descriptors and maps are kept per process: two each, so at most half of what it may open.
OPEN_SEGMENTS = 256 if _MAY_OPEN < 0 else min(256, _MAY_OPEN // 4)
SETTLED_S = 2.0  # a directory that changed this recently may change again within one clock tick
OLD_S = 2 * 86_400  # by clocks of two machines that may be a day apart
ROW_BYTES = 128 << 20  # of one sample: 30 kB on disk may claim to be any number
HEADER_BYTES = 64 << 20  # a million names of replaced segments
RELISTS = 5  # before going on with a listing that names what is not there
NETWORK = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "9p", "fuse", "afs")
GONE = (errno.ENOENT, errno.ESTALE)
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # says nothing about the file
SEGMENT_NAME = re.compile(rb"[0-9]{20}-[0-9a-f]{32}")

# What is imported when first needed is imported under this, which a fork waits for: of an import that another
# thread is in the middle of, the child would wait for the end for ever.
IMPORTING = threading.RLock()
os.register_at_fork(before=IMPORTING.acquire, after_in_parent=IMPORTING.release, after_in_child=IMPORTING.release)

logger = logging.getLogger("featurestore")
Position = Tuple["Segment", int]
_opened: deque[weakref.ref[Segment]] = deque()
_warned_unchecked = False


class UnknownFormatError(ValueError):
    """Written by a later version: upgrade featurestore to read it."""


class CorruptRowError(ValueError):
    """Bytes of a row, or of a whole segment where `row` is None, are not those that were committed."""

    def __init__(self, segment: Segment, row: Optional[int], what: str) -> None:
        super().__init__(f"{'segment' if row is None else f'row {row} of segment'} {segment.path}: {what}")
        self.segment = segment
        self.row = row


_DIGEST = hashlib.blake2b(digest_size=16)  # copied, which takes less than making one


def id_digest(id: str) -> bytes:
    """16 bytes by which a sample is found."""
    digest = _DIGEST.copy()
    digest.update(id.encode())
    return digest.digest()


def seal_of(document: bytes) -> Tuple[bytes, bytes]:
    """(seal in the document, seal it should have).  The digest is over the document with zeros in its place."""
    at = document.rfind(SEAL_MARK) + len(SEAL_MARK)
    found = document[at : at + SEAL_SIZE]
    blank = document[:at] + b"0" * SEAL_SIZE + document[at + SEAL_SIZE :]
    return found, hashlib.blake2b(blank, digest_size=SEAL_SIZE // 2).hexdigest().encode()


def _parsed(text: bytes) -> Any:
    """What JSON says.  Raises ValueError, also for what is nested more deeply than Python can follow."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


class _Descriptor:
    """An open file that closes when its last user lets go: a thread may still read while another evicts."""

    __slots__ = ("number",)

    def __init__(self, path: str) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self.number >= 0:
            close(self.number)  # the name `os` is gone when this runs at the end of Python


class Segment:
    """One immutable array of `n` rows (n_frames, dim), opened for reading by `open_segment`."""

    def __init__(self, path: str, header: Dict[str, Any], shape: Tuple[int, int, int], dtype: str, crcs: Any) -> None:
        self.path = path
        self.name = os.path.basename(path)
        self.header = header
        self.n = shape[0]
        self.shape = shape[1:]
        self.dtype = np.dtype(dtype)
        self.codec: Optional[str] = header["codec"]
        self.replaces: List[str] = header["replaces"]
        self.crcs = memoryview(crcs)  # plain numbers come out of it, which compare faster than numpy's
        self.payload = self.shape[0] * self.shape[1] * self.dtype.itemsize
        self.pitch = self.payload + 4
        self.checked = bytearray(self.n)
        self.mapped = False  # whether rows may be read through a map; the reader knows the file system
        self._shard: Optional[_Descriptor] = None
        self._view: Any = None
        self._index: Any = None

    def read(self, row: int) -> Any:
        """A fresh (n_frames, dim) array.  Checked against its checksum the first time."""
        if self.checked[row]:
            view = self._view
            if view is None:
                view = self.view()
            if view is not None:
                return view[row].copy()
        return self._read_into(row, np.empty(self.shape, self.dtype))

    def read_rows(self, rows: Sequence[int], outs: Sequence[Any]) -> None:
        """Several rows into C-contiguous arrays (n_frames, dim) of the stored dtype."""
        view = self.view()
        if view is None:
            for row, out in zip(rows, outs):
                self._read_into(row, out)
            return
        checked = self.checked
        unchecked = [row for row in rows if not checked[row]]
        if len(unchecked) > 1:
            self._advise(unchecked)
        for row, out in zip(rows, outs):
            out[...] = view[row]
            if not checked[row]:
                self._check(row, out)

    def gather(self, rows: Sequence[int]) -> Any:
        """Several rows as one fresh array (k, n_frames, dim); None where there is no map to take them from."""
        view = self.view()
        if view is None:
            return None
        checked = self.checked
        unchecked = [slot for slot, row in enumerate(rows) if not checked[row]]
        if len(unchecked) > 1:
            self._advise([rows[slot] for slot in unchecked])
        out = view[rows]
        for slot in unchecked:
            self._check(rows[slot], out[slot])
        return out

    def _read_into(self, row: int, out: Any) -> Any:
        if self.codec is not None:
            self._inflate_into(row, out)
            return out
        # Held by name while its number is in use: another thread may let go of the segment, and the
        # number would then be that of any other file.
        shard = self._shard or self.shard()
        if os.preadv(shard.number, [out], row * self.pitch) != self.payload:
            raise CorruptRowError(self, row, "the file ends before the row does")
        if not self.checked[row]:
            self._check(row, out)
        return out

    def _inflate_into(self, row: int, out: Any) -> None:
        with IMPORTING:
            from numcodecs import Zstd  # only stores that were compacted with --codec zstd need it

        start, size = self.chunk(row)
        shard = self.shard()
        stored = os.pread(shard.number, size, start)
        if len(stored) != size:
            raise CorruptRowError(self, row, "the file ends before the row does")
        if not self.checked[row]:
            self._check(row, stored)
        # decode leaves the rest of `out` as it was where a frame holds less.
        if _declared_size(stored) != self.payload:
            raise CorruptRowError(self, row, "the stored frame holds another number of bytes")
        try:
            Zstd().decode(stored, out=out.reshape(-1).view(np.uint8))
        except (RuntimeError, ValueError) as error:
            raise CorruptRowError(self, row, str(error)) from None

    def _check(self, row: int, stored: Any) -> None:
        if crc32c is None:
            _warn_unchecked()
        elif crc32c(stored) != self.crcs[row]:
            raise CorruptRowError(self, row, "checksum differs from the one committed with its id")
        self.checked[row] = 1

    def chunk(self, row: int) -> Tuple[int, int]:
        """(offset, size) of a stored row in the shard, by the shard's own index."""
        if self._index is None:
            size = self.n * CHUNK_INDEX.itemsize
            shard = self.shard()
            raw = os.pread(shard.number, size + 4, self.header["shard"]["bytes"] - size - 4)
            if crc32c is not None and crc32c(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
                raise CorruptRowError(self, None, "the shard index fails its checksum")
            self._index = np.frombuffer(raw[:-4], CHUNK_INDEX)
        position = self._index[row]
        offset, size = int(position["offset"]), int(position["size"])
        if offset + size > self.header["shard"]["bytes"] or size > 2 * self.pitch + 1024:
            raise CorruptRowError(self, row, "the shard index points outside the file")
        return offset, size

    def shard(self) -> _Descriptor:
        descriptor = self._shard
        if descriptor is None:
            descriptor = _Descriptor(os.path.join(self.path, "c.0.0.0"))
            # Read past the end of a shorter file would be SIGBUS once it is mapped.
            if os.fstat(descriptor.number).st_size != self.header["shard"]["bytes"]:
                raise CorruptRowError(self, None, "size of `c.0.0.0` differs from the one committed")
            self._shard = descriptor
            _opened.append(weakref.ref(self))
            while len(_opened) > OPEN_SEGMENTS:
                oldest = _opened.popleft()()
                if oldest is not None:
                    oldest.close()
        return descriptor

    def view(self) -> Any:
        """The whole shard as a read-only (n, n_frames, dim) array over a map; the row pitch skips the checksums.

        None where rows are compressed or cannot be mapped.
        """
        view = self._view
        if view is None and self.mapped and self.codec is None:
            shard = self.shard()
            try:
                pages = mmap.mmap(shard.number, 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError):  # no maps on this file system, or too many of them: pread needs none
                self.mapped = False
                return None
            strides = (self.pitch, self.shape[1] * self.dtype.itemsize, self.dtype.itemsize)
            view = self._view = np.ndarray((self.n, *self.shape), self.dtype, pages, 0, strides)
        return view

    def _advise(self, rows: Sequence[int]) -> None:
        if not hasattr(os, "posix_fadvise"):  # macOS
            return
        # One advice for neighbours: a scan would otherwise pay one system call a row.
        shard = self.shard()
        start = stop = -1
        for row in sorted(rows):
            if row * self.pitch > stop + 65536:
                if stop > 0:
                    os.posix_fadvise(shard.number, start, stop - start, os.POSIX_FADV_WILLNEED)
                start = row * self.pitch
            stop = (row + 1) * self.pitch
        os.posix_fadvise(shard.number, start, stop - start, os.POSIX_FADV_WILLNEED)

    def line(self, row: int) -> Dict[str, Any]:
        """What was committed with a row: id, frames, seconds, provenance."""
        document: Dict[str, Any] = next(self._lines(row, row + 1))[1]
        return document

    def lines(self) -> Iterator[Dict[str, Any]]:
        """The lines of all rows in order, each checked."""
        return (line for _, line in self.numbered_lines())

    def numbered_lines(
        self, leave_out: Container[int] = (), bad: Optional[List[CorruptRowError]] = None
    ) -> Iterator[Tuple[int, Dict[str, Any]]]:
        """(row, line) of all rows in order but some, each checked.  Errors go into `bad`, or end it without."""
        for start in range(0, self.n, 4096):
            yield from self._lines(start, min(start + 4096, self.n), leave_out, bad)

    def numbered_ids(
        self, leave_out: Container[int] = (), bad: Optional[List[CorruptRowError]] = None
    ) -> Iterator[Tuple[int, str]]:
        """(row, id), otherwise the same: in a third of the time, as what else a line holds is not looked at."""
        for start in range(0, self.n, 4096):
            yield from self._lines(start, min(start + 4096, self.n), leave_out, bad, self._id)

    def _lines(
        self,
        start: int,
        stop: int,
        leave_out: Container[int] = (),
        bad: Optional[List[CorruptRowError]] = None,
        read: Optional[Callable[[int, bytes, int, int], Any]] = None,
    ) -> Iterator[Tuple[int, Any]]:
        read = read or self._document
        descriptor = _Descriptor(os.path.join(self.path, "rows"))
        whole = stop == self.n
        size = (stop - start + (not whole)) * RECORD.itemsize
        raw = os.pread(descriptor.number, size, start * RECORD.itemsize)
        if len(raw) != size:
            raise CorruptRowError(self, None, "the file `rows` is shorter than the rows it lists")
        records = np.frombuffer(raw, RECORD)
        offsets = [int(offset) for offset in records["line"]] + ([self.header["rows"]["bytes"]] if whole else [])
        if not 0 <= offsets[0] <= offsets[-1] <= self.header["rows"]["bytes"]:
            raise CorruptRowError(self, None, "a line in `rows` is not where the table says")
        text = os.pread(descriptor.number, offsets[-1] - offsets[0], offsets[0])
        crcs, digests = records["line_crc"].tolist(), records["hi"].tolist()
        for i in range(stop - start):
            if start + i in leave_out:
                continue
            line = text[offsets[i] - offsets[0] : offsets[i + 1] - offsets[0]]
            try:
                document = read(start + i, line, crcs[i], digests[i])
            except CorruptRowError as error:
                if bad is None:
                    raise
                bad.append(error)
            else:
                yield start + i, document

    def _id(self, row: int, line: bytes, crc: int, hi: int) -> Any:
        id = line[7 : line.find(b'"', 7)].decode("utf-8", "replace")
        plain = line[:7] == b'{"id":"' and "\\" not in id
        if not plain or (crc32c is not None and crc32c(line) != crc) or id_digest(id)[:8] != hi.to_bytes(8, "big"):
            return self._document(row, line, crc, hi)["id"]  # written in another way, or damaged
        return id

    def _document(self, row: int, line: bytes, crc: int, hi: int) -> Dict[str, Any]:
        if crc32c is not None and crc32c(line) != crc:
            raise CorruptRowError(self, row, "its line in `rows` fails its checksum")
        try:
            document: Dict[str, Any] = _parsed(line)
            digest = id_digest(document["id"])
            wrong = _misfit(document, self.shape[0])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            wrong = repr(error)
        if wrong:
            raise CorruptRowError(self, row, f"its line in `rows` is none: {wrong}")
        if int.from_bytes(digest[:8], "big") != hi:
            raise CorruptRowError(self, row, "its line in `rows` is that of another sample")
        return document

    def records(self) -> Any:
        """The fixed part of `rows`: (n,) of RECORD."""
        with open(os.path.join(self.path, "rows"), "rb") as file:
            return np.frombuffer(file.read(self.n * RECORD.itemsize), RECORD)

    def close(self) -> None:
        """Let go of the file and the map; both come back when needed."""
        self._view = None
        self._shard = None

    def same_type(self, other: Segment) -> bool:
        return self.shape[1] == other.shape[1] and self.dtype == other.dtype

    def __repr__(self) -> str:
        return f"Segment({self.name}, {(self.n, *self.shape)} {self.dtype})"


def open_segment(path: str, fingerprint: str, key: str) -> Tuple[Segment, Any]:
    """(segment, its records): seal, names, sizes and the table's digest are checked, no row is read.

    Raises ValueError or OSError saying what is wrong with it.
    """
    _require_file(os.path.join(path, "zarr.json"), None)
    with open(os.path.join(path, "zarr.json"), "rb") as file:
        document = file.read()
    found, expected = seal_of(document)
    if found != expected:
        raise ValueError("zarr.json fails its seal")
    array = _parsed(document)
    header = _header_of(array)
    if header["format"] > FORMAT:
        raise UnknownFormatError(
            f"{path} is format {header['format']}, this version reads up to {FORMAT}: upgrade featurestore"
        )
    for name, mine in (("fingerprint", fingerprint), ("key", key), ("name", os.path.basename(path))):
        if header[name] != mine:
            raise ValueError(f"{name} is {header[name]!r}, not {mine!r}: the segment was moved here from elsewhere")
    shape = _shape_of(array, header)
    if str(shape[1]) != key.rsplit("/", 1)[1] and not key.endswith("/all"):
        raise ValueError(f"rows have {shape[1]} frames, not those of the key")
    rows_path = os.path.join(path, "rows")
    _require_file(rows_path, header["rows"]["bytes"])
    if shape[0]:
        _require_file(os.path.join(path, "c.0.0.0"), header["shard"]["bytes"])
    with open(rows_path, "rb") as file:
        table = file.read(shape[0] * RECORD.itemsize)
    if hashlib.blake2b(table, digest_size=32).hexdigest() != header["rows"]["table_blake2b"]:
        raise ValueError("the table in `rows` fails its digest")
    records = np.frombuffer(table, RECORD)
    # Each line behind the one before: thousands that begin where the first does would be read for ever.
    positions = records["line"]
    if shape[0] and not (
        shape[0] * RECORD.itemsize <= positions[0]
        and (positions[1:] > positions[:-1]).all()
        and positions[-1] < header["rows"]["bytes"]
    ):
        raise ValueError("the lines in `rows` are not one behind the other")
    return Segment(path, header, shape, DTYPES[array["data_type"]], records["crc"].astype(np.uint32)), records


def _require_file(path: str, size: Optional[int]) -> None:
    """ValueError where it is no file, or not of the size that was committed; a pipe would be waited for."""
    status = os.stat(path)
    name = os.path.basename(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"`{name}` is no file")
    if status.st_size > HEADER_BYTES if size is None else status.st_size != size:
        raise ValueError(f"size of `{name}` differs from the one committed")


def _header_of(array: Any) -> Dict[str, Any]:
    """The segment's own description in its zarr.json, of which only the format is known to be right.

    Raises ValueError for a document of anything else.
    """
    try:
        header: Dict[str, Any] = array["attributes"]["featurestore"]
        if type(header["format"]) is int:
            return header
    except (LookupError, TypeError):
        pass
    raise ValueError("zarr.json is not that of a segment")


def _shape_of(array: Dict[str, Any], header: Dict[str, Any]) -> Tuple[int, int, int]:
    """(n, n_frames, dim), once all that readers rely on was found to be what the format says.

    A seal proves that nothing changed since, not that a store wrote it.  Raises ValueError.
    """
    try:
        shape, shard, rows = array["shape"], header["shard"]["bytes"], header["rows"]["bytes"]
        n, n_frames, dim = shape
        codec, replaces, made_with = header["codec"], header["replaces"], header["made_with"]
        _ = header["shard"]["blake2b"], header["rows"]["blake2b"], header["rows"]["table_blake2b"]  # are there
        payload = n_frames * dim * (4 if DTYPES[array["data_type"]] == "<f4" else 2)
        numbers = all(type(number) is int and 0 <= number < 1 << 62 for number in (*shape, shard, rows))
        texts = type(replaces) is list and all(type(name) is str for name in replaces) and type(made_with) is dict
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"zarr.json is not that of a segment: {error!r}") from None
    if not numbers or not texts or codec not in (None, "zstd"):
        raise ValueError("zarr.json is not that of a segment, or its codec is not known")
    if payload > ROW_BYTES:
        raise ValueError(f"rows are {payload} bytes each, and more than {ROW_BYTES} are not read")
    index = n * CHUNK_INDEX.itemsize + 4 if n else 0
    if rows < n * RECORD.itemsize or (shard != n * (payload + 4) + index if codec is None else shard < index):
        raise ValueError(f"{n} rows do not fit into the files of these sizes")
    return n, n_frames, dim


def _misfit(line: Dict[str, Any], n_frames: int) -> str:
    """What a line holds that no line may hold; empty where there is nothing."""
    frames, seconds = line.get("frame_indices"), line.get("timestamps_s")
    if frames is not None:
        whole = type(frames) is list and len(frames) == n_frames and set(map(type, frames)) <= {int}
        if not whole or (n_frames and not -(1 << 63) <= min(frames) <= max(frames) < 1 << 63):
            return f"frame_indices are not {n_frames} whole numbers"
    if seconds is not None:
        numbers = type(seconds) is list and len(seconds) == n_frames and set(map(type, seconds)) <= {int, float}
        if not numbers or [second for second in seconds if not -1e300 < second < 1e300]:
            return f"timestamps_s are not {n_frames} numbers"
    provenance = line.get("provenance")
    if provenance is None:
        return ""
    if type(provenance) is not dict:
        return "provenance is not an object"
    sources = provenance.get("sources", [])
    named = type(sources) is list and all(type(one) is dict and type(one.get("path")) is str for one in sources)
    return "" if named else "sources are not a list of objects with a path"


def names_replaced(path: str) -> Set[str]:
    """What a damaged segment replaces, by what is left of the two files that say so.

    That was overwritten or deleted, and must not come back because what replaced it is damaged.
    """
    found: Set[bytes] = set()
    for name, begin, end in (("replaces", b"", b"\0"), ("zarr.json", b'"replaces":[', b"]")):
        try:
            _require_file(os.path.join(path, name), None)
            with open(os.path.join(path, name), "rb") as file:
                found.update(SEGMENT_NAME.findall(_between(file.read(), begin, end)))
        except (OSError, ValueError):
            pass  # the other one may be there
    return {name.decode() for name in found}


def _between(text: bytes, begin: bytes, end: bytes) -> bytes:
    return text[text.find(begin) + len(begin) :].split(end)[0] if begin in text else b""


class SortedTable:
    """Digest -> position for many rows: sorted numpy columns instead of a dict of bytes."""

    def __init__(self, hi: Any, lo: Any, positions: Any) -> None:
        # Stable: of two rows with one digest the earlier segment's stays first, and the first wins.
        order = np.argsort(hi, kind="stable")
        self.hi = hi[order]
        self.lo = lo[order]
        self.positions = positions[order]

    def get(self, digest: bytes) -> Optional[int]:
        hi = np.uint64(int.from_bytes(digest[:8], "big"))
        lo = int.from_bytes(digest[8:], "big")
        at = int(self.hi.searchsorted(hi))
        while at < len(self.hi) and self.hi[at] == hi:
            if self.lo[at] == lo:
                return int(self.positions[at])
            at += 1
        return None

    def __len__(self) -> int:
        same = (self.hi[1:] == self.hi[:-1]) & (self.lo[1:] == self.lo[:-1])
        return len(self.hi) - int(np.count_nonzero(same))


class _Snapshot:
    """What a reader knows of the disk.  Never changed, only succeeded: a thread may still be reading an older one."""

    __slots__ = ("by_name", "first", "later", "look", "memo", "mtime_ns", "segments", "settled", "since_s", "table")

    def __init__(self, mtime_ns: int, by_name: Dict[str, Segment], segments: List[Segment], table: Any) -> None:
        self.mtime_ns = mtime_ns  # of `segments/`, taken before it was listed
        self.look = 0  # which look at the disk found it: a later one is never older
        self.since_s = 0.0  # by this machine's own clock: when a listing first found this mtime
        self.settled = False  # nothing can have changed while the mtime stays
        self.by_name = by_name  # all that are on disk and sound, replaced ones too
        self.first = by_name[min(by_name)] if by_name else None
        self.segments = segments  # those that count, in name order
        self.table: Any = table  # digest -> number of the segment << 32 | row
        self.later: Dict[bytes, int] = {}  # the same for segments that came after the table was made
        self.memo: Dict[str, Position] = {}

    def grown(self, mtime_ns: int, opened: Dict[str, Tuple[Segment, Any]]) -> _Snapshot:
        """The next one, with later segments; what each commit comes to."""
        after = _Snapshot.__new__(_Snapshot)
        after.mtime_ns, after.first, after.table, after.memo = mtime_ns, self.first, self.table, self.memo
        after.by_name, after.segments, after.later = self.by_name, self.segments, self.later
        if opened:
            after.by_name, after.segments, after.later = dict(self.by_name), list(self.segments), dict(self.later)
        after.look, after.since_s, after.settled = self.look, self.since_s, False
        for name, (segment, records) in sorted(opened.items()):
            positions = np.arange(segment.n, dtype=np.int64) | len(after.segments) << 32
            after.segments.append(segment)
            after.by_name[name] = segment
            for digest, position in zip(_digests(records), positions.tolist()):
                if self.at(digest) is None:
                    after.later.setdefault(digest, position)
        return after

    def at(self, digest: bytes) -> Optional[int]:
        at = self.table.get(digest)
        return self.later.get(digest) if at is None else at

    def find(self, id: str) -> Optional[Position]:
        digest = id_digest(id)
        at = self.table.get(digest)
        if at is None:
            at = self.later.get(digest)
            if at is None:
                return None
        if len(self.memo) >= MEMO_IDS:
            self.memo.clear()
        position = self.memo[id] = (self.segments[at >> 32], at & 0xFFFFFFFF)
        return position

    def count(self) -> int:  # not __len__: an empty snapshot would be false
        return len(self.table) + len(self.later)


class Reader:
    """The rows of one recipe, as they were at the last `refresh`.  Touches no disk until it is used."""

    def __init__(self, path: str, key: str) -> None:
        self.path = path
        self.key = key
        self.fingerprint = os.path.basename(path)
        self.problems: Dict[str, str] = {}  # segment name -> what is wrong with it
        self.unread: Set[str] = set()  # of these, what the system could not read: it may work next time
        self._skipped: Dict[str, Set[str]] = {}  # damaged segment -> names that it replaces
        self._bad_rows: Dict[str, Set[int]] = {}
        self._warned: Set[str] = set()
        self._snapshot: Optional[_Snapshot] = None
        self._looks = itertools.count(1)
        self._mapped: Optional[bool] = None

    def __getstate__(self) -> Dict[str, str]:
        return {"path": self.path, "key": self.key}

    def __setstate__(self, state: Dict[str, str]) -> None:
        self.__init__(state["path"], state["key"])  # type: ignore[misc]

    # -- finding -------------------------------------------------------------------------------

    def find(self, id: str) -> Optional[Position]:
        """(segment, row) of a sample, or None."""
        snapshot = self._snapshot or self._load()
        return snapshot.memo.get(id) or snapshot.find(id)

    def __contains__(self, id: str) -> bool:
        return self.find(id) is not None

    def __len__(self) -> int:
        """Number of samples."""
        return (self._snapshot or self._load()).count()

    @property
    def segments(self) -> List[Segment]:
        """The segments that count, in name order; replaced ones are left out."""
        return (self._snapshot or self._load()).segments

    @property
    def seen(self) -> object:
        """What is known of the disk: the same object while nothing came, went or was left out; None before a look."""
        snapshot = self._snapshot
        return snapshot and snapshot.segments

    @property
    def replaced(self) -> List[Segment]:
        """Segments still on disk that another one replaces, in name order."""
        snapshot = self._snapshot or self._load()
        counted = {segment.name for segment in snapshot.segments}
        return [snapshot.by_name[name] for name in sorted(snapshot.by_name) if name not in counted]

    @property
    def replaced_by_damaged(self) -> Set[str]:
        """Names of what damaged segments replace, as far as that can still be read."""
        return set().union(*self._skipped.values())

    @property
    def row_type(self) -> Optional[Tuple[Tuple[int, int], Any]]:
        """((n_frames, dim), dtype) of the first segment, or None while nothing was ever stored."""
        first = (self._snapshot or self._load()).first
        return (first.shape, first.dtype) if first is not None else None

    def rows(
        self, of: Optional[Sequence[Segment]] = None, bad: Optional[List[CorruptRowError]] = None
    ) -> Iterator[Tuple[Dict[str, Any], Segment, int]]:
        """(line, segment, row) of every sample, or of those in some segments; line["id"] is the sample's.

        Rows whose line is damaged are left out and put into `bad`; without it the first one raises CorruptRowError.
        """
        snapshot = self._snapshot or self._load()
        all_count = sum(segment.n for segment in snapshot.segments) == snapshot.count()
        wanted = None if of is None else set(of)
        for number, segment in enumerate(snapshot.segments):
            if wanted is not None and segment not in wanted:
                continue
            for row, line in segment.numbered_lines(self._bad_rows.get(segment.name, ()), bad):
                if all_count or snapshot.at(id_digest(line["id"])) == (number << 32 | row):
                    yield line, segment, row

    def _listed(self, bad: List[CorruptRowError]) -> Iterator[str]:
        snapshot = self._snapshot or self._load()
        all_count = sum(segment.n for segment in snapshot.segments) == snapshot.count()
        for number, segment in enumerate(snapshot.segments):
            for row, id in segment.numbered_ids(self._bad_rows.get(segment.name, ()), bad):
                if all_count or snapshot.at(id_digest(id)) == (number << 32 | row):
                    yield id

    def ids(self) -> List[str]:
        """Sorted by code point."""
        tries = 0
        while True:
            bad: List[CorruptRowError] = []
            try:
                found = sorted(self._listed(bad))
            except (OSError, CorruptRowError) as error:
                tries += 1
                self.recover(error, tries > RELISTS)  # a look at every file takes long enough for more to go
                continue
            if not bad:
                return found
            # All at once: looking again after each would take the square of their number.
            self.leave_out(bad)

    # -- reading -------------------------------------------------------------------------------

    def get(self, id: str, _again: bool = False) -> Any:
        """A fresh, writable (n_frames, dim) array of the stored dtype, or None."""
        snapshot = self._snapshot or self._load()
        position = snapshot.memo.get(id) or snapshot.find(id)
        if position is None:
            return None
        segment, row = position
        try:
            return segment.read(row)
        except (OSError, CorruptRowError) as error:
            self.recover(error, _again)
        return self.get(id, True)

    def line(self, id: str, _again: bool = False) -> Optional[Dict[str, Any]]:
        """What was committed with a row: id, frame indices, seconds, provenance; or None."""
        position = self.find(id)
        if position is None:
            return None
        try:
            return position[0].line(position[1])
        except (OSError, CorruptRowError) as error:
            self.recover(error, _again)
        return self.line(id, True)

    def get_many(self, ids: Sequence[str], out: Any = None, _again: bool = False) -> Any:
        """(N, n_frames, dim) in the order of the request, or a list where the number of rows varies.

        Raises LookupError naming an id that is not stored, ValueError for an `out` of another form.
        """
        found = [self.find(id) for id in ids]
        positions = [position for position in found if position is not None]
        if len(positions) < len(found):
            absent = [id for id, position in zip(ids, found) if position is None]
            raise LookupError(f"{len(absent)} of {len(ids)} ids are not stored, e.g. {absent[0]!r}")
        if out is not None and not (positions and fits(out, (len(ids), *positions[0][0].shape), positions[0][0].dtype)):
            raise ValueError("out is not a writable C-contiguous array (N, n_frames, dim) of the stored dtype")
        try:
            return self.fill(positions, out)
        except (OSError, CorruptRowError) as error:
            self.recover(error, _again)
        return self.get_many(ids, out, True)

    def empty(self, n: int) -> Any:
        """What `fill` returns: an array (n, n_frames, dim), or a list where the number of rows varies."""
        if self.key.endswith("/all"):
            return [None] * n
        shape, dtype = self.row_type or ((0, 0), np.dtype("f4"))
        return np.empty((n, *shape), dtype)

    def fill(self, positions: Sequence[Position], out: Any = None) -> Any:
        """Rows at `positions` into out[0], out[1], ...; returns `out`, by default a fresh array or list."""
        if out is None:
            first = positions[0][0] if positions and not self.key.endswith("/all") else None
            if first is not None and all(segment is first for segment, _ in positions):
                out = first.gather([row for _, row in positions])  # numpy's own loop
                if out is not None:
                    return out
            out = self.empty(len(positions))
        groups: Dict[Segment, Tuple[List[int], List[Any]]] = {}
        for slot, (segment, row) in enumerate(positions):
            group = groups.get(segment)
            if group is None:
                group = groups[segment] = ([], [])
            if out[slot] is None:
                out[slot] = np.empty(segment.shape, segment.dtype)
            group[0].append(row)
            group[1].append(out[slot])
        for segment, (rows, outs) in groups.items():
            segment.read_rows(rows, outs)
        return out

    def recover(self, error: Exception, again: bool = False) -> None:
        """After an error of a read: leave out what is damaged and look at the disk once more; or raise the error.

        `again` says that it was done before in the same call.
        """
        if isinstance(error, CorruptRowError):
            self.leave_out([error])
            return
        if isinstance(error, OSError) and error.errno in GONE and not again:
            for segment in self.segments:
                segment.close()
        else:
            path, file = os.path.split(getattr(error, "filename", None) or "")
            # Gone twice from a segment that is still there.
            if not isinstance(error, FileNotFoundError) or not os.path.isdir(path):
                raise error
            self._skip(os.path.basename(path), f"{file} is missing")
        self._load()

    def leave_out(self, errors: Sequence[CorruptRowError]) -> None:
        """From now on their rows, or whole segments, count as missing."""
        fresh = []
        for error in errors:
            name = error.segment.name
            if error.row is None:
                self._skip(name, str(error))
            else:
                bad = self._bad_rows.setdefault(name, set())
                if error.row not in bad:
                    fresh.append(error)
                bad.add(error.row)
                self.problems[name] = str(error)
        if fresh:
            more = f" and {len(fresh) - 1} more rows" if len(fresh) > 1 else ""
            logger.warning("%s%s; the sample counts as missing; run `fstore verify --full`", fresh[0], more)
        self._load()

    # -- looking at the disk -------------------------------------------------------------------

    def refresh(self, force: bool = False, briefly: bool = False) -> bool:
        """See what others committed; True if anything changed.  Cheap when the directory did not change.

        `briefly` is for those who list it anyway before it matters: what came within the clock tick of the last
        listing, or with a commit of this process, may be overlooked.
        """
        before = self._snapshot
        if before is not None and not force and (before.settled or briefly) and not self.unread:
            if self._changed_ns() == before.mtime_ns:
                return False
        after = self._load()
        if before is None or after.segments is before.segments:
            return before is None
        return [s.name for s in after.segments] != [s.name for s in before.segments]

    def see(self, name: str) -> None:
        """Add one segment that was just committed here, without listing the directory."""
        before = self._snapshot or self._load()
        if name in before.by_name:
            return
        opened = self._open_all([name], {})
        if opened and self._grows(before, {name, *before.by_name}, opened):
            # Others may have changed it too: nothing is settled, but who looks briefly need not look for this one.
            after = before.grown(self._changed_ns(), opened)
            after.since_s = time.monotonic()
            if self._snapshot is before:  # else another thread saw more meanwhile
                self._snapshot = after
                return
        self._load()

    def _changed_ns(self) -> int:
        """When a segment last came or went, by the file system's clock; -1 before the first one."""
        try:
            return os.stat(os.path.join(self.path, "segments")).st_mtime_ns
        except FileNotFoundError:
            return -1

    def _load(self) -> _Snapshot:
        for attempt in range(RELISTS):
            number = next(self._looks)
            after, complete = self._look()
            if complete:
                break
            # One was removed after the listing: what replaced it may be newer too.  Or the listing of a
            # network file system stays behind for a while.
            time.sleep(0.001 * attempt**3)
        after.look = number
        # A thread that began to look later may be done already: what it saw is not taken back.
        now = self._snapshot
        if now is not None and now.look > number:
            return now
        self._snapshot = after
        return after

    def _look(self) -> Tuple[_Snapshot, bool]:
        """What is on disk now, and whether all that was listed was still there."""
        folder = os.path.join(self.path, "segments")
        names: Set[str] = set()
        before = self._snapshot
        known = before.by_name if before is not None else {}
        mtime_ns = self._changed_ns()  # before the listing: what is committed after it changes the mtime again
        try:
            names = {e.name for e in os.scandir(folder) if e.name in known or e.is_dir(follow_symlinks=False)}
        except FileNotFoundError:
            pass
        if names and self._mapped is None:
            self._mapped = not _on_network(self.path)
        for name in set(self.problems) - names | self.unread:  # repaired, removed, or worth another try
            self.problems.pop(name, None)
            self._skipped.pop(name, None)
            self._bad_rows.pop(name, None)
        self.unread = set()
        opened = self._open_all(sorted(names.difference(known, self._skipped)), {})
        if before is not None and self._grows(before, names, opened):
            after = before.grown(mtime_ns, opened)
        else:
            opened.update(self._open_all(sorted(names.intersection(known).difference(self._skipped)), known))
            after = self._assembled(mtime_ns, opened)
        # A second commit within the clock tick of the first leaves the same mtime.
        now_s = time.monotonic()
        after.since_s = before.since_s if before is not None and before.mtime_ns == mtime_ns else now_s
        after.settled = now_s - after.since_s > SETTLED_S or time.time() - mtime_ns / 1e9 > OLD_S
        return after, names.issubset([*after.by_name, *self._skipped])

    def _open_all(self, names: Sequence[str], known: Dict[str, Segment]) -> Dict[str, Tuple[Segment, Any]]:
        """{name: (segment, records)} of those that are sound; the others are skipped, or were removed meanwhile."""
        opened: Dict[str, Tuple[Segment, Any]] = {}
        for name in names:
            path = os.path.join(self.path, "segments", name)
            try:
                segment = known.get(name)
                if segment is None:
                    opened[name] = open_segment(path, self.fingerprint, self.key)
                    opened[name][0].mapped = bool(self._mapped)
                else:
                    opened[name] = segment, segment.records()
            except UnknownFormatError:
                raise
            except FileNotFoundError as error:
                if os.path.isdir(path):
                    self._skip(name, f"{os.path.basename(error.filename or '')} is missing")
            except (OSError, ValueError, KeyError, TypeError) as error:
                if isinstance(error, OSError):
                    if error.errno in EXHAUSTED:
                        raise
                    self.unread.add(name)
                self._skip(name, str(error))
        return opened

    def _skip(self, name: str, why: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            logger.warning(
                "segment %s of %s: %s; its samples count as missing; run `fstore verify`", name, self.path, why
            )
        self.problems[name] = why
        self._skipped[name] = names_replaced(os.path.join(self.path, "segments", name))

    def _grows(self, before: _Snapshot, names: Set[str], opened: Dict[str, Tuple[Segment, Any]]) -> bool:
        """Whether all that happened is that later segments came, which replace nothing: a commit of another process."""
        last = before.segments[-1].name if before.segments else ""
        first = before.first
        return (
            first is not None
            and not self._bad_rows
            and names.issuperset(before.by_name)
            and set(self._skipped).union(*self._skipped.values()).isdisjoint(before.by_name)
            and len(before.later) + sum(segment.n for segment, _ in opened.values()) <= DICT_ROWS // 10
            and all(s.name > last and not s.replaces and s.same_type(first) for s, _ in opened.values())
        )

    def _assembled(self, mtime_ns: int, opened: Dict[str, Tuple[Segment, Any]]) -> _Snapshot:
        """A snapshot of these segments, made from nothing."""
        first = opened[min(opened)][0] if opened else None
        for name, (segment, _) in list(opened.items()):
            if first is not None and not segment.same_type(first):  # a batch is one array
                del opened[name]
                self._skip(
                    name,
                    f"dim {segment.shape[1]} {segment.dtype}, but the recipe's first segment has "
                    f"{first.shape[1]} {first.dtype}",
                )
        replaced = {name for segment, _ in opened.values() for name in segment.replaces}
        replaced.update(*self._skipped.values())
        counted = [opened[name] for name in sorted(opened) if name not in replaced]
        by_name = {name: segment for name, (segment, _) in opened.items()}
        return _Snapshot(mtime_ns, by_name, [segment for segment, _ in counted], self._table(counted))

    def _table(self, counted: List[Tuple[Segment, Any]]) -> Any:
        parts, positions = [], []
        for number, (segment, records) in enumerate(counted):
            rows = np.arange(segment.n, dtype=np.int64)
            bad = self._bad_rows.get(segment.name)
            if bad:
                rows = np.setdiff1d(rows, np.array(sorted(bad)))
            parts.append(records[["hi", "lo"]][rows])
            positions.append(rows | number << 32)
        if not counted:
            return {}
        all_digests, all_positions = np.concatenate(parts), np.concatenate(positions)
        if len(all_positions) > DICT_ROWS:
            return SortedTable(all_digests["hi"].astype("u8"), all_digests["lo"].astype("u8"), all_positions)
        # From last to first, so that the first segment's row is the one that stays.
        return dict(zip(reversed(_digests(all_digests)), reversed(all_positions.tolist())))


def _digests(records: Any) -> List[bytes]:
    raw = np.stack([records["hi"], records["lo"]], axis=1).astype(">u8").tobytes()
    return [raw[at : at + 16] for at in range(0, len(raw), 16)]


def fits(out: Any, shape: Tuple[int, ...], dtype: Any) -> bool:
    """Whether rows can be written into `out` as they are."""
    return bool(out.shape == shape and out.dtype == dtype and out.flags.c_contiguous and out.flags.writeable)


def _declared_size(frame: bytes) -> int:
    """Bytes that a zstd frame says it holds (RFC 8878, 3.1.1.1), -1 where it does not say."""
    if len(frame) < 6:
        return -1
    one_segment = frame[4] >> 5 & 1
    width = (one_segment, 2, 4, 8)[frame[4] >> 6]
    at = 5 + (1 - one_segment) + (0, 1, 2, 4)[frame[4] & 3]
    size = int.from_bytes(frame[at : at + width], "little") + (256 if width == 2 else 0)
    return size if width else -1


def open_key(root: str, key: str, fingerprint: Optional[str] = None) -> Reader:
    """Reader of one key of a store.  `fingerprint` is a prefix of its recipe's; needed where there are several.

    Raises LookupError when nothing is stored under the key, or when the recipe is not clear.
    """
    folder = os.path.join(root, "data", *key.split("/"))
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except FileNotFoundError:
        names = []
    found = [name for name in names if name.startswith(fingerprint or "")]
    if len(found) != 1:
        stored = ", ".join(found) or "none"
        raise LookupError(f"{key} has {len(found)} recipes in {root!r}: {stored}; pass fingerprint=")
    return Reader(os.path.join(folder, found[0]), key)


def _on_network(path: str) -> bool:
    """Whether the kernel may hand out stale or vanishing pages for a map of this path."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return False
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    kinds = [fields[fields.index("-") + 1] for fields in mounts if fields[2] == wanted]
    return any(kind.startswith(NETWORK) for kind in kinds)


def _warn_unchecked() -> None:
    global _warned_unchecked
    if not _warned_unchecked:
        _warned_unchecked = True
        warnings.warn("google_crc32c is not installed: rows are returned unchecked", RuntimeWarning, stacklevel=4)

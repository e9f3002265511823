"""The read path: one committed recipe of a feature store, with the standard library and numpy only.

This file is complete in itself.  Copied into an old training environment (Python 3.8, numpy 1.20)
it reads a store without the package:

    from reader import open_key
    features = open_key("features", "mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8")
    features.get("sample_00000001")            # (8, 768) array, or None if it is not stored
    features.get("sample_00000001", [0, 7])    # (2, 768): two of its frames, and no more is read
    features.get_many(ids)                     # (N, 8, 768); LookupError names what is not stored

On disk a recipe is a directory with `segments/<name>/{zarr.json,c.0.0.0,rows}`; a segment is never
changed once it is there.  `docs/format.md` has every byte.  Nothing here locks, writes, or starts a
thread, so that a reader may be forked at any moment; pickled, it is its path and reopens.

Checksums need the package google-crc32c; without it values are returned unchecked, after one warning.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import logging
import math
import mmap
import operator
import os
import re
import resource
import stat
import threading
import time
import warnings
import weakref
from collections import deque
from typing import Any, Callable, Container, Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

try:
    import google_crc32c

    crc32c = google_crc32c.value  # of bytes or of a C-contiguous array
except ImportError:  # pragma: no cover - exercised by the test that copies this file alone
    crc32c = None

FORMAT = 2
DTYPES = {"float16": "<f2", "float32": "<f4", "float64": "<f8", "uint8": "|u1"}
OLD_FORMAT = "import the old store into a new one"
SEAL_MARK = b'"seal":"'
SEAL_SIZE = 64
# One record of the fixed part of `rows`: which id, where its line and its frames begin, and what each must hash to.
_NAMES = ["hi", "lo", "line", "frame", "n_frames", "crc", "line_crc", "frames_crc"]
RECORD = np.dtype(list(zip(_NAMES, [">u8", ">u8", "<u8", "<u8", "<u4", "<u4", "<u4", "<u4"])))
CHUNK_INDEX_BYTES = 16  # of one inner chunk in the index of the shard, which is there for other readers of Zarr
SAMPLE_BYTES = (1 << 32) - 1  # of one sample
MEMO_IDS = 65_536  # ids whose position is remembered, which spares their digest
DICT_ROWS = 200_000  # above this a sorted numpy table: 24 bytes a row instead of about 150
_MAY_OPEN = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # files of this process; -1 for no limit
# Descriptors and maps that are kept per process; what is over is the program's own.
OPEN_FILES = 4096 if _MAY_OPEN < 0 else min(4096, max(_MAY_OPEN // 2, _MAY_OPEN - 256))
SETTLED_S = 2.0  # a directory that changed this recently may change again within one clock tick
OLD_S = 2 * 86_400  # by clocks of two machines that may be a day apart
HEADER_BYTES = 64 << 20  # a million names of replaced segments
RELISTS = 5  # before going on with a listing that names what is not there
NEIGHBOURS_BYTES = 65_536  # what lies as near as this is announced to the disk as one
NETWORK = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "9p", "fuse", "afs")
GONE = (errno.ENOENT, errno.ESTALE)
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # says nothing about the file
SEGMENT_NAME = re.compile(rb"[0-9]{20}-[0-9a-f]{32}")
ROW = 0xFFFFFFFF  # of a number: which segment << 32 | which row

# What is imported when first needed is imported under this, which a fork waits for: of an import that another
# thread is in the middle of, the child would wait for the end for ever.
IMPORTING = threading.RLock()
os.register_at_fork(before=IMPORTING.acquire, after_in_parent=IMPORTING.release, after_in_child=IMPORTING.release)

logger = logging.getLogger("featurestore")
Position = Tuple["Segment", int]
_opened: deque[Tuple[weakref.ref[Segment], str]] = deque()
_warned_unchecked = False


class UnknownFormatError(ValueError):
    """Written in a format that this version does not read; the message says what to do."""


class FramesError(ValueError):
    """Frames were asked for that a sample has not."""


class CorruptRowError(ValueError):
    """Bytes of a row, or of a whole segment where `row` is None, are not those that were committed."""

    def __init__(self, segment: Segment, row: Optional[int], what: str) -> None:
        super().__init__(f"{'segment' if row is None else f'row {row} of segment'} {segment.path}: {what}")
        self.segment = segment
        self.row = row


class Form(NamedTuple):
    """What all frames of a recipe share."""

    item: Tuple[int, ...]  # the shape of one frame: (dim,), (tokens, dim), (layers, dim), ...
    dtype: Any
    axes: Tuple[str, ...]  # the names of the axes of `item`

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(f'{name} {size}' for name, size in zip(self.axes, self.item))})"


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
    """One immutable array with the frames of `n` samples, opened for reading by `open_segment`.

    Stacked, it has the shape (n, n_frames, *item).  Ragged, where samples differ in their number of frames, it has
    the shape (total_frames, *item), and `starts` says where each sample begins.
    """

    def __init__(self, path: str, header: Dict[str, Any], shape: Tuple[int, ...], form: Form, records: Any) -> None:
        self.path = path
        self.name = os.path.basename(path)
        self.header = header
        self.array_shape = shape
        self.form = form
        self.dtype = form.dtype
        self.n = len(records)
        self.n_frames: Optional[int] = shape[1] if len(shape) == len(form.item) + 2 else None
        self.replaces: List[str] = header["replaces"]
        self.frame_bytes = math.prod(form.item) * form.dtype.itemsize
        # Plain numbers come out of a memoryview, which compare faster than numpy's.
        self.crcs = np.ascontiguousarray(records["crc"], np.uint32).data
        self.frames_crcs = header["frames"] and np.ascontiguousarray(records["frames_crc"], np.uint32).data
        self.starts: Any = None
        if self.n_frames is None:
            self.starts = np.append(records["frame"].astype(np.int64), shape[0]).data
        self.checked = bytearray(self.n)
        self._checked = np.frombuffer(self.checked, np.uint8)  # the same bytes, for many at once
        self._sums: Any = None  # the checksums of all frames
        self._done: Optional[bytearray] = None  # frames that were checked by themselves
        self.mapped = False  # whether rows may be read through a map; the reader knows the file system
        self._shard: Optional[_Descriptor] = None
        self._pages: Any = None  # the map as an array of `array_shape`

    @property
    def shard_file(self) -> str:
        """The name of the file that has the values."""
        return "c" + ".0" * len(self.array_shape)

    def span(self, row: int) -> Tuple[int, int]:
        """(first frame, the one behind the last) of a row, counted in the segment."""
        if self.starts is None:
            n_frames: Any = self.n_frames
            return row * n_frames, (row + 1) * n_frames
        return self.starts[row], self.starts[row + 1]

    def count(self, row: int) -> int:
        """Frames of a row."""
        return self.n_frames if self.starts is None else self.starts[row + 1] - self.starts[row]  # type: ignore[return-value]

    def shape_of(self, row: int) -> Tuple[int, ...]:
        """(n_frames, *item) of a row."""
        return (self.count(row), *self.form.item)

    def read(self, row: int) -> Any:
        """A fresh (n_frames, *item) array.  Checked against its checksum the first time."""
        pages = self._pages
        if pages is None and self.checked[row]:
            pages = self.pages()
        if pages is None:
            return self.read_into(row, np.empty(self.shape_of(row), self.dtype))
        out = pages[row].copy() if self.starts is None else pages[self.starts[row] : self.starts[row + 1]].copy()
        if not self.checked[row]:
            self._check(row, out)
        return out

    def read_into(self, row: int, out: Any) -> Any:
        """The same into a C-contiguous array, without a map."""
        start, stop = self.span(row)
        self._pread(row, start, stop, out)
        if not self.checked[row]:
            self._check(row, out)
        return out

    def read_frames(self, row: int, frames: Any) -> Any:
        """Some frames of a row, (k, *item): a range or an array of ascending numbers, counted in the row.

        No others are read where frames have checksums of their own.
        """
        checked = self.checked[row]
        if not checked and self.frames_crcs is None:
            return self.read(row)[_index(frames)].copy()
        start = self.span(row)[0]
        pages = self._pages
        if pages is None:
            pages = self.pages()
        if pages is None:
            out = np.empty((len(frames), *self.form.item), self.dtype)
            for first, last in _runs(frames):
                self._pread(row, start + int(frames[first]), start + int(frames[last - 1]) + 1, out[first:last])
        else:
            flat = pages if self.starts is not None else pages.reshape(-1, *self.form.item)
            if type(frames) is range and frames.step == 1:
                out = flat[start + frames.start : start + frames.stop].copy()
            else:
                out = flat[np.asarray(frames, np.int64) + start]
        return out if checked or not len(frames) else self._checked_frames_of(row, frames, out)

    def _checked_frames_of(self, row: int, frames: Any, out: Any) -> Any:
        """Frames that were read, once each was checked: against its own checksum, or that of the whole sample."""
        start = self.span(row)[0]
        done = self._done
        if done is None:
            done = self._done = bytearray(self.span(self.n - 1)[1])
        if all(done[start + frame] for frame in frames):
            return out
        crcs = self._crcs_of_frames(row)
        if crc32c is None or crcs is None or list(map(crc32c, out)) != crcs[_index(frames)].tolist():
            # Unchecked with a warning; or of the two checksums one is damaged: that of the whole sample decides.
            return self.read(row)[_index(frames)].copy()
        for frame in frames:
            done[start + frame] = 1
        return out

    def take(self, rows: Any, out: Any = None) -> Any:
        """Several rows of a stacked segment, an int64 array of them, as one array (k, n_frames, *item)."""
        pages = self.pages()
        if pages is None:
            out = np.empty((len(rows), *self.array_shape[1:]), self.dtype) if out is None else out
            for slot, row in enumerate(rows.tolist()):
                self.read_into(row, out[slot])
            return out
        unchecked = np.flatnonzero(self._checked[rows] == 0)
        if len(unchecked) > 1:
            self.announce(rows[unchecked].tolist())
        # numpy's own loop; `clip` because it would copy twice where it may have to raise.
        out = pages[rows] if out is None else np.take(pages, rows, axis=0, out=out, mode="clip")
        if len(unchecked):
            self.check(rows[unchecked], out if len(unchecked) == len(rows) else [out[i] for i in unchecked.tolist()])
        return out

    def check(self, rows: Any, values: Sequence[Any]) -> None:
        """Several rows that were read, against their checksums."""
        if crc32c is None:
            _warn_unchecked()
        else:
            wrong = np.fromiter(map(crc32c, values), np.uint32, len(rows)) != np.frombuffer(self.crcs, np.uint32)[rows]
            for slot in np.flatnonzero(wrong).tolist():
                self._check(int(rows[slot]), values[slot])
        self._checked[rows] = 1

    def _check(self, row: int, values: Any) -> None:
        if crc32c is None:
            _warn_unchecked()
        elif crc32c(values) != self.crcs[row] and not self.frames_agree(row, values):
            raise CorruptRowError(self, row, "checksum differs from the one committed with its id")
        self.checked[row] = 1

    def frames_agree(self, row: int, values: Any) -> bool:
        """Whether it is the checksum of the sample that is damaged: those of its frames agree, and are sound."""
        crcs = self._crcs_of_frames(row)
        return crcs is not None and [crc32c(frame) for frame in values] == crcs.tolist()

    def _crcs_of_frames(self, row: int) -> Any:
        """(n_frames,) checksums of the frames of a row; None where there are none, or they are damaged themselves."""
        if self.frames_crcs is None:
            return None
        sums = self._sums
        if sums is None:
            with open(os.path.join(self.path, "frames"), "rb") as file:
                sums = self._sums = np.frombuffer(file.read(), "<u4")  # a thousandth of the values
        start, stop = self.span(row)
        own = sums[start:stop]
        return None if crc32c is not None and crc32c(own) != self.frames_crcs[row] else own

    def _pread(self, row: int, start: int, stop: int, out: Any) -> None:
        # Held by name while its number is in use: another thread may let go of the segment, and the
        # number would then be that of any other file.
        shard = self._shard or self.shard()
        size, at, done = (stop - start) * self.frame_bytes, start * self.frame_bytes, 0
        rest = memoryview(out.reshape(-1).view(np.uint8))
        while done < size:  # the system reads 2 GiB at most
            count = os.preadv(shard.number, [rest[done:]], at + done)
            if not count:
                raise CorruptRowError(self, row, "the file ends before the row does")
            done += count

    def shard(self) -> _Descriptor:
        """The file of the values, open."""
        descriptor = self._shard
        if descriptor is None:
            descriptor = self._shard = self._open()
            self._note("_shard")
        return descriptor

    def _open(self) -> _Descriptor:
        descriptor = _Descriptor(os.path.join(self.path, self.shard_file))
        # Read past the end of a shorter file would be SIGBUS once it is mapped.
        if os.fstat(descriptor.number).st_size != self.header["shard"]["bytes"]:
            raise CorruptRowError(self, None, f"size of `{self.shard_file}` differs from the one committed")
        return descriptor

    def _note(self, what: str) -> None:
        _opened.append((weakref.ref(self), what))
        while len(_opened) > OPEN_FILES:
            reference, oldest = _opened.popleft()
            segment = reference()
            if segment is not None:
                setattr(segment, oldest, None)

    def pages(self) -> Any:
        """The values as a read-only array of `array_shape` over a map; None where they cannot be mapped."""
        pages = self._pages
        if pages is None and self.mapped:
            shard = self._shard or self._open()
            try:
                file = mmap.mmap(shard.number, 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError):  # no maps on this file system, or too many of them: pread needs none
                self.mapped = False
                return None
            pages = self._pages = np.ndarray(self.array_shape, self.dtype, file)
            self._note("_pages")
        return pages

    def announce(self, rows: Sequence[int]) -> None:
        """Tell the disk which rows will be read, where they are not in memory already."""
        if not hasattr(os, "posix_fadvise"):  # macOS
            return
        shard = self.shard()
        if _in_memory(shard, [sum(self.span(row)) * self.frame_bytes // 2 for row in rows[:: max(1, len(rows) // 8)]]):
            return
        spans = [(start * self.frame_bytes, stop * self.frame_bytes) for start, stop in map(self.span, rows)]
        # One advice for neighbours: a scan would otherwise pay one system call a row.
        begin = end = -1
        for start, stop in sorted(spans):
            if start > end + NEIGHBOURS_BYTES:
                if end > 0:
                    os.posix_fadvise(shard.number, begin, end - begin, os.POSIX_FADV_WILLNEED)
                begin = start
            end = stop
        os.posix_fadvise(shard.number, begin, end - begin, os.POSIX_FADV_WILLNEED)

    def line(self, row: int) -> Dict[str, Any]:
        """What was committed with a row: id, frames, seconds, provenance."""
        document: Dict[str, Any] = next(self._lines(row, row + 1))[1]
        return document

    def lines(
        self, leave_out: Container[int] = (), bad: Optional[List[CorruptRowError]] = None
    ) -> Iterator[Tuple[int, Dict[str, Any]]]:
        """(row, line) of all rows in order but some, each checked.  Errors go into `bad`, or end it without."""
        for start in range(0, self.n, 4096):
            yield from self._lines(start, min(start + 4096, self.n), leave_out, bad)

    def ids(
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
            wrong = _misfit(document, self.shape_of(row)[0])
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
        self._pages = self._shard = self._sums = None

    def __repr__(self) -> str:
        return f"Segment({self.name}, {self.array_shape} {self.dtype})"


def _index(frames: Any) -> Any:
    """What numpy takes for a range that does not count down, or for an array."""
    return slice(frames.start, frames.stop, frames.step) if type(frames) is range else frames


def _runs(frames: Any) -> Iterator[Tuple[int, int]]:
    """(begin, end) in ascending numbers of each run of neighbours."""
    cuts = (np.flatnonzero(np.diff(np.asarray(frames)) != 1) + 1).tolist()
    return zip([0, *cuts], [*cuts, len(frames)]) if len(frames) else iter(())


def _in_memory(file: _Descriptor, places: Sequence[int]) -> bool:
    """Whether the bytes at all of these places are in the page cache: then there is nothing to announce."""
    probe = [bytearray(1)]
    try:
        for place in places:
            os.preadv(file.number, probe, place, os.RWF_NOWAIT)
    except (OSError, AttributeError):  # one is not, or there is no way to tell
        return False
    return True


def frames_of(frames: Any, n_frames: int) -> Any:
    """The numbers that a slice or a sequence means among so many frames, as a range or an array; FramesError where it
    has what is none of them."""
    if isinstance(frames, slice):
        try:
            numbers: Any = range(n_frames)[frames]
        except (TypeError, ValueError) as error:
            raise FramesError(f"frames={frames!r}: {error}") from None
        if numbers.step < 0 and len(numbers) > 1:
            raise FramesError("frames are not in ascending order, each once")
        return numbers if numbers.step > 0 else range(numbers.start, numbers.start + len(numbers))
    try:
        numbers = list(map(operator.index, frames))
    except TypeError:
        raise FramesError(f"frames={frames!r} is neither a slice nor a list of whole numbers") from None
    before = -1
    for number in numbers:
        if not 0 <= number < n_frames:
            raise FramesError(f"frame {number} is not one of the {n_frames} frames 0 to {n_frames - 1}")
        if number <= before:
            raise FramesError("frames are not in ascending order, each once")
        before = number
    if numbers and before - numbers[0] == len(numbers) - 1:
        return range(numbers[0], before + 1)
    return np.array(numbers, np.int64)


def open_segment(path: str, fingerprint: str, key: str) -> Tuple[Segment, Any]:
    """(segment, its records): seal, names, sizes and the table's digest are checked, no value is read.

    Raises ValueError or OSError saying what is wrong with it.
    """
    _require_file(os.path.join(path, "zarr.json"), None)
    with open(os.path.join(path, "zarr.json"), "rb") as file:
        document = file.read()
    found, expected = seal_of(document)
    if found != expected:
        raise ValueError("zarr.json fails its seal")
    array = _parsed(document)
    header = _header_of(array, path)
    for name, mine in (("fingerprint", fingerprint), ("key", key), ("name", os.path.basename(path))):
        if header[name] != mine:
            raise ValueError(f"{name} is {header[name]!r}, not {mine!r}: the segment was moved here from elsewhere")
    n_frames = key.rsplit("/", 1)[1]
    ragged = n_frames == "all"
    shape, form = _form_of(array, header, ragged)
    if not ragged and str(shape[1]) != n_frames:
        raise ValueError(f"samples have {shape[1]} frames, not those of the key")
    n = header["rows"]["samples"]
    _require_file(os.path.join(path, "rows"), header["rows"]["bytes"])
    if n:
        _require_file(os.path.join(path, "c" + ".0" * len(shape)), header["shard"]["bytes"])
        if header["frames"] is not None:
            _require_file(os.path.join(path, "frames"), header["frames"]["bytes"])
    with open(os.path.join(path, "rows"), "rb") as file:
        table = file.read(n * RECORD.itemsize)
    if hashlib.blake2b(table, digest_size=32).hexdigest() != header["rows"]["table_blake2b"]:
        raise ValueError("the table in `rows` fails its digest")
    records = np.frombuffer(table, RECORD)
    _require_order(records, header["rows"]["bytes"], shape, ragged)
    return Segment(path, header, shape, form, records), records


def _require_file(path: str, size: Optional[int]) -> None:
    """ValueError where it is no file, or not of the size that was committed; a pipe would be waited for."""
    status = os.stat(path)
    name = os.path.basename(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"`{name}` is no file")
    if status.st_size > HEADER_BYTES if size is None else status.st_size != size:
        raise ValueError(f"size of `{name}` differs from the one committed")


def _header_of(array: Any, path: str) -> Dict[str, Any]:
    """The segment's own description in its zarr.json.

    Raises ValueError for a document of anything else, UnknownFormatError for what another version wrote.
    """
    try:
        header: Dict[str, Any] = array["attributes"]["featurestore"]
        version = header["format"]
        needs = header.get("needs", [])
    except (LookupError, TypeError, AttributeError):
        version = needs = None
    if type(version) is not int or type(needs) is not list:
        raise ValueError("zarr.json is not that of a segment")
    if version < FORMAT:
        raise UnknownFormatError(f"{path} is format {version}, and {FORMAT} is read: {OLD_FORMAT}")
    if version > FORMAT or needs:
        what = f"format {version}" if version > FORMAT else f"written with {', '.join(map(str, needs))}"
        raise UnknownFormatError(f"{path} is {what}, this version reads up to {FORMAT}: upgrade featurestore")
    return header


def _form_of(array: Dict[str, Any], header: Dict[str, Any], ragged: bool) -> Tuple[Tuple[int, ...], Form]:
    """(shape of the array, form of its frames), once all that readers rely on was found to be what the format says.

    A seal proves that nothing changed since, not that a store wrote it.  Raises ValueError.
    """
    try:
        shape, shard, rows, n = array["shape"], header["shard"]["bytes"], header["rows"]["bytes"], None
        n, frames, names = header["rows"]["samples"], header["frames"], array["dimension_names"]
        chunk = array["chunk_grid"]["configuration"]["chunk_shape"]
        inner = array["codecs"][0]["configuration"]["chunk_shape"]
        replaces, made_with = header["replaces"], header["made_with"]
        _ = header["shard"]["blake2b"], header["rows"]["blake2b"], header["rows"]["table_blake2b"]  # are there
        dtype = np.dtype(DTYPES[array["data_type"]])
        sums = 0 if frames is None else frames["bytes"]
        numbers = all(type(x) is int and 0 <= x < 1 << 62 for x in (*shape, *chunk, *inner, shard, rows, n, sums))
        texts = all(type(name) is str for name in (*names, *replaces)) and type(names) is type(replaces) is list
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"zarr.json is not that of a segment: {error!r}") from None
    lead = 1 if ragged else 2
    if not numbers or not texts or type(made_with) is not dict or len(shape) <= lead:
        raise ValueError("zarr.json is not that of a segment")
    item = tuple(shape[lead:])
    size = dtype.itemsize
    for length in shape[1:]:
        size *= length
    if not 0 < size <= SAMPLE_BYTES or names[:lead] != ["sample", "frame"][-lead:] or len(names) != len(shape):
        raise ValueError(f"an array of shape {tuple(shape)} {dtype} and axes {names} holds no samples")
    total = shape[0] if ragged else shape[0] * shape[1]
    whole = [chunk[0] and inner[0] and chunk[0] % inner[0] == 0 and chunk[0] >= shape[0], *chunk[1:], *inner[1:]]
    index = chunk[0] // inner[0] * CHUNK_INDEX_BYTES + 4 if whole[0] else 0
    if (
        whole != [True, *shape[1:], *shape[1:]]
        or shard != (chunk[0] * size + index if shape[0] else 0)
        or rows < n * RECORD.itemsize
        or (n != shape[0] if not ragged else bool(n) != bool(shape[0]))
        or sums not in (0, total * 4)
        or (ragged and frames is None)
    ):
        raise ValueError(f"{n} samples in an array of shape {tuple(shape)} do not fit into files of these sizes")
    return tuple(shape), Form(item, dtype, tuple(names[lead:]))


def _require_order(records: Any, rows_bytes: int, shape: Tuple[int, ...], ragged: bool) -> None:
    """ValueError where lines or frames are not one behind the other, without overlap or gap, to the end.

    Thousands of lines that begin where the first does would be read for ever.
    """
    if not len(records):
        return
    lines, starts, counts = records["line"], records["frame"], records["n_frames"]
    if lines[0] < records.nbytes or not (lines[1:] > lines[:-1]).all() or lines[-1] >= rows_bytes:
        raise ValueError("the lines in `rows` are not one behind the other")
    if ragged:
        ends = np.cumsum(counts, dtype=np.uint64)
        sound = counts.min() and starts[0] == 0 and (starts[1:] == ends[:-1]).all() and ends[-1] == shape[0]
    else:
        n_frames = np.uint64(shape[1])
        sound = (counts == n_frames).all() and (starts == np.arange(len(records), dtype=np.uint64) * n_frames).all()
    if not sound:
        raise ValueError("the samples in `rows` do not follow each other from the first frame of the array to its last")


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


def names_replaced(path: str) -> FrozenSet[str]:
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
    return frozenset(name.decode() for name in found)


def _between(text: bytes, begin: bytes, end: bytes) -> bytes:
    return text[text.find(begin) + len(begin) :].split(end)[0] if begin in text else b""


class SortedTable:
    """Digest -> number for many rows: sorted numpy columns instead of a dict of bytes."""

    def __init__(self, hi: Any, lo: Any, numbers: Any) -> None:
        # Stable: of two rows with one digest the earlier segment's stays first, and the first wins.
        order = np.argsort(hi, kind="stable")
        self.hi = hi[order]
        self.lo = lo[order]
        self.numbers = numbers[order]

    def get(self, digest: bytes) -> Optional[int]:
        hi = np.uint64(int.from_bytes(digest[:8], "big"))
        lo = int.from_bytes(digest[8:], "big")
        at = int(self.hi.searchsorted(hi))
        while at < len(self.hi) and self.hi[at] == hi:
            if self.lo[at] == lo:
                return int(self.numbers[at])
            at += 1
        return None

    def get_all(self, digests: Sequence[bytes]) -> List[Optional[int]]:
        """`get` of many at once."""
        wanted = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2).astype("u8")
        at = np.minimum(self.hi.searchsorted(wanted[:, 0]), len(self.hi) - 1)
        found: List[Optional[int]] = self.numbers[at].tolist()
        for slot in np.flatnonzero((self.hi[at] != wanted[:, 0]) | (self.lo[at] != wanted[:, 1])).tolist():
            found[slot] = self.get(digests[slot])
        return found

    def __len__(self) -> int:
        same = (self.hi[1:] == self.hi[:-1]) & (self.lo[1:] == self.lo[:-1])
        return len(self.hi) - int(np.count_nonzero(same))


class Damage(NamedTuple):
    """What is wrong with a segment: with some of its rows, or with all of it where `rows` is empty."""

    why: str
    rows: FrozenSet[int] = frozenset()
    replaces: FrozenSet[str] = frozenset()  # of a whole segment: names that must not come back
    unread: bool = False  # the system could not read it: that may work next time


class _Snapshot:
    """What a reader knows of the disk.  Never changed, only succeeded: a thread may still be reading an older one."""

    __slots__ = (
        "by_name", "changed", "damage", "first", "later", "links_count", "look", "memo", "numbers", "replaced",
        "segments", "settled", "since_s", "table", "uncommitted",
    )  # fmt: skip

    def __init__(self, by_name: Dict[str, Segment], segments: List[Segment], table: Any) -> None:
        self.by_name = by_name  # all that are on disk, sound, and not replaced by an earlier one
        self.first = by_name[min(by_name)] if by_name else None
        self.segments = segments  # those that count, in name order
        self.table: Any = table  # digest -> number of the segment << 32 | row
        self.later: Dict[bytes, int] = {}  # the same for segments that came after the table was made
        self.damage: Dict[str, Damage] = {}
        self.replaced: Set[str] = set()  # names on disk that do not count any more, opened or not
        self.uncommitted: Set[str] = set()  # names of folders without a zarr.json, which may come
        # Kept for ids that were asked for, which spares their digest: for single reads, and for many at once.
        self.memo: Dict[str, Position] = {}
        self.numbers: Dict[str, int] = {}
        self.look = 0  # which look at the disk found it: a later one is never older
        self.changed: Tuple[int, int] = (-1, 0)  # of `segments/`, taken before it was listed: see Reader._changed
        self.links_count = False  # whether this file system counts folders in the links of the one above
        self.since_s = 0.0  # by this machine's own clock: when a listing first found this time of change
        self.settled = False  # nothing can have changed while the time of change stays

    def grown(self, opened: Dict[str, Tuple[Segment, Any]]) -> _Snapshot:
        """The next one, with later segments; what each commit comes to."""
        after = _Snapshot.__new__(_Snapshot)
        for name in self.__slots__:
            setattr(after, name, getattr(self, name))
        after.settled = False
        if opened:
            after.by_name, after.segments, after.later = dict(self.by_name), list(self.segments), dict(self.later)
        for name, (segment, records) in sorted(opened.items()):
            numbers = np.arange(segment.n, dtype=np.int64) | len(after.segments) << 32
            after.segments.append(segment)
            after.by_name[name] = segment
            for digest, number in zip(_digests(records), numbers.tolist()):
                if self.at(digest) is None:
                    after.later.setdefault(digest, number)
        return after

    def at(self, digest: bytes) -> Optional[int]:
        at = self.table.get(digest)
        return self.later.get(digest) if at is None else at

    def find(self, id: str) -> Optional[Position]:
        at = self.at(id_digest(id))
        if at is None:
            return None
        if len(self.memo) >= MEMO_IDS:
            self.memo.clear()
        position = self.memo[id] = (self.segments[at >> 32], at & ROW)
        return position

    def find_all(self, ids: Sequence[str]) -> Any:
        """(N,) int64, the number of the segment << 32 | row; -1 where one is not stored."""
        found: List[Optional[int]] = list(map(self.numbers.get, ids))
        if None in found:
            digests = [id_digest(id) for id in ids]
            many = getattr(self.table, "get_all", None) if len(ids) > 16 else None
            found = list(map(self.table.get, digests)) if many is None else many(digests)
            if None in found and self.later:
                found = [self.later.get(digest) if at is None else at for digest, at in zip(digests, found)]
            if None in found:
                return np.array([-1 if at is None else at for at in found], np.int64)
            if len(self.numbers) + len(ids) > MEMO_IDS:
                self.numbers.clear()
            if len(ids) <= MEMO_IDS:
                self.numbers.update(zip(ids, found))  # type: ignore[arg-type]
        return np.array(found, np.int64)

    def count(self) -> int:  # not __len__: an empty snapshot would be false
        return len(self.table) + len(self.later)


class Found:
    """Where some samples are, as of one look at the disk.  Indexed by positions in the request: some of them."""

    __slots__ = ("numbers", "segments")

    def __init__(self, segments: List[Segment], numbers: Any) -> None:
        self.segments = segments
        self.numbers = numbers  # (N,) int64

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, wanted: Any) -> Found:
        return Found(self.segments, self.numbers[wanted])

    def __iter__(self) -> Iterator[Position]:
        return ((self.segments[number >> 32], number & ROW) for number in self.numbers.tolist())


class Reader:
    """The samples of one recipe, as they were at the last `refresh`.  Touches no disk until it is used."""

    def __init__(self, path: str, key: str) -> None:
        self.path = path
        self.key = key
        self.fingerprint = os.path.basename(path)
        self._snapshot: Optional[_Snapshot] = None
        self._looks = itertools.count(1)
        self._warned: Set[str] = set()
        self._mapped: Optional[bool] = None

    def __getstate__(self) -> Dict[str, str]:
        return {"path": self.path, "key": self.key}

    def __setstate__(self, state: Dict[str, str]) -> None:
        self.__init__(state["path"], state["key"])  # type: ignore[misc]

    @property
    def _now(self) -> _Snapshot:
        return self._snapshot or self._load()

    # -- finding -------------------------------------------------------------------------------

    def find(self, id: str) -> Optional[Position]:
        """(segment, row) of a sample, or None."""
        snapshot = self._snapshot or self._load()
        return snapshot.memo.get(id) or snapshot.find(id)

    def find_all(self, ids: Sequence[str]) -> Found:
        """Where several samples are; its numbers are -1 where one is not stored."""
        snapshot = self._snapshot or self._load()
        return Found(snapshot.segments, snapshot.find_all(ids))

    def __contains__(self, id: str) -> bool:
        return self.find(id) is not None

    def __len__(self) -> int:
        """Number of samples."""
        return self._now.count()

    @property
    def segments(self) -> List[Segment]:
        """The segments that count, in name order; replaced ones are left out."""
        return self._now.segments

    @property
    def seen(self) -> object:
        """What is known of the disk: the same object while nothing came, went or was left out; None before a look."""
        snapshot = self._snapshot
        return snapshot and snapshot.segments

    @property
    def replaced(self) -> List[str]:
        """Names of segments still on disk that another one replaces, sorted."""
        return sorted(self._now.replaced)

    @property
    def damage(self) -> Dict[str, Damage]:
        """What is wrong, by the name of the segment."""
        snapshot = self._snapshot
        return snapshot.damage if snapshot is not None else {}

    @property
    def problems(self) -> Dict[str, str]:
        """The same in words."""
        return {name: damage.why for name, damage in self.damage.items()}

    @property
    def unread(self) -> List[str]:
        """Names of segments that the system could not read: it may work next time."""
        return [name for name, damage in self.damage.items() if damage.unread]

    @property
    def uncommitted(self) -> List[str]:
        """Names of folders without a zarr.json, sorted: somebody may be copying them."""
        return sorted(self._now.uncommitted)

    @property
    def form(self) -> Optional[Form]:
        """What a frame is, by the first segment; None while nothing was ever stored."""
        first = self._now.first
        return first.form if first is not None else None

    @property
    def counts_links(self) -> bool:
        """Whether a look that lists nothing sees all that others committed, within one clock tick too."""
        snapshot = self._snapshot
        return snapshot is not None and snapshot.links_count

    def rows(
        self, of: Optional[Sequence[Segment]] = None, bad: Optional[List[CorruptRowError]] = None
    ) -> Iterator[Tuple[Dict[str, Any], Segment, int]]:
        """(line, segment, row) of every sample, or of those in some segments; line["id"] is the sample's.

        Rows whose line is damaged are left out and put into `bad`; without it the first one raises CorruptRowError.
        """
        wanted = None if of is None else set(of)
        for segment, row, line in self._listed(Segment.lines, operator.itemgetter("id"), wanted, bad):
            yield line, segment, row

    def _listed(self, read: Any, id_of: Any, of: Any, bad: Any) -> Iterator[Tuple[Segment, int, Any]]:
        snapshot = self._now
        all_count = sum(segment.n for segment in snapshot.segments) == snapshot.count()
        for number, segment in enumerate(snapshot.segments):
            if of is not None and segment not in of:
                continue
            damage = snapshot.damage.get(segment.name)
            for row, one in read(segment, damage.rows if damage is not None else (), bad):
                if all_count or snapshot.at(id_digest(id_of(one))) == (number << 32 | row):
                    yield segment, row, one

    def ids(self) -> List[str]:
        """Sorted by code point."""

        def ids() -> List[str]:
            bad: List[CorruptRowError] = []
            found = sorted(id for _, _, id in self._listed(Segment.ids, str, None, bad))
            if bad:
                # All at once: looking again after each would take the square of their number.
                self.leave_out(bad)
                return ids()
            return found

        found: List[str] = self._retried(ids, RELISTS)  # a look at every file takes long enough for more to go
        return found

    # -- reading -------------------------------------------------------------------------------

    def get(self, id: str, frames: Any = None) -> Any:
        """A fresh, writable (n_frames, *item) array of the stored dtype, or None.

        `frames` are those wanted of the sample, a slice or ascending numbers; FramesError where it has them not.
        """
        snapshot = self._snapshot or self._load()
        position = snapshot.memo.get(id) or snapshot.find(id)
        if position is None:
            return None
        segment, row = position
        try:
            if frames is None:
                return segment.read(row)
            return segment.read_frames(row, frames_of(frames, segment.count(row)))
        except (OSError, CorruptRowError):
            return self._retried(lambda: self._read(id, frames))

    def _read(self, id: str, frames: Any) -> Any:
        position = self.find(id)
        if position is None:
            return None
        segment, row = position
        if frames is None:
            return segment.read(row)
        return segment.read_frames(row, frames_of(frames, segment.count(row)))

    def line(self, id: str) -> Optional[Dict[str, Any]]:
        """What was committed with a row: id, frame indices, seconds, provenance; or None."""

        def line() -> Optional[Dict[str, Any]]:
            position = self.find(id)
            return None if position is None else position[0].line(position[1])

        found: Optional[Dict[str, Any]] = self._retried(line)
        return found

    def get_many(self, ids: Sequence[str], out: Any = None) -> Any:
        """(N, n_frames, *item) in the order of the request, or a list where the number of frames varies.

        Raises LookupError naming an id that is not stored, ValueError for an `out` of another form.
        """

        def read() -> Any:
            found = self._found(ids)
            if out is not None and not fits(out, self.batch_shape(len(ids)), self.form and self.form.dtype):
                raise ValueError("out is not a writable C-contiguous array (N, n_frames, ...) of the stored dtype")
            return self.take_ragged(found) if self.key.endswith("/all") else self.take(found, out)

        return self._retried(read)

    def get_ragged(self, ids: Sequence[str]) -> List[Any]:
        """N arrays (n_frames, *item) in the order of the request, under any key.  Raises LookupError as `get_many`."""
        found: List[Any] = self._retried(lambda: self.take_ragged(self._found(ids)))
        return found

    def _found(self, ids: Sequence[str]) -> Found:
        found = self.find_all(ids)
        absent = np.flatnonzero(found.numbers < 0)
        if len(absent):
            what = f"{len(absent)} of {len(ids)} ids are not stored, e.g. {ids[absent[0]]!r}"
            raise LookupError(f"{what}, under {self.key} in {self.path}; `ids()` lists those that are")
        return found

    def batch_shape(self, n: int) -> Tuple[int, ...]:
        """(n, n_frames, *item) of a key whose samples have the same number of frames."""
        first = self._now.first
        return (n, *first.array_shape[1:]) if first is not None else (n, 0, 0)

    def take(self, found: Found, out: Any = None) -> Any:
        """The samples that `find_all` found as one array; of a key whose samples have the same number of frames.

        Raises OSError or CorruptRowError, after which `recover` looks at the disk again.
        """
        if not len(found):
            return np.empty(self.batch_shape(0), self.form.dtype if self.form else np.float32) if out is None else out
        rows, which = found.numbers & ROW, found.numbers >> 32
        if (which == which[0]).all():
            return found.segments[int(which[0])].take(rows, out)
        values = self._joined(found) if out is None else None
        if values is None:
            values = np.empty(self.batch_shape(len(found)), found.segments[int(which[0])].dtype) if out is None else out
            for number in np.flatnonzero(np.bincount(which)).tolist():
                slots = np.flatnonzero(which == number)
                values[slots] = found.segments[number].take(rows[slots])
        return values

    def _joined(self, found: Found) -> Any:
        """Samples of several segments, in one pass of memcpy; None where there are no maps."""
        pieces, fresh = [], {}  # type: ignore[var-annotated]
        for slot, (segment, row) in enumerate(found):
            pages = segment._pages
            if pages is None:
                pages = segment.pages()
                if pages is None:
                    return None
            if not segment.checked[row]:
                fresh.setdefault(segment, []).append((slot, row))
            pieces.append(pages[row])
        for segment, some in fresh.items():
            if len(some) > 1:
                segment.announce([row for _, row in some])
        segment = found.segments[int(found.numbers[0]) >> 32]
        values = np.frombuffer(bytearray().join(pieces), segment.dtype).reshape(self.batch_shape(len(found)))
        for segment, some in fresh.items():
            segment.check(np.array([row for _, row in some]), [values[slot] for slot, _ in some])
        return values

    def take_ragged(self, found: Found) -> List[Any]:
        """The samples that `find_all` found, each as a fresh array (n_frames, *item).  Raises as `take`."""
        fresh: Dict[Segment, List[int]] = {}
        for segment, row in found:
            if not segment.checked[row]:
                fresh.setdefault(segment, []).append(row)
        for segment, rows in fresh.items():
            if len(rows) > 1:
                segment.announce(rows)
                segment.pages()
        return [segment.read(row) for segment, row in found]

    def _retried(self, read: Callable[[], Any], tries: int = 1) -> Any:
        """What a read gives; what is damaged is left out, and what went meanwhile is looked for, so many times."""
        while True:
            try:
                return read()
            except (OSError, CorruptRowError) as error:
                self.recover(error, again=tries < 1)
                tries -= not isinstance(error, CorruptRowError)

    def recover(self, error: Exception, again: bool = False) -> None:
        """After an error of a read: leave out what is damaged and look at the disk once more; or raise the error.

        `again` says that it was done before in the same call.
        """
        if isinstance(error, CorruptRowError):
            self.leave_out([error])
            return
        damage = None
        if isinstance(error, OSError) and error.errno in GONE and not again:
            for segment in self.segments:
                segment.close()
        else:
            path, file = os.path.split(getattr(error, "filename", None) or "")
            # Gone twice from a segment that is still there.
            if not isinstance(error, FileNotFoundError) or not os.path.isdir(path):
                raise error
            damage = {os.path.basename(path): self._left_out(os.path.basename(path), f"{file} is missing")}
        self._load(damage)

    def leave_out(self, errors: Sequence[CorruptRowError]) -> None:
        """From now on their rows, or whole segments, count as missing."""
        damage: Dict[str, Damage] = {}
        known, fresh = self.damage, []
        for error in errors:
            name = error.segment.name
            if error.row is None:
                damage[name] = self._left_out(name, str(error))
                continue
            before = damage.get(name) or known.get(name) or Damage("")
            if before.rows or not before.why:  # else all of it is left out
                if error.row not in before.rows:
                    fresh.append(error)
                damage[name] = Damage(str(error), before.rows | {error.row})
        if fresh:
            more = f" and {len(fresh) - 1} more rows" if len(fresh) > 1 else ""
            logger.warning("%s%s; the sample counts as missing; run `fstore verify --full`", fresh[0], more)
        self._load(damage)

    # -- looking at the disk -------------------------------------------------------------------

    def refresh(self, force: bool = False, briefly: bool = False) -> bool:
        """See what others committed; True if anything changed.  Cheap when the directory did not change.

        `briefly` is for those who list it anyway before it matters: what came within the clock tick of the last
        listing, or with a commit of this process, may be overlooked.
        """
        before = self._snapshot
        if before is not None and not force and (before.settled or briefly) and not self.unread:
            if not before.uncommitted and self._changed() == before.changed:
                return False
        after = self._load()
        if before is None or after.segments is before.segments:
            return before is None
        return [s.name for s in after.segments] != [s.name for s in before.segments]

    def see(self, name: str) -> None:
        """Add one segment that was just committed here, without listing the directory."""
        before = self._now
        if name in before.by_name:
            return
        opened, _ = self._open_all({name}, {}, {}, {})
        if opened and self._grows(before, opened):
            after = before.grown(opened)
            after.changed = self._changed()
            after.since_s = time.monotonic()
            # Others may have changed it too, which the links tell, where they count; nothing is settled, but who looks
            # briefly need not look for this one.
            mine = not before.links_count or after.changed[1] == before.changed[1] + 1
            if self._snapshot is before and mine:  # else another thread saw more meanwhile, or another process did
                self._snapshot = after
                return
        self._load()

    def _changed(self) -> Tuple[int, int]:
        """(when a segment last came or went, by the file system's clock, or -1 before the first one; the links)."""
        try:
            status = os.stat(os.path.join(self.path, "segments"))
        except FileNotFoundError:
            return -1, 0
        return status.st_mtime_ns, status.st_nlink

    def _load(self, damage: Optional[Dict[str, Damage]] = None) -> _Snapshot:
        """Look at the disk.  `damage` is what was found beside what is known."""
        for attempt in range(RELISTS):
            number = next(self._looks)
            after, complete = self._look({**self.damage, **(damage or {})})
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

    def _look(self, damage: Dict[str, Damage]) -> Tuple[_Snapshot, bool]:
        """What is on disk now, and whether all that was listed was still there."""
        names: Set[str] = set()
        before = self._snapshot
        known = before.by_name if before is not None else {}
        replaced = before.replaced if before is not None else set()
        changed = self._changed()  # before the listing: what is committed after it changes the time again
        try:
            with os.scandir(os.path.join(self.path, "segments")) as entries:
                names = {e.name for e in entries if e.name in known or e.is_dir(follow_symlinks=False)}
        except FileNotFoundError:
            pass
        if names and self._mapped is None:
            self._mapped = not _on_network(self.path)
        # Not of what was repaired or removed, nor of what is worth another try.
        damage = {name: each for name, each in damage.items() if name in names and not each.unread}
        replaced = replaced & names
        opened, uncommitted = self._open_all(names.difference(known, replaced), damage, {}, {})
        if before is not None and damage == before.damage and names.issuperset(known) and self._grows(before, opened):
            after = before.grown(opened)
        else:
            opened, uncommitted = self._open_all(names, damage, known, opened)
            after = self._assembled(opened, damage)
            replaced = names & _names_replaced(opened, damage)
        after.damage, after.replaced, after.uncommitted, after.changed = damage, replaced, uncommitted, changed
        after.links_count = changed[1] == len(names) + 2
        # A second commit within the clock tick of the first leaves the same time.
        now_s = time.monotonic()
        same = before is not None and before.changed == changed
        after.since_s = before.since_s if before is not None and same else now_s
        after.settled = now_s - after.since_s > SETTLED_S or time.time() - changed[0] / 1e9 > OLD_S
        return after, names.issubset([*after.by_name, *damage, *replaced, *uncommitted])

    def _open_all(
        self, names: Set[str], damage: Dict[str, Damage], known: Dict[str, Segment], ready: Dict[str, Any]
    ) -> Tuple[Dict[str, Tuple[Segment, Any]], Set[str]]:
        """({name: (segment, records)} of those that are sound, names of those without a zarr.json).

        What an earlier one replaces is not opened.  What is damaged goes into `damage`; what was removed is left out.
        """
        opened: Dict[str, Tuple[Segment, Any]] = {}
        uncommitted: Set[str] = set()
        replaced = _names_replaced({}, damage)
        for name in sorted(names):
            if name in replaced or (name in damage and not damage[name].rows):
                continue
            path = os.path.join(self.path, "segments", name)
            try:
                if name in ready:
                    opened[name] = ready[name]
                elif name in known:
                    opened[name] = known[name], known[name].records()
                else:
                    opened[name] = open_segment(path, self.fingerprint, self.key)
                    opened[name][0].mapped = bool(self._mapped)
                replaced.update(opened[name][0].replaces)
                continue
            except UnknownFormatError:
                raise
            except FileNotFoundError as error:
                file = os.path.basename(error.filename or "")
                if file == "zarr.json":  # written last, also by who copies: not there yet
                    uncommitted.update([name] if os.path.isdir(path) else ())
                elif os.path.isdir(path):
                    damage[name] = self._left_out(name, f"{file} is missing")
            except (OSError, ValueError, KeyError, TypeError) as error:
                if isinstance(error, OSError) and error.errno in EXHAUSTED:
                    raise
                damage[name] = self._left_out(name, str(error), isinstance(error, OSError))
            replaced.update(damage[name].replaces if name in damage else ())
        return opened, uncommitted

    def _left_out(self, name: str, why: str, unread: bool = False) -> Damage:
        if name not in self._warned:
            self._warned.add(name)
            logger.warning(
                "segment %s of %s: %s; its samples count as missing; run `fstore verify`", name, self.path, why
            )
        return Damage(why, frozenset(), names_replaced(os.path.join(self.path, "segments", name)), unread)

    def _grows(self, before: _Snapshot, opened: Dict[str, Tuple[Segment, Any]]) -> bool:
        """Whether all that happened is that later segments came, which replace nothing: a commit of another process."""
        last = before.segments[-1].name if before.segments else ""
        first = before.first
        return (
            first is not None
            and len(before.later) + sum(segment.n for segment, _ in opened.values()) <= DICT_ROWS // 10
            and all(s.name > last and not s.replaces and s.form == first.form for s, _ in opened.values())
        )

    def _assembled(self, opened: Dict[str, Tuple[Segment, Any]], damage: Dict[str, Damage]) -> _Snapshot:
        """A snapshot of these segments, made from nothing."""
        first = opened[min(opened)][0] if opened else None
        for name, (segment, _) in list(opened.items()):
            if first is not None and segment.form != first.form:  # a batch is one array
                del opened[name]
                what = f"frames are {segment.form}, but those of the recipe's first segment {first.form}"
                damage[name] = self._left_out(name, what)
        replaced = _names_replaced(opened, damage)
        counted = [opened[name] for name in sorted(opened) if name not in replaced]
        by_name = {name: segment for name, (segment, _) in opened.items()}
        return _Snapshot(by_name, [segment for segment, _ in counted], _table(counted, damage))


def _names_replaced(opened: Dict[str, Tuple[Segment, Any]], damage: Dict[str, Damage]) -> Set[str]:
    return {name for segment, _ in opened.values() for name in segment.replaces}.union(
        *(each.replaces for each in damage.values())
    )


def _table(counted: List[Tuple[Segment, Any]], damage: Dict[str, Damage]) -> Any:
    """Digest -> number of every row that counts."""
    parts, numbers = [], []
    for number, (segment, records) in enumerate(counted):
        rows = np.arange(segment.n, dtype=np.int64)
        if segment.name in damage:
            rows = np.delete(rows, sorted(damage[segment.name].rows))
        parts.append(records[["hi", "lo"]][rows])
        numbers.append(rows | number << 32)
    if not counted:
        return {}
    all_digests, all_numbers = np.concatenate(parts), np.concatenate(numbers)
    if len(all_numbers) > DICT_ROWS:
        return SortedTable(all_digests["hi"].astype("u8"), all_digests["lo"].astype("u8"), all_numbers)
    # From last to first, so that the first segment's row is the one that stays.
    return dict(zip(reversed(_digests(all_digests)), reversed(all_numbers.tolist())))


def _digests(records: Any) -> List[bytes]:
    raw = np.stack([records["hi"], records["lo"]], axis=1).astype(">u8").tobytes()
    return [raw[at : at + 16] for at in range(0, len(raw), 16)]


def fits(out: Any, shape: Tuple[int, ...], dtype: Any) -> bool:
    """Whether rows can be written into `out` as they are."""
    return bool(out.shape == shape and out.dtype == dtype and out.flags.c_contiguous and out.flags.writeable)


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
    if not names:
        raise LookupError(f"nothing is stored under {key} in {root!r}: it has no folder {folder}")
    if len(found) != 1:
        what = f"{len(found)} recipes in {root!r}" if found else f"no recipe {fingerprint!r} in {root!r}"
        raise LookupError(f"{key} has {what}: {', '.join(found or names)}; pass fingerprint=")
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
        warnings.warn("google_crc32c is not installed: values are returned unchecked", RuntimeWarning, stacklevel=4)

"""Commit one immutable segment: a Zarr v3 array in a few files that appears at once or not at all.

The order of the steps is the promise: staging, shard, rows, what else there is, and last the sealed
zarr.json, each fsynced, then one rename into `segments/`, then the fsync that makes the rename durable.
`docs/format.md` has the bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from featurestore.errors import CommitUncertainError, StoreError
from featurestore.recipe import Recipe
from featurestore.storage.durable import create, explain, fsync, fsync_dir, write, write_file
from featurestore.storage.layout import Layout, ensure_levels
from featurestore.storage.reader import FORMAT, RECORD, SEAL_SIZE, Form, id_digest, seal_of
from featurestore.version import __version__

crc32c = google_crc32c.value
ROWS_FILE = "rows"
FRAMES_FILE = "frames"  # the checksums of single frames
REPLACES_FILE = "replaces"  # what zarr.json says too: damage to either must not bring back replaced rows
# Written at a time, from a multiple of it on: the page cache then has the file in pages of this size, which a reader
# maps with one fault each.  First reads of what was written in other pieces cost up to twice as much.
PIECE_BYTES = 2 << 20
CHUNK_BYTES = 1 << 20  # about, of the inner chunks, which other readers of Zarr read whole
CHECKED_FRAME_BYTES = 16 << 10  # from here on frames have checksums of their own, also where all samples are as long


# One encoder for all lines: `json.dumps` would make one for each.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True)
class Rows:
    """Rows to commit: the frames of one sample each."""

    form: Form
    n_frames: int | None
    """of every row; None where they differ"""
    counts: Sequence[int]
    """frames of each row"""
    lines: Sequence[bytes]
    """one JSON object per row, see `row_line`"""
    ids: Sequence[str]
    blocks: Iterable[NDArray[Any]]
    """arrays (k, *item) of the form's dtype: the frames of some whole rows, one row behind the other"""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array that they make."""
        if self.n_frames is None:
            return (sum(self.counts), *self.form.item)
        return (len(self.ids), self.n_frames, *self.form.item)

    @property
    def frame_bytes(self) -> int:
        """Of one frame."""
        size: int = math.prod(self.form.item) * self.form.dtype.itemsize
        return size


def row_line(
    id: str,
    frame_indices: NDArray[np.int64] | None,
    timestamps_s: NDArray[np.float64] | None,
    provenance: Mapping[str, Any] | None,
    dtype: str | None = None,
) -> bytes:
    """What is kept beside the values of a row.  `dtype` is what they were made in, where they are kept in another."""
    if frame_indices is None and timestamps_s is None and provenance is None and dtype is None:
        # Of imported rows nothing else is known; the encoder takes many times longer for a dict than for a text.
        return b'{"id":%b}\n' % _encode(id).encode()
    line: dict[str, Any] = {"id": id}
    if frame_indices is not None:
        line["frame_indices"] = frame_indices.tolist()
    if timestamps_s is not None:
        line["timestamps_s"] = timestamps_s.tolist()
    if provenance is not None:
        line["provenance"] = dict(provenance)
    if dtype is not None:
        line["dtype"] = dtype
    return encode_line(line)


def encode_line(line: Mapping[str, Any]) -> bytes:
    """A row's line as bytes.  Raises ValueError for what JSON cannot hold."""
    return _encode(line).encode() + b"\n"


def commit(
    layout: Layout,
    recipe: Recipe | Mapping[str, Any],
    rows: Rows,
    *,
    replaces: Sequence[str] = (),
    time_ns: int | None = None,
    made_with: Mapping[str, Any] | None = None,
) -> str:
    """Write one segment, durable when this returns; its name.

    Raises StoreError when nothing was stored, CommitUncertainError when that cannot be told.
    """
    name = f"{time.time_ns() if time_ns is None else time_ns:020d}-{uuid.uuid4().hex}"
    staging = f"{layout.housekeeping}/tmp/{name}"
    target = f"{layout.segments}/{name}"
    try:
        ensure_levels(layout, Recipe.of(recipe))
        os.mkdir(staging)
        written = _Values(rows)
        written.write(f"{staging}/c{'.0' * len(rows.shape)}")
        header = {
            "format": FORMAT,
            "name": name,
            "key": str(layout.key),
            "fingerprint": layout.fingerprint,
            "needs": [],
            "shard": written.shard,
            "rows": _write_rows(f"{staging}/{ROWS_FILE}", rows, written),
            "frames": _write_frames(f"{staging}/{FRAMES_FILE}", written),
            "replaces": sorted(replaces),
            "made_with": {**_made_with(), **(made_with or {})},
        }
        if replaces:
            write_file(f"{staging}/{REPLACES_FILE}", [replaces_document(replaces)])
        write_file(f"{staging}/zarr.json", [_sealed(_array_document(rows, written.inner, header))])  # the last one
        fsync_dir(staging)
        os.rename(staging, target)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, StoreError):
            # A network file system may lose the answer to a rename that was done.
            if os.path.exists(target):
                raise _uncertain(error, layout, target) from error
            raise explain(error, f"cannot commit {len(rows.ids)} rows of {layout.key}: nothing was stored") from error
        raise
    try:
        fsync_dir(layout.segments)
    except OSError as error:
        raise _uncertain(error, layout, target) from error
    return name


def _uncertain(error: OSError, layout: Layout, target: str) -> CommitUncertainError:
    return CommitUncertainError(
        error.errno or errno.EIO,
        f"rows of {layout.key} were renamed into place, but {error.strerror} while making that durable; "
        "look again before writing them once more",
        target,
    )


class _Values:
    """The shard: raw values, zeros up to a whole inner chunk, then the index of a Zarr v3 shard."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.crcs = np.zeros(len(rows.ids), np.uint32)
        self.frame_crcs: NDArray[np.uint32] | None = None
        if rows.n_frames is None or rows.frame_bytes >= CHECKED_FRAME_BYTES:
            self.frame_crcs = np.zeros(sum(rows.counts), np.uint32)
        length, size = rows.shape[0], sum(rows.counts) * rows.frame_bytes
        self.inner = inner_chunk(length, size)
        self.shard: dict[str, Any] = {"bytes": 0, "blake2b": None}

    def write(self, path: Path | str) -> None:
        """All of it, fsynced; a segment of no rows has no such file."""
        rows = self.rows
        if not rows.ids:
            return
        inner, chunk_count = self.inner
        size = sum(rows.counts) * rows.frame_bytes
        stride = size // rows.shape[0]
        digest = _Digest(size)
        fd = create(path)
        try:
            pieces = _Pieces(fd, inner * chunk_count * stride + 16 * chunk_count + 4)
            row = frame = 0
            for block in rows.blocks:
                values = np.ascontiguousarray(block, rows.form.dtype.newbyteorder("<"))
                data = values.reshape(-1).view(np.uint8)
                digest.update(data)
                row = self._sum_up(data, row)
                if self.frame_crcs is not None:
                    own = np.fromiter(map(crc32c, values), np.uint32, len(values))
                    self.frame_crcs[frame : frame + len(values)] = own
                frame += len(values)
                pieces.add(data.data)
                digest.wait()  # whoever gives blocks may use their memory again
            if (row, frame) != (len(rows.ids), sum(rows.counts)):
                raise ValueError(f"{frame} frames were given for {len(rows.ids)} ids with {sum(rows.counts)}")
            index = np.empty((chunk_count, 2), "<u8")
            index[:, 0], index[:, 1] = np.arange(chunk_count) * (inner * stride), inner * stride
            tail = bytes(inner * chunk_count * stride - size) + index.tobytes()
            tail += crc32c(index.tobytes()).to_bytes(4, "little")
            digest.update(tail)
            pieces.add(tail)
            pieces.finish()
            fsync(fd)
            self.shard = {"bytes": size + len(tail), "blake2b": digest.hexdigest()}
        finally:
            digest.close()
            os.close(fd)

    def _sum_up(self, data: NDArray[np.uint8], row: int) -> int:
        """The checksums of the rows in a block; the number of the row behind them."""
        at = 0
        while at < len(data):
            size = self.rows.counts[row] * self.rows.frame_bytes
            self.crcs[row] = crc32c(data[at : at + size])
            at += size
            row += 1
        return row


def inner_chunk(length: int, size: int) -> tuple[int, int]:
    """(length of an inner chunk along the first axis, how many): about 1 MiB each, and 1 % wasted at most.

    All are as long: a shorter last one is refused by other readers, so that zeros fill it up.
    """
    for count in range(min(-(-size // CHUNK_BYTES), length), 0, -1):
        inner = -(-length // count)
        if 100 * (inner * count - length) <= length:
            return inner, count
    return max(length, 1), 1


class _Pieces:
    """Bytes written to a file in pieces that begin at multiples of PIECE_BYTES."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self._memory = min(size, PIECE_BYTES)  # of one sample 2 MiB would cost more to fill than to write
        self._rest: memoryview | None = None
        self._filled = 0

    def add(self, data: Any) -> None:
        data = memoryview(data)
        while data:
            if not self._filled and len(data) >= PIECE_BYTES:  # no need for a copy
                whole = len(data) // PIECE_BYTES * PIECE_BYTES
                for at in range(0, whole, PIECE_BYTES):
                    write(self.fd, data[at : at + PIECE_BYTES])
                data = data[whole:]
                continue
            if self._rest is None:
                self._rest = memoryview(bytearray(self._memory))
            part = data[: PIECE_BYTES - self._filled]
            self._rest[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            data = data[len(part) :]
            if self._filled == PIECE_BYTES:
                self.finish()

    def finish(self) -> None:
        """Write what is left."""
        if self._rest is not None:
            write(self.fd, self._rest[: self._filled])
            self._filled = 0


class _Digest:
    """blake2b beside the writing: for large shards it takes as long as the disk does."""

    def __init__(self, size: int) -> None:
        self._blake2b = hashlib.blake2b(digest_size=32)
        self._thread: ThreadPoolExecutor | None = ThreadPoolExecutor(1) if size > 4 << 20 else None
        self._last: Future[None] | None = None

    def update(self, data: Any) -> None:
        self.wait()
        if self._thread is None:
            self._blake2b.update(data)
        else:
            self._last = self._thread.submit(self._blake2b.update, data)

    def wait(self) -> None:
        """Until all that was given is digested."""
        if self._last is not None:
            self._last.result()
            self._last = None

    def hexdigest(self) -> str:
        self.wait()
        return self._blake2b.hexdigest()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown()


def _write_rows(path: Path | str, rows: Rows, values: _Values) -> dict[str, Any]:
    records = np.zeros(len(rows.ids), RECORD)
    digests = np.frombuffer(b"".join(map(id_digest, rows.ids)), [("hi", ">u8"), ("lo", ">u8")])
    records["hi"], records["lo"], records["crc"] = digests["hi"], digests["lo"], values.crcs
    sizes = np.fromiter(map(len, rows.lines), np.uint64, len(rows.lines))
    records["line"] = records.nbytes + np.cumsum(sizes) - sizes
    records["line_crc"] = np.fromiter(map(crc32c, rows.lines), np.uint32, len(rows.lines))
    counts = np.asarray(rows.counts, np.uint64)
    ends = np.cumsum(counts)
    records["frame"], records["n_frames"] = ends - counts, counts
    if values.frame_crcs is not None:
        own = values.frame_crcs.astype("<u4")
        bounds = zip((ends - counts).tolist(), ends.tolist(), strict=True)
        records["frames_crc"] = [crc32c(own[start:stop]) for start, stop in bounds]
    table, text = records.tobytes(), b"".join(rows.lines)
    write_file(path, [table, text])
    return {
        "samples": len(rows.ids),
        "bytes": len(table) + len(text),
        "blake2b": hashlib.blake2b(table + text, digest_size=32).hexdigest(),
        "table_blake2b": hashlib.blake2b(table, digest_size=32).hexdigest(),
    }


def _write_frames(path: Path | str, values: _Values) -> dict[str, Any] | None:
    """The checksums of single frames, where they have any."""
    if values.frame_crcs is None:
        return None
    raw = values.frame_crcs.astype("<u4").tobytes()
    if raw:
        write_file(path, [raw])
    return {"bytes": len(raw), "blake2b": hashlib.blake2b(raw, digest_size=32).hexdigest()}


def _array_document(rows: Rows, inner: tuple[int, int], header: Mapping[str, Any]) -> dict[str, Any]:
    length, count = inner
    whole = rows.shape[1:]
    little: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
    sharding = {
        "chunk_shape": [length, *whole],
        "codecs": [little if rows.form.dtype.itemsize > 1 else {"name": "bytes"}],
        "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(rows.shape),
        "data_type": rows.form.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [length * count, *whole]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": "NaN" if rows.form.dtype.kind == "f" else 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": [*(["frame"] if rows.n_frames is None else ["sample", "frame"]), *rows.form.axes],
        "attributes": {"featurestore": {**header, "seal": "0" * SEAL_SIZE}},
        "storage_transformers": [],
    }


def replaces_document(names: Iterable[str]) -> bytes:
    """One name a line."""
    return "".join(f"{name}\n" for name in sorted(names)).encode()


def _sealed(document: Mapping[str, Any]) -> bytes:
    raw = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    blank, seal = seal_of(raw)
    at = raw.rfind(blank)
    return raw[:at] + seal + raw[at + SEAL_SIZE :]


def _made_with() -> dict[str, Any]:
    return {
        "featurestore": __version__,
        "numpy": np.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "host": socket.gethostname(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }

"""Commit one immutable segment: a Zarr v3 array in three files that appears at once or not at all.

The order of the steps is the promise: staging, shard, rows, sealed zarr.json, each fsynced, then one
rename into `segments/`, then the fsync that makes the rename durable.  `docs/format.md` has the bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
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
from featurestore.storage.reader import CHUNK_INDEX, FORMAT, IMPORTING, RECORD, SEAL_SIZE, id_digest, seal_of
from featurestore.version import __version__

crc32c = google_crc32c.value
SHARD_FILE = "c.0.0.0"
REPLACES_FILE = "replaces"  # what zarr.json says too: damage to either must not bring back replaced rows
BLOCK_BYTES = 1 << 20  # written at a time: what a commit needs beside the values stays in the processor's cache


# One encoder for all lines: `json.dumps` would make one for each.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True)
class Rows:
    """Rows to commit: `blocks` yields arrays (k, n_frames, dim) that together have len(lines) rows."""

    shape: tuple[int, int]
    """(n_frames, dim)"""
    dtype: np.dtype[Any]
    """float16 | float32"""
    lines: Sequence[bytes]
    """one JSON object per row, see `row_line`"""
    ids: Sequence[str]
    blocks: Iterable[NDArray[Any]]


def row_line(
    id: str,
    frame_indices: NDArray[np.int64] | None,
    timestamps_s: NDArray[np.float64] | None,
    provenance: Mapping[str, Any] | None,
) -> bytes:
    """What is kept beside the values of a row."""
    if frame_indices is None and timestamps_s is None and provenance is None:
        # Of imported rows nothing else is known; the encoder takes many times longer for a dict than for a text.
        return b'{"id":%b}\n' % _encode(id).encode()
    line: dict[str, Any] = {"id": id}
    if frame_indices is not None:
        line["frame_indices"] = frame_indices.tolist()
    if timestamps_s is not None:
        line["timestamps_s"] = timestamps_s.tolist()
    if provenance is not None:
        line["provenance"] = dict(provenance)
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
    codec: str | None = None,
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
        shard, crcs = _write_shard(f"{staging}/{SHARD_FILE}", rows, codec)
        header = {
            "format": FORMAT,
            "name": name,
            "key": str(layout.key),
            "fingerprint": layout.fingerprint,
            "codec": codec,
            "shard": shard,
            "rows": _write_rows(f"{staging}/rows", rows, crcs),
            "replaces": sorted(replaces),
            "made_with": {**_made_with(), **(made_with or {})},
        }
        if replaces:
            write_file(f"{staging}/{REPLACES_FILE}", [replaces_document(replaces)])
        write_file(f"{staging}/zarr.json", [_sealed(_array_document(rows, codec, header))])
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


def _write_shard(path: Path | str, rows: Rows, codec: str | None) -> tuple[dict[str, Any], NDArray[np.uint32]]:
    """The shard: [payload | crc32c] per row, then the index of a Zarr v3 shard.  Also the checksums."""
    if not rows.ids:
        return {"bytes": 0, "blake2b": None}, np.empty(0, np.uint32)
    index = np.empty(len(rows.ids), CHUNK_INDEX)
    crcs = np.empty(len(rows.ids), np.uint32)
    payload = rows.shape[0] * rows.shape[1] * rows.dtype.itemsize
    digest = _Digest(len(rows.ids) * payload)
    step = max(1, BLOCK_BYTES // (payload + 4))
    # Fresh memory for each block would cost as much as copying into it. Two: one is digested while the next is filled.
    buffers = [np.empty((min(step, len(rows.ids)), payload + 4), np.uint8) for _ in range(2)]
    at = offset = 0
    fd = create(path)
    try:
        for block in rows.blocks:
            for start in range(0, len(block), step):
                part = np.ascontiguousarray(block[start : start + step], rows.dtype)
                if codec is None:
                    buffers.reverse()
                    buffer = buffers[0][: len(part)]
                    buffer[:, :payload] = part.reshape(len(part), -1).view(np.uint8)
                    own = np.fromiter((crc32c(row) for row in part), np.uint32, len(part))
                    buffer[:, payload:] = own.astype("<u4").view(np.uint8).reshape(-1, 4)
                    sizes = np.full(len(part), payload + 4, np.uint64)
                    data: Any = buffer.reshape(-1)
                else:
                    frames = [_deflate(row) for row in part]
                    own = np.fromiter((crc32c(frame) for frame in frames), np.uint32, len(part))
                    sizes = np.fromiter(map(len, frames), np.uint64, len(part))
                    data = b"".join(frames)
                index["size"][at : at + len(part)] = sizes
                index["offset"][at : at + len(part)] = offset + np.cumsum(sizes) - sizes
                crcs[at : at + len(part)] = own
                at += len(part)
                offset += int(sizes.sum())
                digest.update(data)
                write(fd, data)
        if at != len(rows.ids):
            raise ValueError(f"{at} rows were given for {len(rows.ids)} ids")
        tail = index.tobytes()
        tail += crc32c(tail).to_bytes(4, "little")
        digest.update(tail)
        write(fd, tail)
        fsync(fd)
        return {"bytes": offset + len(tail), "blake2b": digest.hexdigest()}, crcs
    finally:
        digest.close()
        os.close(fd)


class _Digest:
    """blake2b beside the writing: for large shards it takes as long as the disk does."""

    def __init__(self, size: int) -> None:
        self._blake2b = hashlib.blake2b(digest_size=32)
        self._thread: ThreadPoolExecutor | None = ThreadPoolExecutor(1) if size > 4 << 20 else None
        self._last: Future[None] | None = None

    def update(self, data: Any) -> None:
        if self._thread is None:
            self._blake2b.update(data)
            return
        if self._last is not None:
            self._last.result()  # at most one block waits
        self._last = self._thread.submit(self._blake2b.update, data)

    def hexdigest(self) -> str:
        if self._last is not None:
            self._last.result()
        return self._blake2b.hexdigest()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown()


def _deflate(row: NDArray[Any]) -> bytes:
    with IMPORTING:
        from numcodecs import Zstd  # only `fstore compact --codec zstd` needs it

    return bytes(Zstd(level=3, checksum=True).encode(row))


def _write_rows(path: Path | str, rows: Rows, crcs: NDArray[np.uint32]) -> dict[str, Any]:
    records = np.empty(len(rows.ids), RECORD)
    digests = np.frombuffer(b"".join(map(id_digest, rows.ids)), [("hi", ">u8"), ("lo", ">u8")])
    records["hi"], records["lo"], records["crc"] = digests["hi"], digests["lo"], crcs
    sizes = np.fromiter(map(len, rows.lines), np.uint64, len(rows.lines))
    records["line"] = records.nbytes + np.cumsum(sizes) - sizes
    records["line_crc"] = np.fromiter(map(crc32c, rows.lines), np.uint32, len(rows.lines))
    table, text = records.tobytes(), b"".join(rows.lines)
    write_file(path, [table, text])
    return {
        "bytes": len(table) + len(text),
        "blake2b": hashlib.blake2b(table + text, digest_size=32).hexdigest(),
        "table_blake2b": hashlib.blake2b(table, digest_size=32).hexdigest(),
    }


def _array_document(rows: Rows, codec: str | None, header: Mapping[str, Any]) -> dict[str, Any]:
    n, inner = len(rows.ids), [1, *rows.shape]
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    zstd = {"name": "zstd", "configuration": {"level": 3, "checksum": True}}
    sharding = {
        "chunk_shape": inner,
        "codecs": [little, {"name": "crc32c"} if codec is None else zstd],
        "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [n, *rows.shape],
        "data_type": rows.dtype.name,
        # A segment of no rows has no shard, but a chunk of zero rows is not allowed.
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(n, 1), *rows.shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": "NaN",
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
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

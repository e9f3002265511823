"""Segments taken apart, changed, and put together again so that all seals, digests and checksums are right."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.storage.reader import CHUNK_INDEX_BYTES, RECORD, SEAL_MARK, SEAL_SIZE, crc32c, seal_of


class Forged:
    """One segment; what is changed in `document`, `table`, `lines` and `sums` is on the disk after a `write_...`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.document: Any = json.loads((path / "zarr.json").read_bytes())
        raw = (path / "rows").read_bytes()
        self.n: int = self.header["rows"]["samples"]
        self.table = np.frombuffer(raw[: self.n * RECORD.itemsize], RECORD).copy()
        places = self.table["line"].tolist()
        self.lines = [raw[start:end] for start, end in zip(places, [*places[1:], len(raw)], strict=True)]
        self.sums = None  # (total frames,) uint32, of single frames
        if (path / "frames").exists():
            self.sums = np.frombuffer((path / "frames").read_bytes(), "<u4").copy()

    @property
    def header(self) -> Any:
        return self.document["attributes"]["featurestore"]

    @property
    def shard(self) -> Path:
        (found,) = self.path.glob("c.0*")
        return found

    def fit(self, shape: Sequence[int]) -> None:
        """An array of another shape, in one chunk, and a file as large: its end is a hole, which costs nothing."""
        self.document["shape"] = list(shape)
        self.document["chunk_grid"]["configuration"]["chunk_shape"] = list(shape)
        self.document["codecs"][0]["configuration"]["chunk_shape"] = list(shape)
        size = math.prod(shape) * np.dtype(self.document["data_type"]).itemsize + CHUNK_INDEX_BYTES + 4
        self.header["shard"]["bytes"] = size
        with suppress(OSError, OverflowError):  # no file is as large
            os.truncate(self.shard, size)

    def write_lines(self) -> None:
        """Lines one behind the other, as a writer would."""
        sizes = np.array([len(line) for line in self.lines], np.uint64)
        self.table["line"] = self.table.nbytes + np.cumsum(sizes) - sizes
        self.table["line_crc"] = [crc32c(line) for line in self.lines]
        self.write_rows(b"".join(self.lines))

    def write_rows(self, text: bytes | None = None) -> None:
        """The table as it is, before these lines."""
        table = self.table.tobytes()
        raw = table + (b"".join(self.lines) if text is None else text)
        (self.path / "rows").write_bytes(raw)
        self.header["rows"] = {
            "samples": len(self.table),
            "bytes": len(raw),
            "blake2b": _digest(raw),
            "table_blake2b": _digest(table),
        }
        self.seal()

    def write_sums(self) -> None:
        """The checksums of single frames, and those of them in the table."""
        assert self.sums is not None
        raw = self.sums.tobytes()
        (self.path / "frames").write_bytes(raw)
        self.header["frames"] = {"bytes": len(raw), "blake2b": _digest(raw)}
        for row, (start, count) in enumerate(self.table[["frame", "n_frames"]].tolist()):
            self.table["frames_crc"][row] = crc32c(self.sums[start : start + count].tobytes())
        self.write_rows()

    def seal(self, text: Callable[[Any], bytes] | None = None) -> None:
        """zarr.json with a seal that is right, whatever it holds."""
        raw = json.dumps(self.document, separators=(",", ":")).encode() if text is None else text(self.document)
        if SEAL_MARK not in raw:
            raw = raw[:-1] + b',"x":{"seal":"' + b"0" * SEAL_SIZE + b'"}}'
        at = raw.rfind(SEAL_MARK) + len(SEAL_MARK)
        (self.path / "zarr.json").write_bytes(raw[:at] + seal_of(raw)[1] + raw[at + SEAL_SIZE :])


def _digest(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=32).hexdigest()

"""What readers leave out, and with `full` every byte of what they would read."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from featurestore.errors import UnknownRecipeError
from featurestore.quality.findings import Finding, Findings
from featurestore.quality.tree import set_aside
from featurestore.storage.feature_set import FeatureSet
from featurestore.storage.maintenance import touched
from featurestore.storage.reader import HEADER_BYTES, CorruptRowError, Reader, Segment
from featurestore.storage.writer import REPLACES_FILE, replaces_document
from featurestore.untrusted_io.files import read_untrusted

UNCOMMITTED_S = 86_400.0  # younger ones may be what somebody is copying into the store
AGAIN = "repair keeps the intact rows and moves the rest aside, then extract makes the missing samples again"
Line = dict[str, Any]
_PIECE = 1 << 16


class Damage:
    """The segments and failure records of one recipe, and what is wrong with them."""

    def __init__(self, feature_set: FeatureSet, where: str, findings: Findings) -> None:
        self.feature_set = feature_set
        self.where = where
        self.findings = findings
        self._found: list[Finding] = []
        self._bad_rows: dict[tuple[str, int | None], CorruptRowError] = {}
        self._bad_files: dict[str, str] = {}
        self._bad_records: list[tuple[Path, Finding]] = []

    @property
    def reader(self) -> Reader:
        return self.feature_set.reader

    def check(self) -> None:
        """What opening tells: seals, sizes, fingerprints, tables; and whether every record can be read."""
        len(self.reader)  # opens every segment
        for name, why in sorted(self.reader.problems.items()):
            self._add("segment", f"segment {name}: {why}", AGAIN)
        for name in self.reader.uncommitted:
            if time.time() - touched(os.path.join(self.reader.path, "segments", name)) > UNCOMMITTED_S:
                self._bad_files[name] = what = f"segment {name} was never committed: it has no zarr.json"
                self._add("uncommitted", what, "nothing reads it; repair moves it aside")
        for path in sorted(self.feature_set.failures.folder.glob("*.json")):
            try:
                self.feature_set.failures.read(path)
            except (OSError, ValueError) as error:
                advice = "it counts as none; repair moves it aside"
                self._bad_records.append((path, self._add("record", f"{path.name}: {error}", advice)))

    def rows(self) -> Iterator[tuple[Line, NDArray[Any]]]:
        """(line, values) of every sample, after every byte of its row was checked.  Reads everything."""
        done: set[str] = set()
        while todo := [segment for segment in self.reader.segments if segment.name not in done]:
            for segment in todo:
                done.add(segment.name)
                try:
                    yield from self._segment(segment)
                except FileNotFoundError:
                    if os.path.isdir(segment.path):
                        raise
                    # Merged or removed by another process meanwhile: its rows are in a later segment now.
                    self.reader.refresh(force=True)

    def _segment(self, segment: Segment) -> Iterator[tuple[Line, NDArray[Any]]]:
        sound = len(self._bad_rows)
        for row, line in enumerate(self._lines(segment)):
            values = self._values(segment, row, line)
            if values is not None and line is not None and self.reader.find(line["id"]) == (segment, row):
                yield line, values
        self._other_readers(segment)
        self._replaces(segment)
        if len(self._bad_rows) == sound and segment.name not in self._bad_files:
            # Bytes that no row shows: the checksums that other Zarr readers use, and whole files.
            self._digests(segment)
        segment.close()

    def lines(self) -> Iterator[Line]:
        """What is recorded beside every sample, without its values."""
        for segment in self.reader.segments:
            for row, line in enumerate(self._lines(segment)):
                if line is not None and self.reader.find(line["id"]) == (segment, row):
                    yield line

    def _lines(self, segment: Segment) -> Iterator[Line | None]:
        row = 0
        try:
            for _, line in segment.lines():
                yield line
                row += 1
        except CorruptRowError:
            # One by one from here on: a line that is damaged must not hide those behind it.
            yield from (self._line(segment, number) for number in range(row, segment.n))

    def _line(self, segment: Segment, row: int) -> Line | None:
        try:
            return segment.line(row)
        except CorruptRowError as error:
            self._bad_row("line", error, None)
            return None

    def _values(self, segment: Segment, row: int, line: Line | None) -> NDArray[Any] | None:
        segment.checked[row] = 0
        try:
            values: NDArray[Any] = segment.read(row)
        except CorruptRowError as error:
            self._bad_row("row", error, line)
            return None
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            self._bad_row("row", CorruptRowError(segment, row, error.strerror or str(error)), line)
            return None
        if segment.frames_crcs is not None:
            self._frames(segment, row, values)
        return values

    def _frames(self, segment: Segment, row: int, values: NDArray[Any]) -> None:
        """Checksums of single frames against that of the sample; where they differ, either vouches for the values."""
        whole = google_crc32c.value(values) == segment.crcs[row]
        if whole and segment.frames_agree(row, values):
            return
        which = "those of its frames differ" if whole else "that of the whole sample differs from those of its frames"
        what = f"row {row} of segment {segment.path}: its values are sound by one of its checksums, but {which}"
        self._bad_files.setdefault(segment.name, what)
        self._add("frame_checksum", what, AGAIN)

    def _bad_row(self, kind: str, error: CorruptRowError, line: Line | None) -> None:
        self._bad_rows.setdefault((error.segment.name, error.row), error)
        self._add(kind, str(error), AGAIN, *([line["id"]] if line else []))

    def _other_readers(self, segment: Segment) -> None:
        """What our reads do not need: the index of the shard, and the zeros that fill its last chunk."""
        if not segment.n:
            return
        try:
            with open(os.path.join(segment.path, "zarr.json"), "rb") as file:
                array = json.loads(file.read())
            inner = array["codecs"][0]["configuration"]["chunk_shape"][0]
            count = array["chunk_grid"]["configuration"]["chunk_shape"][0] // inner
            stride = math.prod(segment.array_shape[1:]) * segment.dtype.itemsize
            with open(os.path.join(segment.path, segment.shard_file), "rb") as shard:
                shard.seek(segment.array_shape[0] * stride)
                sound = _is_tail(shard, (inner * count - segment.array_shape[0]) * stride, inner * stride, count)
        except (OSError, ValueError, LookupError, TypeError) as error:
            if isinstance(error, FileNotFoundError) and not os.path.isdir(segment.path):
                raise
            return self._bad_file(segment, f"what other readers of Zarr need cannot be read: {error!r}")
        if not sound:
            self._bad_file(segment, f"`{segment.shard_file}`: zeros behind the rows, or the index, changed")

    def _digests(self, segment: Segment) -> None:
        for name, field in ((segment.shard_file, "shard"), ("rows", "rows"), ("frames", "frames")):
            header = segment.header[field]
            if header and (name == "rows" or segment.n):
                with open(os.path.join(segment.path, name), "rb") as file:
                    found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
                if found != header["blake2b"]:
                    self._bad_file(segment, f"`{name}` fails its digest, though no row shows it")

    def _replaces(self, segment: Segment) -> None:
        """The second list of what it replaces, which counts where zarr.json is damaged."""
        try:
            found = read_untrusted(os.path.join(segment.path, REPLACES_FILE), HEADER_BYTES)
        except FileNotFoundError:
            if not os.path.isdir(segment.path):
                raise
            found = b""
        except OSError as error:
            return self._bad_file(segment, f"`{REPLACES_FILE}` cannot be read: {error.strerror}")
        if found != replaces_document(segment.replaces):
            self._bad_file(segment, f"`{REPLACES_FILE}` is not the list in zarr.json")

    def _bad_file(self, segment: Segment, what: str) -> None:
        self._bad_files.setdefault(segment.name, what)
        self._add("file", f"segment {segment.name}: {what}", AGAIN)

    def _add(self, kind: str, what: str, advice: str, *ids: str) -> Finding:
        finding = self.findings.add(kind, self.where, what, *ids, advice=advice)
        self._found.append(finding)
        return finding

    def repair(self) -> None:
        """Move what is damaged aside, keeping sound rows.  Nothing is deleted."""
        for path, finding in self._bad_records:
            finding.outcome = f"moved to {set_aside(self.feature_set, path)}"
            finding.repaired = True
        rest = [finding for finding in self._found if finding.kind != "record"]
        if not rest:
            return
        for error in self._bad_rows.values():
            try:
                self.reader.recover(error)
            except CorruptRowError:
                pass  # its line and its values both: once is enough
        try:
            self.feature_set.quarantine(self._bad_files)
        except UnknownRecipeError as error:
            for finding in rest:
                finding.outcome = f"not repaired, because the recipe of what is kept is not known: {error.problem}"
            return
        for finding in rest:
            finding.repaired = True
            folder = self.feature_set.layout.housekeeping / "quarantine"
            finding.outcome = f"moved to {folder}; extract makes the missing samples again"


def _is_tail(shard: BinaryIO, zeros: int, chunk_bytes: int, count: int) -> bool:
    """Whether a file goes on with so many zeros, then with the index of so many inner chunks, and ends.

    A piece at a time: a segment that no store wrote may have a billion of them.
    """
    while zeros:
        piece = shard.read(min(zeros, _PIECE))
        if not piece or piece.count(0) != len(piece):
            return False
        zeros -= len(piece)
    crc = 0
    for start in range(0, count, _PIECE):
        numbers = np.arange(start, min(count, start + _PIECE), dtype="<u8")
        index = np.stack([numbers * chunk_bytes, np.full_like(numbers, chunk_bytes)], axis=1).tobytes()
        if shard.read(len(index)) != index:
            return False
        crc = google_crc32c.extend(crc, index)
    return shard.read(5) == crc.to_bytes(4, "little")

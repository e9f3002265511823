"""Records of samples that cannot be made: never zeros, never another frame, never forgotten."""

from __future__ import annotations

import errno
import json
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import google_crc32c

from featurestore.errors import StoreError
from featurestore.features import Failure
from featurestore.provenance import path_of, written
from featurestore.untrusted_io.files import parse_json, read_untrusted

RECORD_BYTES = 16 << 20


@dataclass(frozen=True)
class FailureRecord:
    """One sample that failed under one recipe."""

    id: str
    reason: str
    message: str
    attempts: int
    recipe: str
    """fingerprint"""
    time: str
    """of the last attempt, UTC"""
    sources: Sequence[Mapping[str, Any]] = ()
    """[{path, size, mtime_ns, column}] of the media that failed"""

    def is_void(self) -> bool:
        """Whether a source changed since, so that it is worth another try."""
        for source in self.sources:
            try:
                now = os.stat(path_of(source))
            except (KeyError, OSError, ValueError):
                continue  # gone or out of reach: no reason to think that it works now
            if (now.st_size, now.st_mtime_ns) != (source.get("size"), source.get("mtime_ns")):
                return True
        return False


class Failures:
    """The records of one recipe: one small JSON file each under `folder`, named by the digest of the id."""

    def __init__(self, folder: Path, recipe: str) -> None:
        self.folder = folder
        self.recipe = recipe

    def get(self, id: str) -> FailureRecord | None:
        """The record of a sample, or None.  A record that cannot be read counts as none."""
        return self._sound(self._path(id))

    def all(self) -> dict[str, FailureRecord]:
        """Every record by sample id, sorted."""
        try:
            paths = sorted(self.folder.glob("*.json"))
        except OSError:
            paths = []
        records = {record.id: record for record in map(self._sound, paths) if record is not None}
        return dict(sorted(records.items()))

    def add(self, id: str, failure: Failure) -> FailureRecord:
        """Keep a failure; counts its attempts."""
        before = self.get(id)
        record = FailureRecord(
            id=id,
            reason=failure.reason,
            message=failure.message,
            attempts=before.attempts + 1 if before else 1,
            recipe=self.recipe,
            time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            sources=[written(source) for source in failure.sources],
        )
        self.keep(record)
        return record

    def keep(self, record: FailureRecord) -> None:
        """Keep a record as it is, instead of the one that is there."""
        body = asdict(record)
        # In the staging directory, which gc empties of what killed writers leave.
        staged = self.folder.parent / "tmp" / f"{uuid.uuid4().hex}.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            staged.parent.mkdir(exist_ok=True)
            staged.write_text(json.dumps({"record": body, "crc32c": _checksum(body)}), encoding="utf-8")
            os.replace(staged, self._path(record.id))
        except OSError as error:
            raise StoreError(
                error.errno or errno.EIO,
                f"the failure of sample {record.id!r} ({record.message}) cannot be recorded: {error.strerror or error}",
                str(self.folder),
            ) from error

    def clear(self, ids: Iterable[str]) -> int:
        """Forget the records of these samples; how many there were."""
        if not os.path.isdir(self.folder):
            return 0
        count = 0
        for id in ids:
            try:
                self._path(id).unlink()
                count += 1
            except FileNotFoundError:
                pass
            except OSError as error:
                raise StoreError(
                    error.errno or errno.EIO,
                    f"the record of failure of sample {id!r} cannot be removed: {error.strerror}",
                    str(error.filename),
                ) from error
        return count

    def read(self, path: Path) -> FailureRecord:
        """The record in a file.  Raises ValueError or OSError where it is damaged or that of another sample."""
        document = parse_json(read_untrusted(path, RECORD_BYTES))
        try:
            if document["crc32c"] != _checksum(document["record"]):
                raise ValueError("it fails its checksum")
            record = FailureRecord(**document["record"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"it is no record: {error!r}") from None
        if not _well_formed(record):
            raise ValueError("a field of it is of another type than that of a record")
        if path != self._path(record.id) or record.recipe != self.recipe:
            raise ValueError("it is that of another sample or recipe")
        return record

    def _sound(self, path: Path) -> FailureRecord | None:
        try:
            return self.read(path)
        except (OSError, ValueError):
            return None

    def _path(self, id: str) -> Path:
        from featurestore.storage.reader import id_digest  # numpy, which listing commands do not need

        return self.folder / f"{id_digest(id).hex()}.json"


def _well_formed(record: FailureRecord) -> bool:
    texts = (record.id, record.reason, record.message, record.recipe, record.time)
    sources = record.sources
    return (
        all(type(text) is str for text in texts)
        and type(record.attempts) is int
        and type(sources) is list
        and all(type(source) is dict and type(source.get("path", "")) is str for source in sources)
    )


def _checksum(body: Mapping[str, Any]) -> int:
    return int(google_crc32c.value(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()))

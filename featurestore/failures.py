"""Records of samples that cannot be made: never zeros, never another frame, never forgotten."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featurestore.features import Failure


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
    """[{path, size, mtime_ns}] of the media that failed"""

    def is_void(self) -> bool:
        """Whether a source changed since, so that it is worth another try."""
        for source in self.sources:
            try:
                now = os.stat(source["path"])
            except OSError:
                continue  # gone or out of reach: no reason to think that it works now
            if (now.st_size, now.st_mtime_ns) != (source["size"], source["mtime_ns"]):
                return True
        return False


class Failures:
    """The records of one recipe: one small JSON file each under `folder`, named by the digest of the id."""

    def __init__(self, folder: Path, recipe: str) -> None:
        self.folder = folder
        self.recipe = recipe

    def get(self, id: str) -> FailureRecord | None:
        """The record of a sample, or None.  A record that cannot be read counts as none."""
        return _read(self._path(id))

    def all(self) -> dict[str, FailureRecord]:
        """Every record by sample id, sorted."""
        try:
            paths = sorted(self.folder.glob("*.json"))
        except OSError:
            paths = []
        records = {record.id: record for record in map(_read, paths) if record is not None}
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
            sources=[dict(source) for source in failure.sources],
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        staged = self.folder / f"{uuid.uuid4().hex}.tmp"
        staged.write_text(json.dumps(asdict(record), ensure_ascii=False), encoding="utf-8")
        os.replace(staged, self._path(id))
        return record

    def clear(self, ids: Sequence[str]) -> int:
        """Forget the records of these samples; how many there were."""
        count = 0
        for id in ids:
            try:
                self._path(id).unlink()
                count += 1
            except FileNotFoundError:
                pass
        return count

    def _path(self, id: str) -> Path:
        from featurestore.reader import id_digest  # numpy, which listing commands do not need

        return self.folder / f"{id_digest(id).hex()}.json"


def _read(path: Path) -> FailureRecord | None:
    try:
        return FailureRecord(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None

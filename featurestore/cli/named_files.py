"""The files that a manifest names: which of them are there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.sample import PATHS, Sample

FIRST = 5


@dataclass(frozen=True)
class NamedFiles:
    """One column of a manifest."""

    column: str
    named: int
    """samples for which it names a file"""
    absent: dict[str, str]
    """id -> path that is no file, or is an empty one"""

    def as_json(self) -> dict[str, Any]:
        found = self.named - len(self.absent)
        return {"named": self.named, "found": found, "missing": len(self.absent), "absent": self.absent}

    def finding(self) -> str | None:
        """One line where some are absent."""
        if not self.absent:
            return None
        first = ", ".join(f"{id}: {path}" for id, path in list(self.absent.items())[:FIRST])
        rest = ", ..." if len(self.absent) > FIRST else ""
        return f"{self.column}: {len(self.absent):,} of {self.named:,} are missing or empty: {first}{rest}"


def look_for_files(samples: Mapping[str, Sample]) -> list[NamedFiles]:
    """Of each column that names files; one stat per file, nothing is opened."""
    found = []
    for column in PATHS:
        named = {id: path for id, sample in samples.items() if (path := getattr(sample, column)) is not None}
        if named:
            absent = {id: str(path) for id, path in named.items() if not _is_there(path)}
            found.append(NamedFiles(column, len(named), absent))
    return found


def _is_there(path: Path) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) > 0

"""What is wrong with a tree of `.npy` folders: each kind once per folder, with the samples it concerns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# Kinds whose rows are not imported; the rest is stored as it is and only reported.
REFUSED = {"unknown_dataset", "unknown_folder", "two_folders", "bad_id", "unreadable", "shape", "dtype", "nonfinite"}


@dataclass(slots=True)
class Finding:
    """One kind of mistake in one folder."""

    kind: str
    """a short stable word, see docs/coming_from_npy.md"""
    folder: str
    message: str
    ids: list[str] = field(default_factory=list)
    """the samples, or files, it concerns; empty where it concerns the folder"""

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "folder": self.folder, "message": self.message, "ids": self.ids}

    def __str__(self) -> str:
        if not self.ids:
            return self.message
        first = ", ".join(self.ids[:5]) + (", ..." if len(self.ids) > 5 else "")
        return f"{self.message} ({len(self.ids)}: {first})"


class Findings:
    """A list of findings that puts samples with the same mistake together."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Finding] = {}

    def add(self, kind: str, folder: str, message: str, *ids: str) -> None:
        finding = self._found.setdefault((kind, folder, message), Finding(kind, folder, message))
        finding.ids.extend(ids)

    def count(self, folder: str, *kinds: str) -> int:
        """How many samples of a folder have one of these kinds."""
        return sum(len(f.ids) for f in self if f.folder == folder and f.kind in kinds)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)

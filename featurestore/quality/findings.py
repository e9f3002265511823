"""Finding: one thing that is wrong with a store, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

KINDS = {
    "stray": "a file or folder that no store makes",
    "group": "the document of a level is missing or is not the one that was written",
    "recipe": "the document with the recipe is missing or holds another recipe",
    "format": "written by a later version",
    "segment": "a segment that readers leave out: seal, sizes, names or table do not fit",
    "row": "values that are not those committed with their id",
    "line": "what is recorded beside the values is not what was committed",
    "file": "bytes of a segment's file changed where no row shows it",
    "record": "a record of a failure that cannot be read",
    "missing": "samples of the source that are not stored",
    "failed": "samples of the source with a record that they cannot be made",
    "extra": "stored samples that the source does not have",
    "stale": "samples whose media changed since they were read, or are other files now",
    "nonfinite": "values that are NaN or infinite",
    "zero": "frames whose values are all zero",
    "repeated": "equal frames of one sample where the recorded indices differ, or all where none are recorded",
    "duplicate": "the same values under several ids",
    "differs": "a sample that comes out differently when it is made again",
    "not_made": "a stored sample that cannot be made again",
}
REPAIRABLE = {"group", "recipe", "segment", "row", "line", "file", "record"}
"""kinds that `verify --repair` mends: it keeps what is sound and moves the rest aside"""
SHOWN = 5


@dataclass
class Finding:
    """Several samples with the same mistake in the same place are one finding."""

    kind: str
    """one of `KINDS`"""
    where: str
    """`KEY@PREFIX`, or a path in the store"""
    what: str
    advice: str
    ids: list[str] = field(default_factory=list)
    """the samples it concerns, as far as they are known"""
    repaired: bool = False

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))

    def __str__(self) -> str:
        shown = ", ".join(self.ids[:SHOWN]) + (", ..." if len(self.ids) > SHOWN else "")
        ids = f" ({len(self.ids)}: {shown})" if self.ids else ""
        return f"{self.kind}: {self.where}: {self.what}{ids}; {'repaired: ' if self.repaired else ''}{self.advice}"


class Findings:
    """Findings in the order they were made, equal ones put together."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], tuple[Finding, set[str]]] = {}

    def add(self, kind: str, where: object, what: str, advice: str, *ids: str) -> Finding:
        assert kind in KINDS
        key = (kind, str(where), what)
        finding, known = self._found.setdefault(key, (Finding(kind, str(where), what, advice), set()))
        finding.ids.extend(id for id in dict.fromkeys(ids) if id not in known)
        known.update(ids)
        return finding

    def __iter__(self) -> Iterator[Finding]:
        return (finding for finding, _ in self._found.values())

    def __len__(self) -> int:
        return len(self._found)

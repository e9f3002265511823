"""Finding: one thing that is wrong with a store or a tree of `.npy` files, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from featurestore.key import FeatureKey
from featurestore.recipe import Recipe

KINDS = {
    "stray": "a file or folder that no store makes",
    "group": "the document of a level is missing or is not the one that was written",
    "recipe": "the document with the recipe is missing or holds another recipe",
    "format": "written by another version",
    "segment": "a segment that readers leave out: seal, sizes, names or table do not fit",
    "uncommitted": "a folder of a segment without its document, for more than a day: nobody will finish it",
    "row": "values that are not those committed with their id",
    "line": "what is recorded beside the values is not what was committed",
    "frame_checksum": "of the checksums of a sample and of its frames one differs from the values",
    "file": "bytes of a segment's file changed where no row shows it",
    "record": "a record of a failure that cannot be read",
    "manifest": "what the store says of itself for readers that cannot list folders is not what was written",
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
REPAIRABLE = {
    "group",
    "recipe",
    "segment",
    "uncommitted",
    "row",
    "line",
    "frame_checksum",
    "file",
    "record",
    "manifest",
}
"""kinds that `verify --repair` mends: it keeps what is sound and moves the rest aside"""
SHOWN = 5


@dataclass
class Finding:
    """Several samples, or files, with the same mistake in the same place are one finding."""

    kind: str
    """a short stable word: of `KINDS`, or for trees of `.npy` files of docs/coming_from_npy.md"""
    where: str
    """`KEY@PREFIX`, a path in the store, or a folder of a tree"""
    what: str
    advice: str = ""
    """what a program does next; a command line says it by what follows"""
    ids: list[str] = field(default_factory=list)
    """the samples or files it concerns, as far as they are known"""
    repaired: bool = False
    outcome: str = ""
    """what became of it where it was to be repaired"""
    key: FeatureKey | None = None
    recipe: Recipe | None = None
    """that of the key, where it can be read"""
    datasets: tuple[tuple[str, str], ...] = ()
    """(tree, dataset) that may be meant, where nobody knows whose features a tree holds"""

    @property
    def named(self) -> str:
        """What is wrong, with the first of the samples."""
        shown = ", ".join(self.ids[:SHOWN]) + (", ..." if len(self.ids) > SHOWN else "")
        return f"{self.what} ({len(self.ids)}: {shown})" if self.ids else self.what

    @property
    def to_do(self) -> str:
        return self.outcome or self.advice

    @property
    def message(self) -> str:
        """What is wrong and what to do, without the samples."""
        return f"{self.what}; {self.to_do}" if self.to_do else self.what

    def as_json(self) -> dict[str, Any]:
        names = ("kind", "where", "what", "ids", "repaired")
        return {**{name: getattr(self, name) for name in names}, "advice": self.to_do}

    def __str__(self) -> str:
        to_do = f"; {'repaired: ' if self.repaired else ''}{self.to_do}" if self.to_do else ""
        return f"{self.kind}: {self.where}: {self.named}{to_do}"


class Findings:
    """Findings in the order they were made, equal ones put together."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], tuple[Finding, set[str]]] = {}

    def add(self, kind: str, where: object, what: str, *ids: str, advice: str = "", **facts: Any) -> Finding:
        """The finding of this mistake, with these samples added.  facts: `key`, `recipe`, `datasets`."""
        key = (kind, str(where), what)
        finding, known = self._found.setdefault(key, (Finding(*key, advice, **facts), set()))
        finding.ids.extend(id for id in dict.fromkeys(ids) if id not in known)
        known.update(ids)
        return finding

    def count(self, where: str, *kinds: str) -> int:
        """How many samples have one of these kinds, in one place."""
        return sum(len(finding.ids) for finding in self if finding.where == where and finding.kind in kinds)

    def __iter__(self) -> Iterator[Finding]:
        return (finding for finding, _ in self._found.values())

    def __len__(self) -> int:
        return len(self._found)

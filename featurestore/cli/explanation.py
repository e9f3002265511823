"""Explanation: everything that is known about the features of one sample."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from featurestore.cli.again import again
from featurestore.cli.output import counted
from featurestore.failures import FailureRecord
from featurestore.key import check_id
from featurestore.reader import BadRowError
from featurestore.shelf import Shelf
from featurestore.sources import state_of

SHOWN = 16  # frames in the text form; JSON has all


@dataclass
class Explanation:
    """What `fstore explain` says."""

    id: str
    key: str
    fingerprint: str
    recipe: Mapping[str, Any]
    stored: bool = False
    problem: str | None = None
    """why the stored row cannot be trusted"""
    segment: str | None = None
    row: int | None = None
    shape: tuple[int, int] | None = None
    dtype: str | None = None
    codec: str | None = None
    frame_indices: list[int] | None = None
    timestamps_s: list[float] | None = None
    note: Any = None
    sources: list[dict[str, Any]] = field(default_factory=list)
    """as recorded, and `now`: unchanged | touched | changed | gone"""
    made_with: Mapping[str, Any] = field(default_factory=dict)
    failure: FailureRecord | None = None

    @classmethod
    def of(cls, shelf: Shelf, id: str) -> Explanation:
        """Look one sample up; reads its row, its line, its record and its sources."""
        check_id(id)
        found = cls(id, str(shelf.key), shelf.fingerprint, shelf.recipe.data)
        found.failure = shelf.failures.get(id)
        (place,) = shelf.places([id])
        if place is None:
            return found
        segment, row = place
        found.stored, found.segment, found.row = True, segment.name, row
        found.shape, found.dtype, found.codec = segment.shape, str(segment.dtype), segment.codec
        found.made_with = segment.header["made_with"]
        try:
            segment.read(row)
            line = segment.line(row)
        except (BadRowError, OSError) as error:
            found.problem = str(error)
            return found
        found.frame_indices = line.get("frame_indices")
        found.timestamps_s = line.get("timestamps_s")
        provenance = line.get("provenance") or {}
        more = {name: value for name, value in provenance.items() if name != "sources"}
        found.note = more["note"] if more.keys() == {"note"} else more or None
        found.sources = [{**one, "now": state_of(one, one["path"])} for one in provenance.get("sources", ())]
        return found

    @property
    def sound(self) -> bool:
        """Stored, whole, and made from the files that are there now."""
        return self.stored and self.problem is None and all(source["now"] != "changed" for source in self.sources)

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "key": self.key,
            "recipe": self.fingerprint,
            "stored": self.stored,
            "checksum_ok": None if not self.stored else self.problem is None,
            "problem": self.problem,
            "segment": self.segment,
            "row": self.row,
            "shape": None if self.shape is None else list(self.shape),
            "dtype": self.dtype,
            "codec": self.codec,
            "frame_indices": self.frame_indices,
            "timestamps_s": self.timestamps_s,
            "note": self.note,
            "sources": self.sources,
            "made_with": dict(self.made_with),
            "failure": None if self.failure is None else vars(self.failure),
            "recipe_document": dict(self.recipe),
        }

    def as_text(self) -> str:
        lines = [f"{self.id}", f"  key       {self.key}@{self.fingerprint}"]
        if self.stored:
            checksum = "checksum ok" if self.problem is None else f"DAMAGED: {self.problem}"
            codec = f", {self.codec}" if self.codec else ""
            lines.append(f"  values    {self.shape} {self.dtype}{codec}, {checksum}")
            lines.append(f"  place     row {self.row} of segment {self.segment}")
            made = ", ".join(
                f"{name} {value}" for name, value in self.made_with.items() if name not in ("host", "time")
            )
            lines.append(f"  made      {self.made_with.get('time', '?')} on {self.made_with.get('host', '?')}: {made}")
        else:
            lines.append("  values    not stored")
        lines += self._frames()
        if self.note is not None:
            lines.append(f"  note      {json.dumps(self.note, ensure_ascii=False)}")
        for source in self.sources:
            lines.append(f"  source    {source['path']}: {_STATES[source['now']]}")
        if self.failure is not None:
            record = self.failure
            attempts = counted(record.attempts, "attempt")
            lines.append(
                f"  failed    {record.reason}, {attempts}, last {record.time}: {record.message}; "
                f"`{again('retry', self.key)}` tries again"
            )
        text = json.dumps(self.recipe, ensure_ascii=False, indent=2)
        return "\n".join([*lines, "  recipe", *(f"    {line}" for line in text.splitlines())])

    def _frames(self) -> list[str]:
        if self.frame_indices is None:
            return ["  frames    not recorded"] if self.stored and self.problem is None else []
        seconds: Sequence[float | None] = self.timestamps_s or [None] * len(self.frame_indices)
        shown = [
            str(index) if second is None else f"{index} ({second:.3f} s)"
            for index, second in zip(self.frame_indices[:SHOWN], seconds, strict=False)
        ]
        rest = f", ... {len(self.frame_indices)} in all" if len(self.frame_indices) > SHOWN else ""
        return [f"  frames    {', '.join(shown)}{rest}"]


_STATES = {
    "unchanged": "unchanged",
    "touched": "written again since, with the same bytes",
    "changed": "CHANGED since; `fstore extract` makes the sample again",
    "gone": "not there any more",
}

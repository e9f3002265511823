"""Explanation: everything that is known about the features of one sample."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from featurestore.cli.hints import again
from featurestore.cli.output import counted
from featurestore.provenance import state_of
from featurestore.storage.info import SampleInfo

SHOWN = 16  # frames in the text form; JSON has all


@dataclass
class Explanation:
    """What `fstore explain` says."""

    sample: SampleInfo
    note: Any = None
    sources: list[dict[str, Any]] = field(default_factory=list)
    """as recorded, and `now`: unchanged | touched | changed | gone"""

    @classmethod
    def of(cls, sample: SampleInfo) -> Explanation:
        """Looks at the sources."""
        provenance = sample.provenance or {}
        more = {name: value for name, value in provenance.items() if name != "sources"}
        note = more["note"] if more.keys() == {"note"} else more or None
        return cls(sample, note, [{**one, "now": state_of(one)} for one in provenance.get("sources", ())])

    @property
    def sound(self) -> bool:
        """Stored, whole, and made from the files that are there now."""
        sample = self.sample
        return sample.stored and sample.problem is None and all(source["now"] != "changed" for source in self.sources)

    def as_json(self) -> dict[str, Any]:
        sample = self.sample
        return {
            "id": sample.id,
            "key": str(sample.key),
            "recipe": sample.fingerprint,
            "stored": sample.stored,
            "checksum_ok": None if not sample.stored else sample.problem is None,
            "problem": sample.problem,
            "segment": sample.segment,
            "row": sample.row,
            "shape": None if sample.shape is None else list(sample.shape),
            "dtype": sample.dtype,
            "axes": sample.axes,
            "frame_indices": sample.frame_indices,
            "timestamps_s": sample.timestamps_s,
            "note": self.note,
            "sources": self.sources,
            "made_with": dict(sample.made_with),
            "failure": None if sample.failure is None else vars(sample.failure),
            "recipe_document": dict(sample.recipe.data),
        }

    def as_text(self) -> str:
        sample = self.sample
        lines = [f"{sample.id}", f"  key       {sample.key}@{sample.fingerprint}"]
        if sample.stored:
            checksum = "checksum ok" if sample.problem is None else f"DAMAGED: {sample.problem}"
            lines.append(f"  values    {sample.shape} {sample.dtype}, {checksum}")
            lines.append(f"  place     row {sample.row} of segment {sample.segment}")
            made = ", ".join(
                f"{name} {value}" for name, value in sample.made_with.items() if name not in ("host", "time")
            )
            lines.append(
                f"  made      {sample.made_with.get('time', '?')} on {sample.made_with.get('host', '?')}: {made}"
            )
        else:
            lines.append("  values    not stored")
        lines += self._frames()
        if self.note is not None:
            lines.append(f"  note      {json.dumps(self.note, ensure_ascii=False)}")
        for source in self.sources:
            lines.append(f"  source    {source['path']}: {_STATES[source['now']]}")
        if sample.failure is not None:
            record = sample.failure
            attempts = counted(record.attempts, "attempt")
            lines.append(
                f"  failed    {record.reason}, {attempts}, last {record.time}: {record.message}; "
                f"`{again('retry', sample.key)}` tries again"
            )
        text = json.dumps(sample.recipe.data, ensure_ascii=False, indent=2)
        return "\n".join([*lines, "  recipe", *(f"    {line}" for line in text.splitlines())])

    def _frames(self) -> list[str]:
        sample = self.sample
        if sample.frame_indices is None:
            return ["  frames    not recorded"] if sample.stored and sample.problem is None else []
        seconds: Sequence[float | None] = sample.timestamps_s or [None] * len(sample.frame_indices)
        shown = [
            str(index) if second is None else f"{index} ({second:.3f} s)"
            for index, second in zip(sample.frame_indices[:SHOWN], seconds, strict=False)
        ]
        rest = f", ... {len(sample.frame_indices)} in all" if len(sample.frame_indices) > SHOWN else ""
        return [f"  frames    {', '.join(shown)}{rest}"]


_STATES = {
    "unchanged": "unchanged",
    "touched": "written again since, with the same bytes",
    "changed": "CHANGED since; `fstore extract` makes the sample again",
    "gone": "not there any more",
}

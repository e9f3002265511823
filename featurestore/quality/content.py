"""Suspicious content of a store, as findings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from featurestore.key import FeatureKey
from featurestore.quality.findings import Findings
from featurestore.quality.plausibility import Content

REMOVE = "check its media; `store.delete(key, [id])` removes it, then extract makes it again"


class ContentCheck:
    """Looks at every sample of one recipe; `finish` reports what concerns several of them."""

    def __init__(self, key: FeatureKey, where: str, findings: Findings) -> None:
        self.content = Content(key.modality)
        self.key, self.where, self.findings = key, where, findings

    def look(self, line: Mapping[str, Any], values: NDArray[Any]) -> None:
        """values: (n_frames, *item) of the sample that `line` is about."""
        for found in self.content.look(line["id"], values, line.get("frame_indices")):
            if found.kind == "nonfinite":
                self._add("nonfinite", "NaN or infinite values", REMOVE, line["id"])
            elif found.kind == "zero":
                which = "all" if found.rows == len(values) else "some"
                self._add("zero", f"{which} rows are zero", REMOVE, line["id"])
            elif found.kind == "repeated":
                advice = "a still image or silence does that; so does a decoder that hands out one frame twice"
                self._add("repeated", "rows of different frames are equal, bit for bit", advice, line["id"])
            else:
                what = "all rows are equal, and of which frames they are was not recorded"
                advice = "a clip of one frame does that; so do scripts that store one frame for all where they fail"
                self._add("repeated", what, advice, line["id"])

    def finish(self) -> None:
        """Report samples with the same values."""
        for ids in self.content.shared():
            what = f"the same values as {ids[0]!r}"
            advice = "does the source name one file under several ids? `store.explain(key, id)` shows which was read"
            self._add("duplicate", what, advice, *ids)

    def _add(self, kind: str, what: str, advice: str, *ids: str) -> None:
        self.findings.add(kind, self.where, what, *ids, advice=advice, key=self.key)

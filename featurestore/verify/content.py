"""Values that are whole and yet cannot be right, or are worth a look."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.verify.findings import Findings

REMOVE = "look at its media; `fstore rm KEY -- ID` removes it, then extract makes it again"


class Content:
    """Looks at every sample of one recipe; `finish` reports what concerns several of them.

    Descriptions (modality au) may rightly repeat within a sample and among samples, so for them only
    zero and non-finite values are reported.
    """

    def __init__(self, modality: str, where: str, findings: Findings) -> None:
        self.may_repeat = modality == "au"
        self.where = where
        self.findings = findings
        self._first: dict[bytes, str] = {}
        self._same: dict[bytes, list[str]] = {}

    def look(self, line: Mapping[str, Any], values: NDArray[Any]) -> None:
        """values: (n_frames, dim) of the sample that `line` is about."""
        id: str = line["id"]
        if not np.isfinite(values).all():
            self.findings.add("nonfinite", self.where, "NaN or infinite values", REMOVE, id)
        filled = values.any(axis=1)
        if not filled.all():
            what = "all rows are zero" if not filled.any() else "some rows are zero"
            self.findings.add("zero", self.where, what, REMOVE, id)
        if self.may_repeat:
            return
        frames = line.get("frame_indices")
        if frames is not None and repeats(values, frames):
            what = "rows of different frames are equal, bit for bit"
            advice = "a still picture or silence does that; so does a decoder that hands out one frame twice"
            self.findings.add("repeated", self.where, what, advice, id)
        if filled.any():
            digest = hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).digest()
            first = self._first.setdefault(digest, id)
            if first != id:
                self._same.setdefault(digest, [first]).append(id)

    def finish(self) -> None:
        """Report samples with the same values."""
        for ids in self._same.values():
            what = f"the same values as {ids[0]!r}"
            advice = "does the source name one file under several ids? `fstore explain KEY ID` shows which was read"
            self.findings.add("duplicate", self.where, what, advice, *ids)


def repeats(values: NDArray[Any], frames: list[int]) -> bool:
    """Whether two rows are equal though they are of different frames."""
    seen: dict[bytes, int] = {}
    return any(seen.setdefault(row.tobytes(), frame) != frame for row, frame in zip(values, frames, strict=True))

"""Values that can be imported and are suspicious all the same: what the old scripts stored instead of failing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from featurestore.legacy.findings import Findings
from featurestore.legacy.intake import Batch
from featurestore.legacy.tree import FeatureFolder


class ContentAudit:
    """Looks at every row of one folder; `finish` reports what needs all of them.

    frames_of  sample id -> frames of its media (the video, or the face file), None where that is not known
    """

    def __init__(
        self, folder: FeatureFolder, findings: Findings, frames_of: Callable[[str], int | None] = lambda id: None
    ) -> None:
        self.folder, self.findings, self.frames_of = folder, findings, frames_of
        self._first: dict[bytes, str] = {}
        self._same: dict[str, list[str]] = {}

    def see(self, batch: Batch) -> None:
        """One batch of `read_batches`."""
        for id, values in zip(*batch, strict=True):
            nonzero = values.any(axis=1)
            if not nonzero.all():
                few = "" if not nonzero.any() else f"{len(values) - np.count_nonzero(nonzero)} of {len(values)} "
                self._add("zero", f"{few}rows of zeros, as the old scripts stored for media they could not read", id)
                continue
            if len(values) > 1 and self.folder.key.modality in ("frame", "face") and (values == values[0]).all():
                self._identical(id, len(values))
            # Descriptions repeat ("neutral expression"), and so do their encodings.
            if self.folder.key.modality != "au":
                digest = hashlib.blake2b(values.tobytes(), digest_size=16).digest()
                first = self._first.setdefault(digest, id)
                if first != id:
                    self._same.setdefault(first, [first]).append(id)

    def _identical(self, id: str, rows: int) -> None:
        frames = self.frames_of(id)
        if frames == 1:
            return  # one frame, repeated: what was asked for
        message = f"{rows} identical rows: the middle frame or one frame repeated, not {self.folder.key.sampling}"
        if frames is None:
            message = f"{rows} identical rows: the silent middle-frame fall-back, or a clip of one frame; cannot tell "
            message += "without the media (--root DIR or --manifest FILE)"
        self._add("identical", message, id)

    def finish(self) -> None:
        """Report ids that share their values."""
        for group in self._same.values():
            self._add("duplicate", f"the same values under {len(group)} ids", *group)

    def _add(self, kind: str, message: str, *ids: str) -> None:
        self.findings.add(kind, self.folder.name, message, *ids)

"""Values that can be imported and are suspicious all the same: what the old scripts stored instead of failing."""

from __future__ import annotations

from collections.abc import Callable

from featurestore.affectgpt.intake import Batch
from featurestore.affectgpt.tree import FeatureFolder
from featurestore.quality.findings import Findings
from featurestore.quality.plausibility import Content


class ContentAudit:
    """Looks at every row of one folder; `finish` reports what needs all of them.

    frames_of  sample id -> frames of its media (the video, or the face file), None where that is not known
    """

    def __init__(
        self, folder: FeatureFolder, findings: Findings, frames_of: Callable[[str], int | None] = lambda id: None
    ) -> None:
        self.folder, self.findings, self.frames_of = folder, findings, frames_of
        self.content = Content(folder.key.modality)

    def see(self, batch: Batch) -> None:
        """One batch of `read_batches`."""
        for id, values in batch.rows().items():
            for found in self.content.look(id, values):
                if found.kind == "zero":
                    few = "" if found.rows == len(values) else f"{found.rows} of {len(values)} "
                    what = f"{few}rows of zeros, as the old scripts stored for media they could not read"
                    self._add("zero", what, id)
                elif found.kind == "identical":
                    self._identical(id, found.rows)

    def _identical(self, id: str, rows: int) -> None:
        frames = self.frames_of(id)
        if frames == 1:
            return  # one frame, repeated: what was asked for
        message = f"{rows} identical rows: the middle frame or one frame repeated, not {self.folder.key.sampling}"
        if frames is None:
            message = f"{rows} identical rows: the silent middle-frame fall-back, or a clip of one frame; cannot tell "
            message += "without the media"
        self._add("identical", message, id, advice="" if frames else "name them with `known=`")

    def finish(self) -> None:
        """Report ids that share their values."""
        for group in self.content.shared():
            self._add("duplicate", f"the same values under {len(group)} ids", *group)

    def _add(self, kind: str, message: str, *ids: str, advice: str = "") -> None:
        self.findings.add(kind, self.folder.name, message, *ids, advice=advice)

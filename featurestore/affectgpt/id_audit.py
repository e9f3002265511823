"""Audit of ids: what the names of the samples in all folders of a tree say when they are put side by side."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from featurestore.affectgpt.tree import FeatureFolder
from featurestore.quality.findings import Findings

_LETTERS = re.compile(r"[A-Za-z]+")
_FEW = 3  # forms of names; with more of them nothing is said


class IdAudit:
    """Takes the ids of each folder; `finish` compares those of one data set."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self._seen: dict[str, list[tuple[FeatureFolder, Sequence[str], Collection[str] | None]]] = {}

    def see(self, folder: FeatureFolder, ids: Sequence[str], expected: Collection[str] | None) -> None:
        """expected: ids of the split, where they are known."""
        self._cases(folder, ids)
        if not folder.strict:
            self._mixed(folder, [id for id in ids if expected is None or id not in expected])
        self._seen.setdefault(folder.key.dataset, []).append((folder, ids, expected))

    def finish(self) -> None:
        """Report what only the folders of a data set together show."""
        for seen in self._seen.values():
            together = {id for _, ids, _ in seen for id in ids}
            for folder, ids, expected in seen:
                own = set(ids)
                wanted = set(expected) if expected is not None else together
                absent = sorted(wanted - own)
                cut = [id for id in absent if "." in id and id.partition(".")[0] in own - set(expected or ())]
                if cut:
                    what = "samples without a file, whose names are there up to the first dot"
                    advice = "the script cut names at a dot: rename the files; two that are cut alike have one file"
                    self.findings.add("cut_name", folder.name, what, *cut, advice=advice)
                rest = [id for id in absent if id not in set(cut)] if expected is None and not folder.strict else []
                # Names that were cut in another folder are nobody's samples here.
                stems = {id.partition(".")[0] for id in own if "." in id}
                if rest := [id for id in rest if id not in stems]:
                    what = "samples that other folders of the data set have: half copied, or made of fewer"
                    advice = "copy or make the rest and import again: what is stored stays"
                    self.findings.add("uneven", folder.name, what, *rest, advice=advice)

    def _cases(self, folder: FeatureFolder, ids: Sequence[str]) -> None:
        groups: dict[str, list[str]] = {}
        for id in ids:
            groups.setdefault(id.casefold(), []).append(id)
        for alike in groups.values():
            if len(alike) > 1:
                what = f"ids that differ in case only: {' and '.join(alike)}"
                advice = "stored as two samples; find out which the labels mean: some disks keep one file for both"
                self.findings.add("case_ids", folder.name, what, *alike, advice=advice)

    def _mixed(self, folder: FeatureFolder, ids: Sequence[str]) -> None:
        """Names of two forms, such as `sample_...` and `dia...`: two data sets in one folder."""
        forms: dict[str, list[str]] = {}
        for id in ids:
            first = _LETTERS.match(id) if any(map(str.isdigit, id)) else None
            if first is None:
                return  # names without a common form, such as those of videos
            forms.setdefault(first.group(), []).append(id)
        names = Counter({name: len(group) for name, group in forms.items()})
        (most, _), *others = names.most_common() or [("", 0)]
        strange = [name for name, _ in others if _stem(name) != _stem(most)]
        if not strange or len(names) > _FEW or names[most] < 2:
            return
        odd = [id for name in strange for id in forms[name]]
        what = f"ids like {forms[most][0]} and ids like {odd[0]}: perhaps of two data sets"
        advice = "give each data set a folder of its own, and import it with --dataset NAME"
        self.findings.add("mixed_ids", folder.name, what, *odd, advice=advice)


def _stem(name: str) -> str:
    """MER's ids begin with `sample` and `samplenew`."""
    return name[:6].casefold()

"""Counterparts: the files that a sample names now, against those that its row was made of."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from featurestore.merfactory.outputs import KINDS, csv_paths, json_paths
from featurestore.provenance import is_same, misfit, path_of, state_of
from featurestore.sample import PATHS, Sample
from featurestore.storage.failures import FailureRecord

MEDIA = {"frame": "video", "face": "face", "audio": "audio", "au": "au_json"}
"""modality -> the column that names what is encoded"""
OTHER = "sampler"
"""Stands for the column of a file that a sampler found by itself, which no manifest names."""

Verdict = Literal["unchanged", "changed", "gone", "unnamed", "unrecorded"]
"""
changed     a file that the sample names is not the one that was read
gone        one that it names is not there
unnamed     it names none where one was read
unrecorded  nobody wrote down what the row was made of
"""


def files_of(sample: Sample, column: str) -> Sequence[Path]:
    """The file that a sample names in a column, and those that MER-Factory puts beside it."""
    if column == "au_json":
        return json_paths(sample)
    if column == "au_csv":
        return csv_paths(sample)
    path = getattr(sample, column) if column in PATHS else None
    return [] if path is None else [path]


def column_of(sample: Sample, path: object, modality: str) -> str:
    """The column by which a sample names a file; of several the one that the modality reads."""
    columns = (MEDIA.get(modality, OTHER), "au_json", "au_csv", *PATHS)
    return next((name for name in columns if any(str(file) == str(path) for file in files_of(sample, name))), OTHER)


class Counterparts:
    """What became of the files that rows were made of, in view of those that the samples name now.

    samples   {id: Sample}, of which the ids that are asked about are looked up
    modality  of the key whose rows are asked about
    """

    def __init__(self, samples: Mapping[str, Sample], modality: str) -> None:
        self.samples = samples
        self.modality = modality

    def verdict(self, id: str, provenance: Mapping[str, Any] | None) -> Verdict:
        """Of one row; `changed` where one of its files did, else what keeps anything from being said."""
        sample = self.samples[id]
        recorded = (provenance or {}).get("sources", ())
        if not recorded or misfit(recorded) is not None:
            media = files_of(sample, MEDIA.get(self.modality, OTHER))
            return "gone" if media and not os.path.exists(media[0]) else "unrecorded"
        return _worst({self._one(sample, source, position) for position, source in enumerate(recorded)})

    def outdated(self, record: FailureRecord) -> bool:
        """Whether a record of a failure is about another file than the sample names now."""
        sample = self.samples.get(record.id)
        if sample is None:
            return False
        for source in record.sources:
            column = source.get("column") or self._usual(source)
            now = _counterpart(source, files_of(sample, column))
            if now is not None and not self._may_be(source, now):
                return True
        return False

    def _one(self, sample: Sample, source: Mapping[str, Any], position: int) -> Verdict:
        column = source.get("column")
        now = self._uncolumned(sample, source, position) if column is None else files_of(sample, column)
        path = _counterpart(source, now)
        if path is None:
            # What a sampler found by itself is where it was, or nobody knows.
            return "unnamed" if column in PATHS or (column is None and position == 0) else _plain(state_of(source))
        if str(path) != path_of(source) and self._moved(source, path):
            return "unchanged"
        return _plain(state_of(source, path))

    def _uncolumned(self, sample: Sample, source: Mapping[str, Any], position: int) -> Sequence[Path]:
        """Files that a source may be which was recorded before columns were: the media came first.

        What a sampler read is any file of the sample that is provably the same, else what its ending says.
        """
        usual = self._usual(source)
        if position == 0 and (now := files_of(sample, usual)):
            return now
        for path in (path for name in PATHS for path in files_of(sample, name)):
            if state_of(source, path) in ("unchanged", "touched") or self._moved(source, path):
                return [path]
        return files_of(sample, usual) if usual in ("au_json", "au_csv") else []

    def _usual(self, source: Mapping[str, Any]) -> str:
        """The column of a source without one: descriptions by their ending, anything else as what is encoded."""
        ending = os.path.splitext(source.get("path", ""))[1].lower()
        return {".json": "au_json", ".csv": "au_csv"}.get(ending) or MEDIA.get(self.modality, OTHER)

    def _moved(self, source: Mapping[str, Any], path: Path) -> bool:
        """Whether a file lies elsewhere now, or is seen under another path: without reading all of it again.

        Only where what was read is not to be seen under its own path, and no other sample has a file of that
        name: else the digest decides.
        """
        before = path_of(source)
        if os.path.basename(before) != path.name or os.path.exists(before) or self._named[path.name] != 1:
            return False
        try:
            status = os.stat(path)
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (source["size"], source["mtime_ns"])

    def _may_be(self, source: Mapping[str, Any], path: Path) -> bool:
        """Whether a file may be the one of a record, which has no digest; one that is not there may be anything."""
        before = path_of(source)
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return True
        return is_same(before, path, status) or self._moved(source, path)

    @cached_property
    def _named(self) -> Counter[str]:
        """name of a file -> how many samples have one of that name."""
        return Counter(name for sample in self.samples.values() for name in {path.name for path in sample.paths()})


def own_verdict(provenance: Mapping[str, Any] | None) -> Verdict:
    """Of a row without its sample: the files that were recorded, where they were."""
    recorded = (provenance or {}).get("sources", ())
    if not recorded or misfit(recorded) is not None:
        return "unrecorded"
    return _worst({_plain(state_of(source)) for source in recorded})


def _worst(found: Collection[Verdict]) -> Verdict:
    return next((each for each in get_args(Verdict) if each in found and each != "unchanged"), "unchanged")


def _counterpart(source: Mapping[str, Any], now: Sequence[Path]) -> Path | None:
    """Of several files, such as both kinds of JSON, the one that is meant."""
    before = path_of(source)
    name = os.path.basename(before)
    kind = next((kind for kind in KINDS if name.endswith(kind)), name)
    likeness = [(str(path) == before, path.name == name, path.name.endswith(kind)) for path in now]
    return now[likeness.index(max(likeness))] if now else None


def _plain(state: str) -> Verdict:
    return "changed" if state == "changed" else "gone" if state == "gone" else "unchanged"

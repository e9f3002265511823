"""What is there and what is missing under the root of a dataset, before anything is computed from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.datasets.declaration import Dataset, Media
from featurestore.datasets.files import MediaFolder, MerFactoryFolder, Roots
from featurestore.datasets.source import split_names
from featurestore.datasets.table import find_table, read_columns
from featurestore.errors import FeatureStoreError

FIRST = 5


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of file or text that samples have."""

    name: str
    """video | audio | face | subtitles | descriptions"""
    place: str
    """the folder or table that was looked into"""
    found: int
    missing: int
    first_missing: tuple[str, ...]
    """the first sample names without it, at most 5"""
    problem: str | None = None
    """why it could not be looked into at all"""

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__} | {"first_missing": list(self.first_missing)}


@dataclass(frozen=True, slots=True)
class Survey:
    """The report of `survey_dataset`.  `findings` is empty when everything is there."""

    dataset: str
    root: str
    split: str
    expected: int | None
    """how many samples the published split has"""
    listed: int
    """how many the label file, or list of names, has here"""
    parts: tuple[Part, ...]
    findings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types, for `--json`."""
        return {
            "dataset": self.dataset,
            "root": self.root,
            "split": self.split,
            "expected": self.expected,
            "listed": self.listed,
            "parts": {part.name: part.as_json() for part in self.parts},
            "findings": list(self.findings),
        }


def survey_dataset(
    dataset: Dataset,
    root: str | Path | None,
    split: str | None = None,
    mer_factory: str | Path | None = None,
) -> Survey:
    """Look for every file that the samples of a split need; open only the label file and the subtitles.

    What is wrong with single files is for `verify` and `extract` to find.  Raises what `load_dataset` raises, except
    that an unusable label file or table is a finding: then there are no names to look for.
    """
    roots = Roots.of(dataset, root, mer_factory)
    chosen = dataset.default_split if split is None else split
    expected = None if chosen == "all" else dataset.split(chosen).count
    findings: list[str] = []
    names: Mapping[str, str | None] = {}
    try:
        names = split_names(dataset, roots, chosen)
    except FeatureStoreError as error:
        findings.append(str(error))
    else:
        if expected is not None and len(names) != expected:
            findings.append(f"split {chosen} lists {len(names)} samples; the published one has {expected}")
        elif not names:
            findings.append(f"split {chosen} lists no samples")
    parts = []
    for kind, media, folder in (
        ("video", dataset.video, roots.video),
        ("audio", dataset.audio, roots.audio),
        ("face", dataset.face, roots.face),
    ):
        if media and folder:
            parts.append(_media(kind, media, folder, names))
    if dataset.subtitles and roots.subtitles:
        parts.append(_subtitles(dataset, roots.subtitles, names))
    if roots.mer_factory:
        tree = MerFactoryFolder(roots.mer_factory, dataset)
        problem = None if roots.mer_factory.is_dir() else "no such folder"
        parts.append(_part("descriptions", roots.mer_factory, names, lambda name: tree.find(name)[2], problem))
    for part in parts:
        if part.problem:
            findings.append(f"{part.name}: {part.place}: {part.problem}")
        elif part.missing:
            rest = ", ..." if part.missing > len(part.first_missing) else ""
            first = ", ".join(part.first_missing)
            findings.append(f"{part.name}: {part.missing} missing in {part.place}: {first}{rest}")
    base = str(roots.labels)
    return Survey(dataset.name, base, chosen, expected, len(names), tuple(parts), tuple(findings))


def _media(kind: str, media: Media, folder: Path, names: Iterable[str]) -> Part:
    files = MediaFolder(media, folder)
    return _part(kind, folder, names, lambda name: files.find(name)[1], None if folder.is_dir() else "no such folder")


def _subtitles(dataset: Dataset, folder: Path, names: Iterable[str]) -> Part:
    assert dataset.subtitles is not None  # the caller asked
    table, known, problem = dataset.subtitles, set[str](), None
    path = find_table(folder, table.file)
    try:
        known = {name for name, _ in read_columns(path, table.name, table.column)}  # empty: nothing is said
    except FeatureStoreError as error:
        problem = str(error) if path.exists() else "no such file"
    return _part("subtitles", path, names, known.__contains__, problem)


def _part(kind: str, place: Path, names: Iterable[str], has: Callable[[str], bool], problem: str | None = None) -> Part:
    names = list(names)
    missing = [name for name in names if not has(name)]
    return Part(kind, str(place), len(names) - len(missing), len(missing), tuple(missing[:FIRST]), problem)

"""Where the files of a dataset are: its root, the media of each sample, and the MER-Factory output."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from featurestore.datasets.declaration import Dataset, Media
from featurestore.datasets.table import find_table
from featurestore.errors import ManifestError


def dataset_root(dataset: Dataset, root: str | Path | None) -> Path:
    """The folder with this dataset's files: `root` itself, or the folder of one of its names inside.

    None means the folder of the declaration, for datasets of one's own.  ManifestError lists what was looked for.
    """
    if root is None:
        if dataset.declared_in is None:
            raise ManifestError(f"dataset {dataset.name} needs its root, the folder with its files")
        return dataset.declared_in.parent
    root = Path(root)
    marks = [dataset.labels.file] if dataset.labels else []
    marks += [split.file for split in dataset.splits.values() if split.file]
    marks += [media.folder for media in (dataset.video, dataset.audio, dataset.face) if media]
    if any(find_table(root, mark).exists() for mark in marks):
        return root
    names = listing(root)
    by_case = {name.casefold(): name for name in sorted(names, reverse=True)}
    for name in (*dataset.folders, *dataset.names):
        if (found := by_case.get(name.casefold())) is not None and (root / found).is_dir():
            return root / found
    if not root.is_dir():
        raise ManifestError(f"root {root} of dataset {dataset.name} is not a folder")
    raise ManifestError(
        f"root {root} holds neither {', '.join(dict.fromkeys(marks))} of dataset {dataset.name} "
        f"nor a folder {' or '.join((*dataset.folders, dataset.title))}"
    )


@dataclass(frozen=True, slots=True)
class Roots:
    """The folders that samples are made from; None leaves that part of a sample empty."""

    labels: Path | None = None
    """folder of the label file and of lists of names"""
    subtitles: Path | None = None
    video: Path | None = None
    audio: Path | None = None
    face: Path | None = None
    mer_factory: Path | None = None
    """MER-Factory's output directory, with or without a level for the dataset"""

    @classmethod
    def of(cls, dataset: Dataset, root: str | Path | None, mer_factory: str | Path | None = None) -> Roots:
        """The folders as the declaration places them under `root` (see `dataset_root`)."""
        base = dataset_root(dataset, root)
        video, audio, face = (base / m.folder if m else None for m in (dataset.video, dataset.audio, dataset.face))
        return cls(base, base, video, audio, face, Path(mer_factory) if mer_factory is not None else None)


def listing(folder: Path) -> frozenset[str]:
    """Names in a folder, none if it is not there: one listing instead of a stat for each sample."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise ManifestError(f"folder {folder} cannot be listed: {error}; check the declaration") from error


class MediaFolder:
    """One folder of media; answers where the file of a sample is, or would be."""

    def __init__(self, media: Media, folder: Path) -> None:
        self.media, self.folder, self.names = media, folder, listing(folder)

    def find(self, name: str) -> tuple[Path, bool]:
        """(path, whether it exists).  Of several extensions the first that exists; if none, the first at all.

        Both layouts are looked for, the declared one first, because published copies of one dataset differ.
        """
        nested_first = self.media.layout == "nested"
        for nested in (nested_first, not nested_first):
            for extension in self.media.extensions:
                file = name + extension
                if nested and name in self.names and (path := self.folder / name / file).exists():
                    return path, True
                if not nested and file in self.names:
                    return self.folder / file, True
        file = name + self.media.extensions[0]
        return (self.folder / name / file if nested_first else self.folder / file), False


class MerFactoryFolder:
    """A MER-Factory output directory: `{root}/{dataset}/{sample}/` or `{root}/{sample}/`, any case of the dataset."""

    def __init__(self, root: Path, dataset: Dataset) -> None:
        wanted = {name.casefold() for name in (*dataset.mer_factory, *dataset.names)}
        inside = sorted(name for name in listing(root) if name.casefold() in wanted)
        self.levels = [root / name for name in inside] + [root]
        self.samples = [listing(level) for level in self.levels]

    def find(self, name: str) -> tuple[Path | None, Path | None, bool]:
        """(description JSON, OpenFace CSV, whether either exists) of a sample.

        The JSON is `{name}_au_analysis.json`, or `{name}_merr_data.json` where only that exists.  Where nothing
        exists it is the path of the former, so that an error can name it.
        """
        for level, samples in zip(self.levels, self.samples, strict=True):
            if name not in samples:
                continue
            present = listing(level / name)
            jsons = [file for kind in ("au_analysis", "merr_data") if (file := f"{name}_{kind}.json") in present]
            table = level / name / f"{name}.csv" if f"{name}.csv" in present else None
            if jsons or table:
                return (level / name / jsons[0] if jsons else None), table, True
        return self.levels[0] / name / f"{name}_au_analysis.json", None, False

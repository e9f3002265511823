"""A dataset's samples: its names, labels, subtitles and media paths, as one `dict[str, Sample]`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featurestore.datasets.declaration import Dataset, Labels, Split, resolve_dataset
from featurestore.datasets.files import MediaFolder, MerFactoryFolder, Roots
from featurestore.datasets.label_npz import read_label_array
from featurestore.datasets.table import find_table, read_columns
from featurestore.errors import ManifestError
from featurestore.key import check_id
from featurestore.sample import Sample


def load_dataset(
    name: str | Path | Dataset,
    root: str | Path | None,
    split: str | None = None,
    mer_factory: str | Path | None = None,
) -> dict[str, Sample]:
    """The samples of one split, in the order of the label file.

    Media are named, not opened: a path says where a file is or should be, and whoever needs it reports a missing one.

    Args:
        name: A name or alias, the path of a TOML declaration, or a Dataset.
        root: The folder with the dataset's files, or one that holds the dataset's folder under a known name.
        split: A declared one, or "all"; by default "test", or the only one of a training set.
        mer_factory: MER-Factory's output directory, with or without a level for the dataset.

    Returns:
        {id: Sample}.

    Raises:
        UnknownDatasetError: No dataset has this name.
        ConfigError: It has no such split.
        ManifestError: The label file, its names or the subtitles cannot be used.

    Example:
        >>> samples = load_dataset("mer2023", "/data/mer2023-dataset-process")                  # doctest: +SKIP
    """
    dataset = name if isinstance(name, Dataset) else resolve_dataset(name)
    roots = Roots.of(dataset, root, mer_factory)
    return make_samples(dataset, split_names(dataset, roots, split), roots)


def split_names(dataset: Dataset, roots: Roots, split: str | None = None) -> dict[str, str | None]:
    """Sample name -> label text (None without labels) of one split, or of `all`."""
    if roots.labels is None:
        raise ManifestError(f"dataset {dataset.name}: the folder with its label file is not given")
    if split == "all":
        found: dict[str, str | None] = {}
        for each in dataset.splits.values():
            found.update(_one_split(dataset, roots.labels, each))
        return found
    return _one_split(dataset, roots.labels, dataset.split(split))


def _one_split(dataset: Dataset, folder: Path, split: Split) -> dict[str, str | None]:
    labels, found = dataset.labels, dict[str, str | None]()
    if split.file is not None:
        written = _csv_labels(folder, labels) if labels else {}
        listed = find_table(folder, split.file)
        for name, _ in read_columns(listed, split.column, split.column):
            _add(found, name, written.get(name), listed)
    elif labels is not None:
        for array in split.arrays:
            for name, record in read_label_array(folder / labels.file, array).items():
                _add(found, name, label_text(labels, record, name, folder / labels.file), folder / labels.file)
    if split.character is not None:
        position, wanted = split.character
        found = {name: label for name, label in found.items() if name[position : position + 1] == wanted}
    return found


def _add(found: dict[str, str | None], name: str, label: str | None, path: Path) -> None:
    if check_id(name) in (".", "..") or "/" in name:
        raise ManifestError(f"{path}: sample name {name!r} cannot be the name of a file")
    if name in found:
        raise ManifestError(f"{path} lists sample {name!r} twice")
    found[name] = label


def _csv_labels(folder: Path, labels: Labels) -> Mapping[str, str]:
    return dict(read_columns(find_table(folder, labels.file), "name", labels.field))


def label_text(labels: Labels, record: Any, name: str, path: Path) -> str:
    """The label of one record as text: a class word, a number as Python prints it, or a list as it is written."""
    value: Any = record.get(labels.field) if isinstance(record, dict) else None
    if labels.kind == "class" and type(value) is int and 0 <= value < len(labels.classes):
        return labels.classes[value]
    if labels.kind == "valence" and type(value) in (int, float) and math.isfinite(value):
        return repr(float(value))
    # Empty classes: any word is a class.
    if type(value) is str and labels.kind != "valence" and (not labels.classes or value in labels.classes):
        return value
    allowed = ", ".join(labels.classes) if labels.classes else {"valence": "a number"}.get(labels.kind, "text")
    raise ManifestError(f"{path}: sample {name!r} has {labels.field}={value!r}, not {labels.kind}: {allowed}")


def make_samples(dataset: Dataset, names: Mapping[str, str | None], roots: Roots) -> dict[str, Sample]:
    """Names with labels -> samples, with the media where `roots` places them."""
    subtitles = dict[str, str]()
    if dataset.subtitles and roots.subtitles:
        table = dataset.subtitles
        path = find_table(roots.subtitles, table.file)
        # Features need no subtitles, so a missing table is no error: None is "not known", "" is "nothing said".
        subtitles = dict(read_columns(path, table.name, table.column)) if path.exists() else {}
    video = MediaFolder(dataset.video, roots.video) if dataset.video and roots.video else None
    audio = MediaFolder(dataset.audio, roots.audio) if dataset.audio and roots.audio else None
    face = MediaFolder(dataset.face, roots.face) if dataset.face and roots.face else None
    descriptions = MerFactoryFolder(roots.mer_factory, dataset) if roots.mer_factory else None
    samples = {}
    for name, label in names.items():
        au_json, au_csv = descriptions.find(name)[:2] if descriptions else (None, None)
        samples[name] = Sample(
            id=name,
            video=video.find(name)[0] if video else None,
            audio=audio.find(name)[0] if audio else None,
            face=face.find(name)[0] if face else None,
            subtitle=subtitles.get(name),
            au_json=au_json,
            au_csv=au_csv,
            label=label,
        )
    return samples

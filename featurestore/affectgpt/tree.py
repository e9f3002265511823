"""A tree of `.npy` folders as AffectGPT's scripts write it: `{root}/{dataset}/{feature folder}/{sample}.npy`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.affectgpt.strangers import EXAMPLE, loose_files, shown, what_dataset, what_folder, whose_features
from featurestore.datasets import Dataset, resolve_dataset
from featurestore.errors import InvalidKeyError, LegacyNameError, LegacyTreeError, UnknownDatasetError
from featurestore.key import FeatureKey, check_part

if TYPE_CHECKING:  # its package imports numpy, and settings files are read without
    from featurestore.quality.findings import Findings

# Output width of the encoders that the old scripts knew, per row.  Source: domain notes 2.1.
DIMS = {
    "CLIP_VIT_LARGE": 768,
    "EVA_CLIP_G": None,
    "EVA_CLIP_G_NO_QFORMER": 1408,
    "DINO2_LARGE": 1024,
    "SigLIP_SO": 1152,
    "HUBERT_LARGE": 1024,
    "WAVLM_LARGE": 1024,
    "DATA2VEC_BASE": 768,
    "IMAGEBIND": None,
    "CLIP_TEXT": 512,
}

LEVEL = "features"


@dataclass(frozen=True, slots=True)
class FeatureFolder:
    """One folder of `{sample}.npy` and the key that its name means."""

    path: Path
    key: FeatureKey
    dataset: Dataset | None
    """the declaration, where the dataset is a known one"""
    name: str
    """path relative to the tree, for reports"""

    @property
    def file_ndim(self) -> int:
        """Dimensions of one file: fused vectors are (dim,), all else (rows, dim)."""
        return 1 if self.key.modality == "multi" else 2

    @property
    def known_dim(self) -> int | None:
        """Width of a row, where the encoder is one whose width is known."""
        return 1024 if self.key.modality == "multi" else DIMS.get(self.key.encoder)


@dataclass(slots=True)
class Tree:
    """What `scan_tree` recognised, and what it did not (in `findings`)."""

    root: Path
    origin: str
    folders: list[FeatureFolder] = field(default_factory=list)


def scan_tree(
    root: str | Path,
    findings: Findings,
    dataset: str | None = None,
    only: tuple[str, ...] = (),
) -> Tree:
    """Recognise every folder of a tree, of one dataset's folder in it, or of one feature folder.

    Between a dataset's folder and its feature folders there may be a level called `features`: so they lie beside the
    media in the data folders of the published scripts, `mer2023-dataset-process/features/frame_...`.

    dataset  a name, an alias or a .toml file: whose features these are, where the path does not say it; in a tree of
             several datasets, the only one to take
    only     feature folders to take, as they are named in reports or by their last component; empty: all.  Nothing is
             said about others then

    Folders that are not recognised, and two folders that mean one key, are findings and are not taken.
    Raises LegacyTreeError where nothing can be recognised at all.
    """
    root = Path(root)
    if not root.is_dir():
        raise LegacyTreeError(f"tree {root} is not a folder")
    if dataset is not None and _declared(dataset) is None:
        check_part("dataset name", dataset)
    tree = Tree(root, shown("/".join(root.resolve().parts[-2:]).lstrip("/")))
    here = Path(os.path.abspath(root))  # `.` has no name, and a link its own
    scanned = type(findings)() if only else findings
    if _is_feature_folder(here.name):
        _take(tree, scanned, root, _owner(here.parent).name, dataset, here.name)
    else:
        _take_children(tree, scanned, _owner(here).name, dataset)
    if only:
        _keep(tree, only)
    _one_folder_per_key(tree, findings)
    if not tree.folders and not findings:
        raise LegacyTreeError(f"tree {root} holds no feature folder such as {EXAMPLE}")
    return tree


def _take_children(tree: Tree, findings: Findings, parent: str, dataset: str | None) -> None:
    try:
        children = list(_folders(tree.root))
        in_data_folder = any(map(_is_level, children))  # media and labels are no strangers there
        if not in_data_folder:
            _report_loose(findings, tree.root, ".")
    except OSError as error:
        raise LegacyTreeError(f"tree {tree.root} cannot be listed: {error.strerror}") from error
    nobodys = []
    for child in children:
        try:
            # A dataset may be called face_to_face.
            if _is_feature_folder(child.name) or (_looks_like_features(child.name) and not _has_folders(child)):
                _take(tree, findings, child, parent, dataset, child.name)
            elif _is_level(child):
                _take_features(tree, findings, child, parent, dataset, child.name)
            elif not in_data_folder or _declared(child.name) is not None or _has_folders(child):
                _take_dataset(tree, findings, child, dataset)
        except OSError as error:
            findings.add("unreadable", shown(child.name), f"the folder cannot be listed: {error.strerror}")
        except LegacyTreeError as error:
            nobodys.append((child.name, error))
    for name, nobody in nobodys:
        if not tree.folders:
            raise nobody
        findings.add(
            "unknown_dataset", name, nobody.problem, advice=nobody.advice, datasets=((str(nobody.path), "NAME"),)
        )


def _keep(tree: Tree, only: tuple[str, ...]) -> None:
    known = [folder.name for folder in tree.folders]
    for name in only:
        if not any(name in (folder, folder.rpartition("/")[2]) for folder in known):
            raise LegacyTreeError(
                f"tree {tree.root} has no feature folder {name!r}; it has {', '.join(known) or 'none'}"
            )
    tree.folders = [f for f in tree.folders if f.name in only or f.name.rpartition("/")[2] in only]


def has_features(root: Path) -> bool:
    """Whether a place holds feature folders, its own or those of a dataset; a store in it does not count."""
    if not root.is_dir():
        return False
    inside = list(_folders(root))
    return any(_is_feature_folder(folder.name) for level in (inside, *map(_folders, inside)) for folder in level)


def _folders(path: Path) -> Iterator[Path]:
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    # A store may lie in the tree that was imported into it.
    yield from (path / name for name in names if not (name == "data" and (path / name / "zarr.json").exists()))


def _is_feature_folder(name: str) -> bool:
    try:
        FeatureKey.from_legacy("x", name)
    except ValueError:
        return False
    return True


def _looks_like_features(name: str) -> bool:
    """Whether a folder's name begins as those of feature folders do, so that something is wrong where it is none."""
    return name.startswith(("frame_", "face_", "audio_", "multi_", "au_")) or _is_feature_folder(name)


def _has_folders(path: Path) -> bool:
    return path.is_dir() and any(_looks_like_features(child.name) for child in _folders(path))


def _is_level(path: Path) -> bool:
    """Whether a folder is the level between a dataset's files and its feature folders."""
    return path.name == LEVEL and _has_folders(path)


def _owner(path: Path) -> Path:
    """The folder that is named after the dataset, where `path` is what feature folders lie in."""
    return path.parent if path.name == LEVEL else path


def _report_loose(findings: Findings, path: Path, name: str) -> None:
    for file, said in loose_files(path):
        findings.add("stray", name, said, shown(file))


def _take_dataset(tree: Tree, findings: Findings, path: Path, wanted: str | None) -> None:
    if wanted is not None:
        declared = _declared(wanted)
        names = (*declared.names, *declared.folders) if declared else (wanted,)
        if path.name.casefold() not in {name.casefold() for name in names}:
            return  # of another dataset than the one to take
    elif _declared(path.name) is None:
        if _has_folders(path) or _is_level(path / LEVEL):
            what, advice, meant = what_dataset(tree.root, path)
            findings.add("unknown_dataset", shown(path.name), what, advice=advice, datasets=meant)
        else:
            findings.add("unknown_folder", ".", what_folder(path), shown(path.name))
        return
    _take_features(tree, findings, path, path.name, wanted, path.name)


def _take_features(tree: Tree, findings: Findings, path: Path, parent: str, wanted: str | None, name: str) -> None:
    """The feature folders in a dataset's folder, or in its level `features`; `parent` names the dataset."""
    children = list(_folders(path))
    in_data_folder = any(map(_is_level, children))
    if not in_data_folder:
        _report_loose(findings, path, name)
    for child in children:
        if _looks_like_features(child.name):
            _take(tree, findings, child, parent, wanted, f"{name}/{child.name}")
        elif _is_level(child):
            _take_features(tree, findings, child, parent, wanted, f"{name}/{child.name}")
        elif not in_data_folder:
            findings.add("unknown_folder", name, what_folder(child), shown(child.name))


def _declared(name: str) -> Dataset | None:
    """The declaration of a dataset; None for one of the user's own, whose name is enough for a key."""
    try:
        return resolve_dataset(name)
    except UnknownDatasetError:
        return None


def _take(tree: Tree, findings: Findings, path: Path, parent: str, dataset: str | None, name: str) -> None:
    declared = _declared(parent if dataset is None else dataset)
    owner = declared.name if declared else dataset
    try:
        key = FeatureKey.from_legacy(owner or "x", name.rpartition("/")[2])
        close = [known for known in DIMS if key.encoder.startswith(known + "_") and key.encoder not in DIMS]
        if close:
            # frame_CLIP_VIT_LARGE_middle_8frms would otherwise become uniform frames of "CLIP_VIT_LARGE_middle".
            raise LegacyNameError(f"folder name {name!r}: {key.encoder!r} is {close[0]} with an unknown sampling")
    except InvalidKeyError as error:
        findings.add("unknown_folder", shown(name), str(error))
        return
    if owner is None:
        above = _owner(Path(os.path.abspath(path)).parent)
        raise whose_features(path, tree.root, above)
    tree.folders.append(FeatureFolder(path, key, declared, name))


def _one_folder_per_key(tree: Tree, findings: Findings) -> None:
    counts = Counter(folder.key for folder in tree.folders)
    for key, count in counts.items():
        if count > 1:
            names = [folder.name for folder in tree.folders if folder.key == key]
            what = f"{' and '.join(names)} are all {key}, perhaps of two writers"
            advice = "take one with `only=`, another with `only=` and an `origin=` of its own"
            findings.add("two_folders", names[0], what, advice=advice)
    tree.folders = [folder for folder in tree.folders if counts[folder.key] == 1]

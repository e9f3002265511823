"""A tree of feature folders as published scripts write it: `{root}/{dataset}/{feature folder}/{sample}.npy`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.affectgpt.model_folders import KINDS, ModelFolder, has_level, model_folder, suggested_key
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
    model: ModelFolder | None = None
    """what the name says, where it is not one of AffectGPT's"""
    given: bool = False
    """whether the key was given, and not read from the name"""

    @property
    def strict(self) -> bool:
        """Whether all files have one shape and dtype, as those of AffectGPT's scripts do."""
        return self.model is None and not self.given

    @property
    def layout(self) -> str:
        if self.given:
            return "given"
        return self.model.layout if self.model is not None else "affectgpt"

    @property
    def set_name(self) -> str:
        """The name that code looks for: of the folder, or of the file of a whole set without its ending."""
        name = self.name.rpartition("/")[2]
        return Path(name).stem if Path(name).suffix in KINDS else name

    @property
    def item_rank(self) -> int | None:
        """Axes of one frame; None where any number will do."""
        return None if self.given else 1

    def prefix(self, names: Sequence[str]) -> str:
        """What stands before the ids in all names: EmoBox puts the data set there."""
        if self.layout != "emobox" or not names:
            return ""
        first, joint, _ = names[0].partition("-")
        own = self.dataset.names if self.dataset is not None else (self.key.dataset,)
        is_own = joint and first.casefold() in {name.casefold() for name in own}
        return first + joint if is_own and all(name.startswith(first + joint) for name in names) else ""

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
    key: FeatureKey | None = None,
) -> Tree:
    """Recognise every folder of a tree, of one dataset's folder in it, or of one feature folder.

    Between a dataset's folder and its feature folders there may be a level called `features`: so they lie beside the
    media in the data folders of the published scripts, `mer2023-dataset-process/features/frame_...`.

    dataset  a name, an alias or a .toml file: whose features these are, where the path does not say it; in a tree of
             several datasets, the only one to take
    only     feature folders to take, as they are named in reports or by their last component; empty: all.  Nothing is
             said about others then
    key      what `root` is, one folder or the file of one set, whatever its name

    Folders that are not recognised, and two folders that mean one key, are findings and are not taken.
    Raises LegacyTreeError where nothing can be recognised at all.
    """
    root = Path(root)
    if key is not None:
        return _given(root, key)
    if not root.is_dir():
        if root.is_file() and root.suffix in KINDS:
            return _one_file(root, dataset, findings)
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
    if not tree.folders and not findings and is_store(root):
        raise LegacyTreeError(
            f"tree {root} is a store, not a tree of feature folders: it is read as it is, and there is nothing to "
            "import; give the folder that holds the .npy files"
        )
    if not tree.folders and not findings:
        raise LegacyTreeError(f"tree {root} holds no feature folder such as {EXAMPLE}")
    return tree


def is_store(path: Path) -> bool:
    """Whether a folder is a store of this program."""
    return (path / "data" / "zarr.json").exists() or (path / ".fstore").is_dir()


def _given(root: Path, key: FeatureKey) -> Tree:
    """One folder or file that is what the user says."""
    if not root.exists():
        raise LegacyTreeError(f"{root} does not exist: with a key, TREE is the one folder or file of its features")
    if root.is_dir() and is_store(root):
        raise LegacyTreeError(f"{root} is a store, not a folder of features: give the folder that holds the .npy files")
    if root.is_file() and root.suffix not in KINDS:
        raise LegacyTreeError(f"{root} is no file of a whole set, which end in {', '.join(KINDS)}")
    here = Path(os.path.abspath(root))
    tree = Tree(root, shown("/".join(root.resolve().parts[-2:]).lstrip("/")))
    tree.folders.append(FeatureFolder(root, key, _declared(key.dataset), here.name, given=True))
    return tree


def _one_file(root: Path, dataset: str | None, findings: Findings) -> Tree:
    """A file with the arrays of a whole set, whose name says of which model they are."""
    if dataset is not None and _declared(dataset) is None:
        check_part("dataset name", dataset)
    tree = Tree(root, shown("/".join(root.resolve().parts[-2:]).lstrip("/")))
    here = Path(os.path.abspath(root))
    _take(tree, findings, root, _owner(here.parent).name, dataset, here.name)
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
    for child in [*children, *_set_files(tree.root)]:
        try:
            # A dataset may be called face_to_face.
            alike = _looks_like_features(child.name) and not _has_folders(child)
            if child.is_file() or _is_feature_folder(child.name) or alike:
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
    if model_folder(name) is not None:
        return True
    try:
        FeatureKey.from_legacy("x", name)
    except ValueError:
        return False
    return True


def _looks_like_features(name: str) -> bool:
    """Whether a folder's name begins as those of feature folders do, so that something is wrong where it is none."""
    begins = ("frame_", "face_", "audio_", "multi_", "au_")
    return name.startswith(begins) or has_level(name) or _is_feature_folder(name)


def _set_files(path: Path) -> Iterator[Path]:
    """Files with the arrays of whole sets, by their names."""
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith(KINDS) and entry.is_file())
    yield from (path / name for name in names if _looks_like_features(Path(name).stem))


def _has_folders(path: Path) -> bool:
    if not path.is_dir():
        return False
    return any(_looks_like_features(child.name) for child in _folders(path)) or any(True for _ in _set_files(path))


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
    for child in [*children, *_set_files(path)]:
        if child.is_file() or _looks_like_features(child.name):
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
    base = FeatureFolder(path, _SOME, declared, name).set_name
    model = model_folder(base)
    try:
        key = _key_of(owner or "x", base, model)
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
    tree.folders.append(FeatureFolder(path, key, declared, name, model))


_SOME = FeatureKey("x", "frame", "x", "x", 1)


def _key_of(dataset: str, name: str, model: ModelFolder | None) -> FeatureKey:
    if model is not None:
        return FeatureKey(dataset, model.modality, model.encoder, model.sampling, model.n_frames)
    if has_level(name):
        raise LegacyNameError(
            f"{name!r} is of no model that the published scripts know: say what it is, with "
            f"`--as {dataset if dataset != 'x' else 'DATASET'}/{suggested_key(name)}` for this one folder, where "
            "MODALITY is face, frame, audio or text"
        )
    return FeatureKey.from_legacy(dataset, name)


def _one_folder_per_key(tree: Tree, findings: Findings) -> None:
    counts = Counter(folder.key for folder in tree.folders)
    for key, count in counts.items():
        if count > 1:
            names = [folder.name for folder in tree.folders if folder.key == key]
            what = f"{' and '.join(names)} are all {key}, perhaps of two writers"
            advice = "take one with `only=`, another with `only=` and an `origin=` of its own"
            findings.add("two_folders", names[0], what, advice=advice)
    tree.folders = [folder for folder in tree.folders if counts[folder.key] == 1]

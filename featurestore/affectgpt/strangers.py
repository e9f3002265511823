"""What lies in a tree of `.npy` folders and is no feature of it: what it is, and what to do with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from featurestore.datasets.declaration import nearest_name
from featurestore.errors import InvalidKeyError, LegacyTreeError
from featurestore.key import check_part

EXAMPLE = "mer2023/frame_CLIP_VIT_LARGE_emotion_peak_8frms"
LOOKED_AT = 1000  # names in a folder, to see what kind it is

_FROM_MER_FACTORY = "give MER-Factory's output to extract as its mer_factory, which reads the descriptions"
# Endings of files beside or instead of .npy.  Source: domain notes 2.1 and 10.
_KINDS = {
    "_clip_features.json": (
        "CLIP features of descriptions as JSON (encode_fine_grained_descriptions.py), which are not imported: "
        f"{_FROM_MER_FACTORY} and makes them under DATASET/au/CLIP_TEXT/au_summary/all"
    ),
    "_au_analysis.json": f"descriptions, not features: {_FROM_MER_FACTORY}",
    "_merr_data.json": f"descriptions, not features: {_FROM_MER_FACTORY}",
}


def what_file(name: str) -> str:
    """What a file in a feature folder is that is no `.npy`."""
    return next((said for ending, said in _KINDS.items() if name.endswith(ending)), "not a .npy file; not imported")


def what_folder(path: Path) -> str:
    """What a folder is whose name is neither a dataset nor a feature folder."""
    for name in islice(_names(path), LOOKED_AT):
        if (said := what_file(name)) in _KINDS.values():
            return said
    return f"no dataset's folder and no feature folder, such as {EXAMPLE}; not imported"


def what_dataset(root: Path, path: Path) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """What is wrong with a folder of a tree `root` that holds features and whose name is no known dataset.

    Returns what it is, what a program does next, and the (tree, dataset) that may be meant.
    """
    name = path.name
    if not _is_part(name):
        return (
            f"{name!r} cannot be a dataset in a key: say what it is called",
            _in_python(path),
            ((shown(str(path)), "NAME"),),
        )
    near = nearest_name(name)
    meant = ((shown(str(root)), name), *(((shown(str(path)), near),) if near else ()))
    return f"none of the known datasets{_misspelt(name)}", f"if it is your own: {_in_python(root, name)}", meant


def whose_features(path: Path, root: Path, above: Path) -> LegacyTreeError:
    """The error of a folder in a tree `root` that has no level for the dataset, where `above` may have any name."""
    return LegacyTreeError(
        f"folder {shown(str(path))}: {above.name!r} is none of the known datasets{_misspelt(above.name)}: say whose "
        "features these are, by one of their names or by one of your own",
        advice=_in_python(root),
        path=shown(str(root)),
    )


def _misspelt(name: str) -> str:
    near = nearest_name(name)
    return f" (did you mean {near}?)" if near else ""


def loose_files(path: Path) -> Iterator[tuple[str, str]]:
    """(name, what it is) of files that may hold features, in a folder where only folders should be."""
    for name in _names(path):
        if name.endswith(".npy") and not name.startswith("."):
            yield name, "not in a folder that says which features these are, such as " + EXAMPLE + "; not imported"
        elif (said := what_file(name)) in _KINDS.values():
            yield name, said


def shown(name: str) -> str:
    """A file name as text on one line: it may hold control characters, and surrogates where it is not UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _names(path: Path) -> Iterator[str]:
    with os.scandir(path) as entries:
        yield from (entry.name for entry in entries if not entry.is_dir())


def _in_python(tree: Path, dataset: str = "NAME") -> str:
    return f"`import_tree({shown(str(tree))!r}, store, dataset={dataset!r})`"


def _is_part(name: str) -> bool:
    try:
        check_part("dataset", name)
    except InvalidKeyError:
        return False
    return True

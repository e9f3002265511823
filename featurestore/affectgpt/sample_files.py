"""Sample files: where the array of each sample of a set lies, whatever kind of file that is."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from featurestore.affectgpt.containers import Members, read_members, read_sample
from featurestore.affectgpt.model_folders import KINDS
from featurestore.affectgpt.npy import NpyFile, read_npy_file
from featurestore.affectgpt.strangers import shown, what_file
from featurestore.affectgpt.tree import FeatureFolder, is_store
from featurestore.errors import InvalidIdError, LegacyTreeError, MissingPackageError
from featurestore.key import check_id
from featurestore.quality.findings import Findings

NESTED = ""  # the kind of samples that are folders of a file for each frame


@dataclass(slots=True)
class SampleFiles:
    """The samples of one folder, or of one file of a whole set."""

    path: Path
    kind: str
    """`.npy`, another ending, or `NESTED`"""
    ids: list[str] = field(default_factory=list)
    """sorted by code point"""
    prefix: str = ""
    """what all names begin with and no id does: EmoBox puts the data set before each"""
    members: Members | None = None
    """where the set is one file"""

    @property
    def plain(self) -> bool:
        """Whether each sample is one `.npy` of its name, which is read many times faster."""
        return self.kind == ".npy" and self.members is None

    def name(self, id: str) -> str:
        return f"{self.prefix}{id}{self.kind}"

    def read(self, id: str) -> NpyFile:
        """One array.  Raises LegacyTreeError, half a sentence without a name, MissingPackageError and OSError."""
        if self.members is not None:
            return self.members[self.prefix + id]()
        if self.kind == ".npy":
            return read_npy_file(self.path / self.name(id))
        return read_sample(self.path / self.name(id))


def list_samples(folder: FeatureFolder, findings: Findings) -> SampleFiles:
    """What lies in a folder, or in one file of a whole set.  Other files in it, and impossible ids, are findings."""
    found = SampleFiles(folder.path, ".npy")
    try:
        if folder.path.is_file():
            found.kind = folder.path.suffix
            found.members = read_members(folder.path)
            names = list(found.members)
        else:
            names = _names(folder, found, findings)
    except LegacyTreeError as error:
        findings.add("unreadable", folder.name, f"the file {error}")
        return found
    except OSError as error:
        what = "file cannot be read" if folder.path.is_file() else "folder cannot be listed"
        findings.add("unreadable", folder.name, f"the {what}: {error.strerror}")
        return found
    except MissingPackageError as error:
        findings.add("unreadable", folder.name, error.problem)
        return found
    found.prefix = folder.prefix(names)
    for name in names:
        try:
            found.ids.append(check_id(name.removeprefix(found.prefix)))
        except InvalidIdError:
            findings.add("bad_id", folder.name, "the file name is no sample id", shown(name + found.kind))
    found.ids.sort()
    return found


def _names(folder: FeatureFolder, found: SampleFiles, findings: Findings) -> list[str]:
    """The names without their ending, of the kind that the folder is of."""
    entries = [(name, is_file) for name, is_file in _listed(folder) if not name.startswith(".") or name[-4:] == ".npy"]
    kinds = Counter(os.path.splitext(name)[1] for name, is_file in entries if is_file)
    if not folder.strict and ".npy" not in kinds:
        others = [kind for kind, _ in kinds.most_common() if kind in KINDS]
        found.kind = others[0] if others else NESTED
    names = []
    store = is_store(folder.path)  # one may lie in what was imported into it
    for name, is_file in entries:
        if store and name == "data":
            continue
        nested = found.kind == NESTED and not is_file
        if nested or (is_file and found.kind != NESTED and name.endswith(found.kind)):
            names.append(name.removesuffix(found.kind) if found.kind else name)
        else:
            findings.add("stray", folder.name, what_file(name), shown(name))
    if not names and store:
        findings.add("unreadable", folder.name, "is a store, and no folder of features")
    return names


def _listed(folder: FeatureFolder) -> Iterator[tuple[str, bool]]:
    with os.scandir(folder.path) as entries:
        yield from ((entry.name, entry.is_file()) for entry in entries)

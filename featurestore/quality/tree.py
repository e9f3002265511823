"""The folders of a store: each level is a Zarr group, and nothing else lies among them."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.errors import FormatVersionError, UnknownRecipeError
from featurestore.key import FeatureKey
from featurestore.quality.findings import Finding, Findings
from featurestore.recipe import Recipe
from featurestore.storage.durable import fsync_dir
from featurestore.storage.feature_set import FeatureSet
from featurestore.storage.layout import DOCUMENT_BYTES, Layout, ensure_group, group_document, read_recipe
from featurestore.storage.reader import FORMAT
from featurestore.storage.writer import FRAMES_FILE, REPLACES_FILE, ROWS_FILE
from featurestore.untrusted_io.files import read_untrusted

_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
SEGMENT_FILES = {"zarr.json", ROWS_FILE, FRAMES_FILE, REPLACES_FILE}
_SHARD = re.compile(r"c(\.0)+")
KEY_LEVELS = 5


@dataclass
class Broken:
    """The document of one level, and what it should hold; None where that is not known."""

    level: Path
    attributes: dict[str, Any] | None
    finding: Finding


class Tree:
    """Walks `data` from the top; `places` are the recipes it meets."""

    def __init__(self, root: Path, findings: Findings) -> None:
        self.root = root
        self.findings = findings
        self.places: list[Layout] = []
        self.broken: list[Broken] = []

    def check(self, keys: Mapping[FeatureKey, str | None]) -> None:
        """All of it, or only what lies on the way to some keys ({key: prefix of the recipe or None})."""
        if (self.root / "data").is_dir():
            self._level(self.root / "data", (), {key.parts: prefix for key, prefix in keys.items()})

    def _level(self, folder: Path, parts: tuple[str, ...], wanted: Mapping[tuple[str, ...], str | None]) -> bool:
        """Check one level and those below; whether at least one segment lies there."""
        occupied = False
        for name in self._folders(folder):
            path, below = folder / name, (*parts, name)
            if len(below) <= KEY_LEVELS:
                if wanted and not any(key[: len(below)] == below for key in wanted):
                    continue
                occupied |= self._is_part(path, below) and self._level(path, below, wanted)
            elif not _FINGERPRINT.fullmatch(name):
                self._stray(path, "not the fingerprint of a recipe")
            elif name.startswith(wanted.get(parts) or ""):
                occupied |= self._recipe(Layout(self.root, FeatureKey.parse("/".join(parts)), name))
        # The first commit under a level makes its document before it makes a segment. Where there is no
        # segment a writer may have been killed on its way, and the next one goes on from there.
        if occupied:
            self._document(folder, {})
        return occupied

    def _is_part(self, path: Path, parts: tuple[str, ...]) -> bool:
        example = ("d", "frame", "e", "s", "1")
        try:
            FeatureKey.parse("/".join((*parts, *example[len(parts) :])))
        except ValueError as error:
            self._stray(path, str(error))
            return False
        return True

    def _recipe(self, layout: Layout) -> bool:
        self.places.append(layout)
        names = set(self._folders(layout.recipe_dir))
        for name in sorted(names - {"segments"}):
            self._stray(layout.recipe_dir / name, "not part of a recipe")
        segments = list(self._folders(layout.segments))
        for name in segments:
            entries = _entries(layout.segments / name)
            if not any(entry.name == "zarr.json" for entry in entries):
                continue  # not committed: what another program calls its files while it copies them is its own
            for entry in entries:
                known = entry.name in SEGMENT_FILES or _SHARD.fullmatch(entry.name)
                if not known or not entry.is_file(follow_symlinks=False):
                    self._stray(Path(entry.path), "not part of a segment")
        if segments:
            self._document(layout.segments, {})
            self._recipe_document(layout)
        return bool(segments)

    def _recipe_document(self, layout: Layout) -> None:
        path = layout.recipe_dir / "zarr.json"
        try:
            recipe = read_recipe(layout)
        except FormatVersionError as error:
            self.findings.add("format", path, error.problem, advice=error.advice)
        except UnknownRecipeError as error:
            advice = "what was stored under it is still read; repair with the settings of extract writes it anew"
            finding = self.findings.add("recipe", path, error.problem, advice=advice)
            self.broken.append(Broken(layout.recipe_dir, None, finding))
        else:
            self._document(layout.recipe_dir, recipe_attributes(layout.key, recipe))

    def _document(self, level: Path, attributes: dict[str, Any]) -> None:
        path = level / "zarr.json"
        try:
            what = (
                "is not what was written" if read_untrusted(path, DOCUMENT_BYTES) != group_document(attributes) else ""
            )
        except FileNotFoundError:
            what = "is missing" if level.is_dir() else ""  # the whole level was removed meanwhile
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
        if what:
            finding = self.findings.add("group", path, what, advice="Zarr tools need it, repair writes it anew")
            self.broken.append(Broken(level, attributes, finding))

    def _folders(self, folder: Path) -> Iterator[str]:
        for entry in _entries(folder):
            if entry.is_dir(follow_symlinks=False):
                yield entry.name
            elif entry.name != "zarr.json" or entry.is_symlink():
                self._stray(Path(entry.path), "a symbolic link" if entry.is_symlink() else "not a file of a store")

    def _stray(self, path: Path, what: str) -> None:
        advice = "nothing reads it: move it away, or remove it if nobody needs it"
        self.findings.add("stray", path, what, advice=advice)

    def repair(self, known: Mapping[Path, Recipe]) -> None:
        """Write documents anew, what is there now is kept aside.  known: recipes by their folder."""
        for broken in self.broken:
            attributes = broken.attributes
            if attributes is None:
                recipe = known.get(broken.level)
                if recipe is None:
                    continue
                key = "/".join(broken.level.relative_to(self.root / "data").parts[:KEY_LEVELS])
                attributes = recipe_attributes(FeatureKey.parse(key), recipe)
            aside = self._house(broken.level)
            document = broken.level / "zarr.json"
            if document.exists():
                kept = aside / f"{time.time_ns()}-{document.parent.name}.json"
                os.rename(document, kept)
            ensure_group(broken.level, attributes, aside)
            fsync_dir(broken.level)
            broken.finding.repaired = True
            broken.finding.outcome = f"written anew; what was there is in {aside}"

    def _house(self, level: Path) -> Path:
        """The quarantine of the first recipe at or below a level."""
        layout = next(p for p in self.places if level in (p.segments, p.recipe_dir, *p.recipe_dir.parents))
        folder = layout.housekeeping / "quarantine"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def set_aside(feature_set: FeatureSet, path: Path) -> Path:
    """Move one file into the quarantine of its recipe; where it is now."""
    folder = feature_set.layout.housekeeping / "quarantine"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{time.time_ns()}-{path.name}"
    shutil.move(path, target)
    return target


def recipe_attributes(key: FeatureKey, recipe: Recipe) -> dict[str, Any]:
    """What the document of a recipe's folder holds."""
    return {"featurestore": {"format": FORMAT, "key": str(key), "recipe": recipe.data}}


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            # NFS keeps a removed file that somebody has open under such a name until it is closed.
            return sorted((e for e in entries if not e.name.startswith(".nfs")), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []

"""The levels of a store above its segments: where a recipe is, and each level a durable Zarr group."""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from featurestore.durable import fsync_dir, write_file
from featurestore.errors import FormatVersionError, InvalidKeyError, ReadOnlyError, RecipeError, UnknownRecipeError
from featurestore.given import parse_json, read_given
from featurestore.key import FeatureKey
from featurestore.reader import FORMAT
from featurestore.recipe import Recipe

DOCUMENT_BYTES = 16 << 20  # of a recipe; real ones have a few kB
_durable: set[str] = set()  # recipe directories whose levels this process has fsynced


@dataclass(frozen=True)
class Place:
    """Where one recipe of one key lives under a store's root."""

    root: Path
    key: FeatureKey
    fingerprint: str

    @cached_property
    def recipe_dir(self) -> Path:
        return self.root.joinpath("data", *self.key.parts, self.fingerprint)

    @cached_property
    def segments(self) -> Path:
        return self.recipe_dir / "segments"

    @cached_property
    def house(self) -> Path:
        """Housekeeping, outside the Zarr tree but on the same file system, so that rename works."""
        return self.root.joinpath(".fstore", *self.key.parts, self.fingerprint)


def ensure_levels(place: Place, recipe: Recipe) -> None:
    """Create what is missing above `segments/`, top down, durable, each level a Zarr group."""
    known = str(place.recipe_dir) in _durable
    if known and os.path.isdir(place.segments) and os.path.isdir(f"{place.house}/tmp"):
        return
    if not os.path.isdir(place.root / "data"):
        os.makedirs(place.root, exist_ok=True)
        for folder in place.root.parents:
            _fsync_parent(folder)
    os.makedirs(place.house / "tmp", exist_ok=True)
    level = place.root
    for part in ("data", *place.key.parts, place.fingerprint, "segments"):
        _refuse_other_case(level, part)
        level = level / part
        if not level.is_dir():
            try:
                os.mkdir(level)
            except FileExistsError:
                pass  # another process was faster
        attributes: dict[str, Any] = {}
        if level == place.recipe_dir:
            attributes = {"featurestore": {"format": FORMAT, "key": str(place.key), "recipe": recipe.data}}
        ensure_group(level, attributes, place.house / "tmp")
        # Also where the level was there: another process may have made it and not yet fsynced it,
        # and what is acknowledged below it must not be lost with it.  The last one, `segments`, is
        # fsynced by every commit.
        fsync_dir(level.parent)
    _durable.add(str(place.recipe_dir))


def require_writable(place: Place) -> None:
    """Raises ReadOnlyError where nothing could be stored: before samples are made, not after.  Makes nothing."""
    for folder in (place.segments, place.house / "tmp"):
        while not os.path.lexists(folder):
            folder = folder.parent
        # Of the effective user, who is the one that writes.
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise ReadOnlyError(
                errno.EACCES,
                f"nothing can be stored under {place.key}, so nothing was computed: no permission to write; make the "
                "directory writable, take another store, or open it with read_only=True to compute without keeping",
                str(folder),
            )


def _fsync_parent(folder: Path) -> None:
    """Make a directory above the root durable, also where it was there: its maker may have been killed since."""
    try:
        fsync_dir(folder)
    except PermissionError:
        pass  # somebody else's, such as /home: it was there before


def read_recipe(place: Place) -> Recipe:
    """The recipe stored in the group above the segments; its fingerprint must be the directory's name."""
    path = place.recipe_dir / "zarr.json"
    try:
        stored = parse_json(read_given(path, DOCUMENT_BYTES))["attributes"]["featurestore"]
        if stored["format"] > FORMAT:
            raise FormatVersionError(
                f"{path} is format {stored['format']}, this version reads up to {FORMAT}: upgrade featurestore"
            )
        recipe, key = Recipe(stored["recipe"]), stored["key"]
    except (OSError, ValueError, KeyError, TypeError, RecipeError) as error:
        if isinstance(error, FormatVersionError):
            raise
        raise UnknownRecipeError(
            f"{path} cannot be read as a recipe ({error}); run `fstore verify {place.key}`"
        ) from error
    if recipe.fingerprint != place.fingerprint or key != str(place.key):
        raise UnknownRecipeError(f"{path} holds another recipe than its place says; run `fstore verify {place.key}`")
    return recipe


def ensure_group(level: Path, attributes: Mapping[str, Any], tmp: Path) -> None:
    """Write the Zarr group document of a level where it is missing, by a rename from `tmp`."""
    document = level / "zarr.json"
    if document.exists():
        return
    staged = tmp / f"{uuid.uuid4().hex}.json"
    try:
        write_file(staged, [group_document(attributes)])
        # Two writers rename the same bytes over each other: the content follows from the path.
        os.rename(staged, document)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


def group_document(attributes: Mapping[str, Any]) -> bytes:
    """The bytes of a level's zarr.json."""
    content = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _refuse_other_case(parent: Path, part: str) -> None:
    """Two names that differ only in case would be one directory on some file systems."""
    try:
        names = os.listdir(parent)
    except FileNotFoundError:
        return
    if part not in names:
        for name in names:
            if name.lower() == part.lower():
                raise InvalidKeyError(f"{part!r} differs only in case from {name!r}, which is already in {parent}")

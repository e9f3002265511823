"""Layout: where a feature set is on the disk, and the levels above its segments, each a durable Zarr group."""

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

from featurestore.errors import FormatVersionError, InvalidKeyError, ReadOnlyError, RecipeError, UnknownRecipeError
from featurestore.key import FeatureKey
from featurestore.recipe import Recipe
from featurestore.storage.durable import fsync_dir, write_file
from featurestore.untrusted_io.files import parse_json, read_untrusted
from featurestore.version import FORMAT, require_format

DOCUMENT_BYTES = 16 << 20  # of a recipe; real ones have a few kB
_durable: set[str] = set()  # recipe directories whose levels this process has fsynced


@dataclass(frozen=True)
class Layout:
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
    def housekeeping(self) -> Path:
        """Housekeeping, outside the Zarr tree but on the same file system, so that rename works."""
        return self.root.joinpath(".fstore", *self.key.parts, self.fingerprint)

    @cached_property
    def manifest(self) -> Path:
        """What the feature set consists of, for who cannot list it; and the records of all its segments beside it."""
        return self.housekeeping / "manifest.json"

    @cached_property
    def manifest_rows(self) -> Path:
        return self.housekeeping / "manifest.rows"

    @cached_property
    def probe(self) -> Path:
        """The place of what a probe finds in the features."""
        return self.housekeeping / "probe.json"


def ensure_levels(layout: Layout, recipe: Recipe) -> None:
    """Create what is missing above `segments/`, top down, durable, each level a Zarr group."""
    known = str(layout.recipe_dir) in _durable
    if known and os.path.isdir(layout.segments) and os.path.isdir(f"{layout.housekeeping}/tmp"):
        return
    if not os.path.isdir(layout.root / "data"):
        os.makedirs(layout.root, exist_ok=True)
        for folder in layout.root.parents:
            _fsync_parent(folder)
    os.makedirs(layout.housekeeping / "tmp", exist_ok=True)
    level = layout.root
    for part in ("data", *layout.key.parts, layout.fingerprint, "segments"):
        _refuse_other_case(level, part)
        level = level / part
        if not level.is_dir():
            try:
                os.mkdir(level)
            except FileExistsError:
                pass  # another process was faster
        attributes: dict[str, Any] = {}
        if level == layout.recipe_dir:
            attributes = {"featurestore": {"format": FORMAT, "key": str(layout.key), "recipe": recipe.data}}
        ensure_group(level, attributes, layout.housekeeping / "tmp")
        # Also where the level was there: another process may have made it and not yet fsynced it,
        # and what is acknowledged below it must not be lost with it.  The last one, `segments`, is
        # fsynced by every commit.
        fsync_dir(level.parent)
    _durable.add(str(layout.recipe_dir))


def require_writable(layout: Layout) -> None:
    """Raises ReadOnlyError where nothing could be stored: before samples are made, not after.  Makes nothing."""
    for folder in (layout.segments, layout.housekeeping / "tmp"):
        while not os.path.lexists(folder):
            folder = folder.parent
        # Of the effective user, who is the one that writes.
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise ReadOnlyError(
                errno.EACCES,
                f"nothing can be stored under {layout.key}, so nothing was computed: no permission to write; make the "
                "directory writable, or take another store",
                str(folder),
                advice="or open it with read_only=True to compute without keeping",
                root=layout.root,
            )


def _fsync_parent(folder: Path) -> None:
    """Make a directory above the root durable, also where it was there: its maker may have been killed since."""
    try:
        fsync_dir(folder)
    except PermissionError:
        pass  # somebody else's, such as /home: it was there before


def read_recipe(layout: Layout) -> Recipe:
    """The recipe stored in the group above the segments; its fingerprint must be the directory's name."""
    path = layout.recipe_dir / "zarr.json"
    try:
        stored = parse_json(read_untrusted(path, DOCUMENT_BYTES))["attributes"]["featurestore"]
        require_format(stored["format"], path)
        recipe, key = Recipe(stored["recipe"]), stored["key"]
    except (OSError, ValueError, KeyError, TypeError, RecipeError) as error:
        if isinstance(error, FormatVersionError):
            raise
        raise _unreadable(layout, path, f"cannot be read as a recipe ({error})") from error
    if recipe.fingerprint != layout.fingerprint or key != str(layout.key):
        raise _unreadable(layout, path, "holds another recipe than its folder is named after")
    return recipe


def _unreadable(layout: Layout, path: Path, what: str) -> UnknownRecipeError:
    return UnknownRecipeError(
        f"{path} {what}",
        advice=f"`featurestore.verify(store, {str(layout.key)!r})` says what else is wrong",
        key=layout.key,
        root=layout.root,
        path=path,
    )


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

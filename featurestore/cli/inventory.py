"""What a store holds, counted from its documents with the standard library alone.

`fstore ls` must answer at once, and numpy takes longer to import than all of it.  The figures are
what the documents say; whether they are true is for `fstore verify`.
"""

from __future__ import annotations

import os
import re
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featurestore.errors import FormatVersionError
from featurestore.key import FeatureKey
from featurestore.untrusted_io.files import parse_json, read_untrusted
from featurestore.version import require_format

DOCUMENT_BYTES = 64 << 20  # a million names of replaced segments
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
RECORD_SIZE = 48  # of the fixed part of `rows`: 16 bytes of the id's digest come first, then 4-byte numbers:
N_FRAMES = 32 // 4  # among them how many frames a sample has


@dataclass
class Holding:
    """One recipe of one key."""

    key: FeatureKey
    fingerprint: str
    recipe: dict[str, Any] | None
    """None where its document cannot be read"""
    samples: int = 0
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    """distinct (n_frames, *item), several under an `all` key"""
    dtype: str | None = None
    bytes: int = 0
    """of the segments that count"""
    segments: int = 0
    replaced: int = 0
    replaced_bytes: int = 0
    """what `fstore gc` frees"""
    damaged: int = 0
    failures: int = 0
    made_with: list[dict[str, Any]] = field(default_factory=list)
    """of each segment, in name order"""

    @property
    def origin(self) -> str:
        """Where the values come from, as the recipe says."""
        if self.recipe is None:
            return "unreadable"
        return str(self.recipe.get("origin", "computed"))

    def as_json(self) -> dict[str, Any]:
        names = ("samples", "dtype", "bytes", "segments", "replaced", "replaced_bytes", "damaged", "failures")
        return {
            "key": str(self.key),
            "recipe": self.fingerprint,
            "origin": self.origin,
            "shapes": [list(shape) for shape in self.shapes],
            **{name: getattr(self, name) for name in names},
        }


def take_inventory(root: Path) -> list[Holding]:
    """Every recipe of every key, sorted."""
    found = []
    for path, parts in walk(root / "data", 5):
        try:
            key = FeatureKey.parse("/".join(parts))
        except ValueError:
            continue  # not made by a store; `fstore verify` reports it
        found += key_holdings(root, key, path)
    return sorted(found, key=lambda holding: (str(holding.key), holding.fingerprint))


def key_holdings(root: Path, key: FeatureKey, path: Path | None = None) -> list[Holding]:
    """The recipes of one key, sorted."""
    folder = root.joinpath("data", *key.parts) if path is None else path
    return [_holding(root, key, folder / name) for name in _folders(folder) if _FINGERPRINT.fullmatch(name)]


def fingerprints(root: Path, key: FeatureKey) -> list[str]:
    """The recipes of one key, sorted; also those of which only records of failures or files of writers are there."""
    folders = (root.joinpath("data", *key.parts), root.joinpath(".fstore", *key.parts))
    return sorted({name for folder in folders for name in _folders(folder) if _FINGERPRINT.fullmatch(name)})


@dataclass
class _Segment:
    """What a segment's document says."""

    n: int
    shape: tuple[int, ...]
    """of the array: of a ragged segment (frames of all samples, *item)"""
    dtype: str
    bytes: int
    replaces: list[str]
    made_with: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> _Segment:
        """ValueError, KeyError, TypeError or OSError where it is not that of a segment, or sizes do not fit.

        FormatVersionError where a later version wrote it, and what it says may mean something else.
        """
        raw = read_untrusted(folder / "zarr.json", DOCUMENT_BYTES)
        document = parse_json(raw)
        own = _own(document, folder)
        shape, n = tuple(map(int, document["shape"])), int(own["rows"]["samples"])
        sizes = {"rows": int(own["rows"]["bytes"])}
        if n:
            sizes |= {"c" + ".0" * len(shape): int(own["shard"]["bytes"])}
            sizes |= {"frames": int(own["frames"]["bytes"])} if own["frames"] else {}
        for name, size in sizes.items():
            if os.stat(folder / name).st_size != size:
                raise ValueError(f"size of {name} differs from the one committed")
        if not 0 <= n * RECORD_SIZE <= sizes["rows"]:
            raise ValueError(f"{n} rows do not fit into `rows`")
        made_with = {str(name): str(value) for name, value in dict(own["made_with"]).items()}
        size = len(raw) + sum(sizes.values())
        if own["replaces"] and os.path.exists(folder / "replaces"):  # a copy of these names
            size += os.stat(folder / "replaces").st_size
        return cls(n, shape, str(document["data_type"]), size, list(map(str, own["replaces"])), made_with)


def _holding(root: Path, key: FeatureKey, folder: Path) -> Holding:
    holding = Holding(key, folder.name, _recipe(folder))
    segments: dict[str, _Segment] = {}
    for name in _folders(folder / "segments"):
        try:
            segments[name] = _Segment.read(folder / "segments" / name)
        except FileNotFoundError:
            # Else it was never committed, or removed after the listing.
            holding.damaged += os.path.isfile(folder / "segments" / name / "zarr.json")
        except FormatVersionError:
            raise
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            holding.damaged += 1
    replaced = {other for segment in segments.values() for other in segment.replaces}
    counted = []
    for name, segment in segments.items():
        if name in replaced:
            holding.replaced += 1
            holding.replaced_bytes += segment.bytes
            continue
        holding.segments += 1
        holding.bytes += segment.bytes
        holding.made_with.append(segment.made_with)
        holding.dtype = holding.dtype or segment.dtype
        if segment.n:
            counted.append((folder / "segments" / name / "rows", segment))
    holding.samples = _distinct([(path, segment.n) for path, segment in counted])
    for path, segment in counted:
        item = segment.shape[1:] if key.n_frames == "all" else segment.shape[2:]
        lengths = _lengths(path, segment.n) if key.n_frames == "all" else segment.shape[1:2]
        holding.shapes += [shape for n in lengths if (shape := (n, *item)) not in holding.shapes]
    failed = _names(root.joinpath(".fstore", *key.parts, folder.name, "failed"))
    holding.failures = sum(name.endswith(".json") for name in failed)
    return holding


def _distinct(counted: list[tuple[Path, int]]) -> int:
    """Number of samples.  Within a segment ids are unique; two writers may have stored one id each."""
    if len(counted) < 2:
        return sum(n for _, n in counted)
    digests: set[bytes] = set()
    for path, n in counted:
        try:
            with open(path, "rb") as file:
                table = file.read(n * RECORD_SIZE)
        except FileNotFoundError:
            continue
        digests.update([table[at : at + 16] for at in range(0, len(table), RECORD_SIZE)])
    return len(digests)


def _lengths(path: Path, n: int) -> list[int]:
    """How many frames the samples of a ragged segment have, each number once."""
    try:
        with open(path, "rb") as file:
            numbers = array("I", file.read(n * RECORD_SIZE))
    except (FileNotFoundError, ValueError):  # removed, or cut off: `fstore verify` says so
        return []
    if sys.byteorder == "big":
        numbers.byteswap()
    return list(dict.fromkeys(numbers[N_FRAMES :: RECORD_SIZE // 4]))


def _recipe(folder: Path) -> dict[str, Any] | None:
    try:
        recipe = _own(parse_json(read_untrusted(folder / "zarr.json", DOCUMENT_BYTES)), folder)["recipe"]
        return recipe if isinstance(recipe, dict) else None
    except FormatVersionError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _own(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    own: dict[str, Any] = document["attributes"]["featurestore"]
    require_format(own["format"], folder, own.get("needs", ()))
    return own


def _names(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _folders(path: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def walk(path: Path, depth: int, parts: tuple[str, ...] = ()) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """(folder, names on the way to it) of every folder `depth` levels below."""
    if depth == 0:
        yield path, parts
        return
    for name in _folders(path):
        yield from walk(path / name, depth - 1, (*parts, name))

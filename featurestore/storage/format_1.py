"""Format 1: reads the stores that the first versions wrote, which `fstore import` copies; nothing else does.

A segment was an array (n, n_frames, dim) of rows with a crc32c behind each, or of zstd frames; `rows` had records of 32
bytes.  Seals, `replaces` and the lexically first segment were what they are now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from featurestore.errors import RecipeError
from featurestore.key import FeatureKey
from featurestore.recipe import Recipe
from featurestore.storage.catalog import Catalog
from featurestore.storage.reader import HEADER_BYTES, id_digest, names_replaced, seal_of
from featurestore.untrusted_io.files import open_untrusted, parse_json, read_untrusted

RECORD = np.dtype([("digest", "u1", 16), ("line", "<u8"), ("crc", "<u4"), ("line_crc", "<u4")])
DTYPES = {"float16": "<f2", "float32": "<f4"}
ROW_BYTES = 128 << 20  # a zstd frame of a few kB may say that it holds any number
_WRONG = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError)  # RuntimeError: of zstd
crc32c = google_crc32c.value


class Stored(NamedTuple):
    """One sample as it is stored."""

    line: dict[str, Any]
    """id, frame_indices, timestamps_s, provenance"""
    values: NDArray[Any]
    """(n_frames, dim)"""
    made_with: dict[str, Any]
    """of its segment"""


def old_sets(root: Path) -> list[OldSet]:
    """What a store holds, by key and fingerprint."""
    return [OldSet(folder, key) for key, folder in _folders(root)]


def is_old_store(root: Path) -> bool:
    """Whether this is a store, and anything in it is of format 1."""
    return any(_format_of(folder) == 1 for _, folder in _folders(root))


def _folders(root: Path) -> Iterator[tuple[FeatureKey, Path]]:
    catalog = Catalog(root, None, {})
    for key in catalog.keys():
        for fingerprint in catalog.fingerprints(key):
            yield key, root.joinpath("data", *key.parts, fingerprint)


def _format_of(folder: Path) -> object:
    """Which format a recipe's folder is of, by its document, or where that is damaged by those of its segments."""
    for path in (folder / "zarr.json", *folder.glob("segments/*/zarr.json")):
        try:
            return parse_json(read_untrusted(path, HEADER_BYTES))["attributes"]["featurestore"]["format"]
        except _WRONG:
            continue
    return None


class OldSet:
    """What is stored under one recipe of one key, as of now."""

    def __init__(self, folder: Path, key: FeatureKey) -> None:
        self.folder = folder
        self.key = key
        self.fingerprint = folder.name
        opened: dict[str, _Segment] = {}
        damaged: dict[str, str] = {}
        replaced: set[str] = set()
        for path in sorted(path for path in folder.glob("segments/*") if path.is_dir()):
            try:
                segment = opened[path.name] = _Segment(path, str(key), folder.name)
                replaced.update(segment.replaces)
            except _WRONG as error:
                damaged[path.name] = _why(error)
                replaced |= names_replaced(str(path))
        kinds = {name: (segment.dtype, segment.shape[1]) for name, segment in opened.items()}
        first = next(iter(kinds.values()), None)
        damaged |= {name: "its dtype or dim is not that of the others" for name in kinds if kinds[name] != first}
        self.problems = {f"segment {name}": why for name, why in damaged.items() if name not in replaced}
        """{segment, row or sample: what is wrong with it}, which is left out"""
        self._segments = [opened[name] for name in opened if name not in replaced | {*damaged}]

    def __len__(self) -> int:
        """Rows, some of which may be second copies."""
        return sum(len(segment.records) for segment in self._segments)

    def recipe(self) -> Recipe:
        """Raises ValueError where it cannot be read, or is not the one that its folder is named by."""
        try:
            document = parse_json(read_untrusted(self.folder / "zarr.json", HEADER_BYTES))
            own = document["attributes"]["featurestore"]
            recipe, key = Recipe(own["recipe"]), own["key"]
        except (*_WRONG, RecipeError) as error:
            raise ValueError(f"its recipe cannot be read: {_why(error)}") from None
        if (recipe.fingerprint, key) != (self.fingerprint, str(self.key)):
            raise ValueError("its recipe is that of another place")
        return recipe

    def samples(self) -> Iterator[Stored]:
        """Each sample once.  What is damaged is left out, and in `problems` from then on."""
        seen: set[bytes] = set()
        for segment in self._segments:
            for row, record in enumerate(segment.records):
                digest = record["digest"].tobytes()
                what = f"row {row} of segment {segment.path.name}"
                try:
                    line = segment.line(row)
                    what = f"sample {line['id']!r}"
                    if digest not in seen:
                        values = segment.values(row)
                        seen.add(digest)
                        yield Stored(line, values, segment.made_with)
                except _WRONG as error:
                    self.problems[what] = _why(error)


class _Segment:
    """One array with its records; ValueError says what is wrong with it."""

    def __init__(self, path: Path, key: str, fingerprint: str) -> None:
        raw = read_untrusted(path / "zarr.json", HEADER_BYTES)
        found, expected = seal_of(raw)
        if found != expected:
            raise ValueError("zarr.json fails its seal")
        array = parse_json(raw)
        header = array["attributes"]["featurestore"]
        place = [header[name] for name in ("format", "name", "key", "fingerprint")]
        if place != [1, path.name, key, fingerprint]:
            raise ValueError(f"it belongs elsewhere: its zarr.json says {place}")
        n, *self.shape = shape = array["shape"]
        numbers = (*shape, header["rows"]["bytes"], header["shard"]["bytes"])
        if len(shape) != 3 or any(type(number) is not int or not 0 <= number < 1 << 62 for number in numbers):
            raise ValueError("its sizes are no numbers")
        self.path, self.made_with, self.replaces = path, dict(header["made_with"]), list(header["replaces"])
        self.codec, self.dtype = header["codec"], np.dtype(DTYPES[array["data_type"]])
        self.size = shape[1] * shape[2] * self.dtype.itemsize
        if not 0 < self.size <= ROW_BYTES or key.rsplit("/", 1)[1] not in ("all", str(shape[1])):
            raise ValueError(f"an array of shape {tuple(shape)} holds no rows of this key")
        self.bytes = {"rows": numbers[3], "c.0.0.0": numbers[4]}
        table = self._read("rows", 0, n * RECORD.itemsize)
        if hashlib.blake2b(table, digest_size=32).hexdigest() != header["rows"]["table_blake2b"]:
            raise ValueError("the table in `rows` fails its digest")
        self.records = np.frombuffer(table, RECORD)
        self.lines = [*self.records["line"].tolist(), numbers[3]]
        if self.lines != sorted(self.lines):
            raise ValueError("the lines in `rows` are not one behind the other")
        self.index = np.array([[row * (self.size + 4), self.size] for row in range(n)]).reshape(n, 2)
        if self.codec is not None and n:
            raw = self._read("c.0.0.0", numbers[4] - n * 16 - 4, n * 16 + 4)
            if crc32c(raw[:-4]).to_bytes(4, "little") != raw[-4:]:
                raise ValueError("the index of `c.0.0.0` fails its checksum")
            self.index = np.frombuffer(raw[:-4], "<u8").reshape(n, 2)

    def line(self, row: int) -> dict[str, Any]:
        raw = self._read("rows", self.lines[row], self.lines[row + 1] - self.lines[row])
        if crc32c(raw) != self.records["line_crc"][row]:
            raise ValueError("its line in `rows` fails its checksum")
        line: dict[str, Any] = parse_json(raw)
        if id_digest(line["id"]) != self.records["digest"][row].tobytes():
            raise ValueError("its line in `rows` is that of another sample")
        return line

    def values(self, row: int) -> NDArray[Any]:
        start, size = self.index[row].tolist()
        raw = self._read("c.0.0.0", start, size)
        if crc32c(raw) != self.records["crc"][row]:
            raise ValueError("its values fail their checksum")
        if self.codec is not None:
            from numcodecs import Zstd  # half a second, which only compressed stores need

            if _declared_size(raw) != self.size:
                raise ValueError("its values are of another size when they are decompressed")
            raw = bytes(Zstd().decode(raw))
        return np.frombuffer(raw, self.dtype).reshape(self.shape)

    def _read(self, name: str, start: int, size: int) -> bytes:
        with open_untrusted(self.path / name) as (file, status):
            if status.st_size != self.bytes[name] or not 0 <= start <= start + size <= status.st_size:
                raise ValueError(f"`{name}` is not of the size that was committed")
            file.seek(start)
            return file.read(size)


def _why(error: Exception) -> str:
    known = isinstance(error, OSError | ValueError | RecipeError)
    return str(error) if known else f"it is not what a store wrote: {error!r}"


def _declared_size(frame: bytes) -> int:
    """Bytes that a zstd frame says it holds (RFC 8878, 3.1.1.1), -1 where it does not say."""
    one_segment = frame[4] >> 5 & 1
    width = (one_segment, 2, 4, 8)[frame[4] >> 6]
    at = 5 + (1 - one_segment) + (0, 1, 2, 4)[frame[4] & 3]
    size = int.from_bytes(frame[at : at + width], "little") + (256 if width == 2 else 0)
    return size if width else -1

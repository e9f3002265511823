"""Pack: a feature set as a standard Zarr v3 group, compressed and with checksums, for archives and other tools."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.arrays import BESIDE, COORDINATES, NO_FRAME, Arrays, Variable
from featurestore.errors import CorruptSegmentError, ExistsError, FeatureStoreError, StoreError
from featurestore.key import FeatureKey
from featurestore.storage.durable import fsync, fsync_dir
from featurestore.store import FeatureStore

# docs/packs.md says what the attributes mean, docs/schemas/pack.json which there are.
CONVENTION = {
    "uuid": "957bf881-14fb-42e7-8ae0-5160f0cdfd08",
    "name": "featurestore_pack",
    "description": "Features of samples with the ids, frames and files that they were made of.",
}
VERSION = 1
CHUNK_BYTES = 1 << 20  # what is decompressed to read one sample, as near as it goes
SHARD_BYTES = 64 << 20  # of one file, before compression
TEXT_BYTES = 64  # of a text, about
BLOCK_BYTES, BLOCK_SAMPLES = 16 << 20, 4096  # read at a time, but for a single sample that is larger
LEVEL = 3  # of zstd: its own default


@dataclass(frozen=True)
class Packed:
    """What `pack` wrote."""

    key: FeatureKey
    fingerprint: str
    path: Path
    samples: int
    bytes: int
    """on disk"""

    def as_json(self) -> dict[str, Any]:
        own = {"key": str(self.key), "recipe": self.fingerprint, "path": str(self.path)}
        return {**own, "samples": self.samples, "bytes": self.bytes}


def pack(
    store: FeatureStore,
    key: FeatureKey | str,
    path: str | os.PathLike[str],
    *,
    fingerprint: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Packed:
    """Write all samples under one recipe as one Zarr v3 group, which appears whole or not at all.

    Args:
        store: Where they are; nothing is computed.
        key: The feature key, or its text.
        path: A folder that is not there yet; one that ends in `.zip` becomes one file.
        fingerprint: A unique prefix of it, where the key has several recipes.
        progress: Called with the number of samples just packed.

    Returns:
        What was packed, and how large it became.

    Raises:
        ExistsError: Something is at the path.
        MissingFeatureError: Nothing is stored.
        AmbiguousRecipeError: The key has several recipes, and nothing says which.
        CorruptSegmentError: Something of it is damaged: a pack would lack it.
        StoreError: The disk.

    Example:
        >>> pack(store, "mer2023/frame/CLIP_VIT_LARGE/uniform/8", "uniform.zarr").samples   # doctest: +SKIP
        3373
    """
    path = Path(path)
    if os.path.lexists(path):
        raise ExistsError(f"{path} exists, and a pack is written as a whole: name a path where nothing is")
    arrays = Arrays(store, key, fingerprint)
    _require_sound(arrays)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    zipped = partial.with_suffix(".zip")
    try:
        partial.mkdir()
        _write(arrays, partial, progress)
        done = partial
        if path.suffix == ".zip":
            done = _as_zip(partial, zipped)
        size = _flush(done)
        os.rename(done, path)
    except OSError as error:
        if isinstance(error, FeatureStoreError):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        to_do = "free some space, or name a path on another disk" if full else "look at the path"
        said = f"nothing was packed, and nothing of it is left: {error.strerror or error}; {to_do}"
        raise StoreError(error.errno or errno.EIO, said, str(path)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        zipped.unlink(missing_ok=True)
    fsync_dir(path.parent)
    feature_set = arrays.feature_set
    return Packed(feature_set.key, feature_set.fingerprint, path, len(arrays.ids), size)


def _require_sound(arrays: Arrays) -> None:
    problems = dict(arrays.feature_set.reader.problems)
    if problems:
        name, why = next(iter(problems.items()))
        key = arrays.feature_set.key
        raise CorruptSegmentError(
            f"{len(problems)} segments of {key} are damaged, e.g. {name}: {why}, and a pack would lack their samples",
            key=key,
            root=arrays.feature_set.layout.root,
        )


def _write(arrays: Arrays, folder: Path, progress: Callable[[int], None] | None) -> None:
    import zarr  # 0.4 s, which reading a store does not need

    ids = arrays.ids
    encoded = np.array([id.encode() for id in ids])  # padded with zeros, which no id has
    texts = Variable(("sample", "id_byte"), (len(ids), encoded.itemsize), np.dtype(np.uint8))
    group = zarr.create_group(folder, zarr_format=3)
    columns = {name: _Column(group, name, each) for name, each in (arrays.variables | {"id_utf8": texts}).items()}
    some = dict.fromkeys(BESIDE, False)  # whether a sample has any
    for rows in _blocks(arrays):
        values = arrays.values(rows)
        columns["values"].add(np.concatenate(values) if isinstance(values, list) else values)
        columns["id"].add(np.array([ids[row] for row in rows.tolist()], object))
        columns["id_utf8"].add(encoded[rows].view(np.uint8).reshape(len(rows), -1))
        if arrays.ragged:
            columns["offset"].add(arrays.offset[rows])
            columns["n_frames"].add(arrays.n_frames[rows])
        for name, block in arrays.beside(rows).items():
            columns[name].add(block)
            some[name] = some[name] or not _is_missing(block).all()
        if progress is not None:
            progress(len(rows))
    for name, column in columns.items():
        column.finish()
        if not some.get(name, True):
            del group[name]
    there = [name for name in (*COORDINATES, "id_utf8") if name in columns and some.get(name, True)]
    group.update_attributes(_attributes(arrays, there))
    with warnings.catch_warnings():
        # Not in the specification yet; without it xarray looks for each array, and says so.
        warnings.filterwarnings("ignore", "Consolidated metadata")
        zarr.consolidate_metadata(group.store)


def _attributes(arrays: Arrays, coordinates: list[str]) -> dict[str, Any]:
    feature_set = arrays.feature_set
    made_with = [
        {name: value for name, value in segment.header["made_with"].items() if name != "time"}
        for segment in feature_set.reader.segments
    ]
    own = {
        "version": VERSION,
        "key": str(feature_set.key),
        "fingerprint": feature_set.fingerprint,
        "recipe": feature_set.recipe.data,
        "layout": "ragged" if arrays.ragged else "stacked",
        "samples": len(arrays.ids),
        "no_frame": NO_FRAME,
        "made_with": list({json.dumps(each, sort_keys=True): each for each in made_with}.values()),
    }
    return {"zarr_conventions": [CONVENTION], CONVENTION["name"]: own, "coordinates": " ".join(coordinates)}


def _is_missing(block: NDArray[Any]) -> Any:
    if block.dtype.kind == "f":
        return np.isnan(block)
    return block == ("" if block.dtype.kind == "O" else NO_FRAME)


def _blocks(arrays: Arrays) -> Iterator[NDArray[np.int64]]:
    """Positions of samples that are read together."""
    values = arrays.variables["values"]
    item = values.shape[1 if arrays.ragged else 2 :]
    ends = np.cumsum(arrays.n_frames) * int(np.prod(item, dtype=object)) * values.dtype.itemsize
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + BLOCK_BYTES, "right"))
        stop = min(max(stop, start + 1), start + BLOCK_SAMPLES)
        yield np.arange(start, stop)
        start = stop


class _Column:
    """One array of a pack, written from its beginning on, each file once."""

    def __init__(self, group: Any, name: str, variable: Variable) -> None:
        from zarr.codecs import ZstdCodec

        is_text = variable.dtype is str
        itemsize = TEXT_BYTES if is_text else variable.dtype.itemsize
        chunk = _within(variable.shape, CHUNK_BYTES // itemsize)
        # Chunks have the size of what is read, files that of what is moved.
        counts = [-(-size // step) for size, step in zip(variable.shape, chunk, strict=True)]
        many = _within(counts, max(1, SHARD_BYTES // (int(np.prod(chunk, dtype=object)) * itemsize)))
        shard = tuple(step * count for step, count in zip(chunk, many, strict=True))
        self.array = group.create_array(
            name,
            shape=variable.shape,
            dtype="str" if is_text else variable.dtype,
            chunks=chunk,
            shards=None if is_text or shard == chunk else shard,
            # NaN, which no value is: what went missing later does not read as values.
            fill_value="" if is_text else (np.nan if variable.dtype.kind == "f" else 0),
            compressors=ZstdCodec(level=LEVEL, checksum=True),
            dimension_names=variable.dims,
        )
        self.step = chunk if is_text else shard
        self.start, self.pending, self.count = 0, list[NDArray[Any]](), 0

    def add(self, block: NDArray[Any]) -> None:
        """What comes behind what was added before."""
        self.pending.append(block)
        self.count += len(block)
        if self.count >= self.step[0]:
            self._write(self.count // self.step[0] * self.step[0])

    def finish(self) -> None:
        """Write what is left."""
        self._write(self.count)

    def _write(self, count: int) -> None:
        if not count:
            return
        rows = np.concatenate(self.pending)
        axes = zip((count, *rows.shape[1:]), self.step, strict=True)
        # One file after the other: an error leaves no other write behind, which would go on.
        for begin in itertools.product(*(range(0, size, step) for size, step in axes)):
            spans = [slice(at, at + step) for at, step in zip(begin, self.step, strict=True)]
            part = rows[:count][tuple(spans)]
            first = slice(self.start + begin[0], self.start + begin[0] + len(part))
            self.array[(first, *spans[1:])] = part
        self.start += count
        self.pending, self.count = [rows[count:]], self.count - count


def _within(shape: Any, count: int) -> tuple[int, ...]:
    """The largest part of an array, filled from its last axis on, of so many elements."""
    part: list[int] = []
    for size in reversed(shape):
        part.append(max(1, min(size, count)))
        count //= part[-1]
    return tuple(reversed(part))


def _as_zip(folder: Path, path: Path) -> Path:
    """The files of a folder as one, not compressed again; of equal folders equal to the byte."""
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as target:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix())
            entry.file_size = file.stat().st_size
            entry.external_attr = 0o644 << 16
            with open(file, "rb") as source, target.open(entry, "w") as into:
                shutil.copyfileobj(source, into, CHUNK_BYTES)
    return path


def _flush(path: Path) -> int:
    """Make a file, or all of a folder, durable; its bytes."""
    if path.is_dir():
        size = sum(_flush(each) for each in path.iterdir())
        fsync_dir(path)
        return size
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fsync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)

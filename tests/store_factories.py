"""What the tests of the keeping rooms share: one key, values that follow from an id, and a compute that makes them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore import Failure, FeatureKey, Features, FeatureStore
from featurestore.storage.reader import SEAL_MARK, SEAL_SIZE, Form, seal_of
from featurestore.storage.rows import default_axes
from featurestore.storage.writer import Rows, row_line

KEY = FeatureKey("mer2023", "frame", "CLIP_VIT_LARGE", "uniform", 4)
ALL = FeatureKey("mer2023", "au", "CLIP_TEXT", "au_summary", "all")
RECIPE = {"weights": "abc", "origin": "test"}
DIM = 6


def values_of(id: str, n_frames: int = 4, dim: int = DIM, dtype: Any = np.float32) -> NDArray[Any]:
    """(n_frames, dim) that no other id has."""
    return np.random.default_rng(zlib.crc32(id.encode())).standard_normal((n_frames, dim)).astype(dtype)


def batch(ids: Iterable[str], dtype: Any = np.float32, dim: int = DIM) -> NDArray[Any]:
    """(N, 4, dim)."""
    return np.stack([values_of(id, dim=dim, dtype=dtype) for id in ids])


def rows_of(values: Mapping[str, NDArray[Any]], ragged: bool = False, like: NDArray[Any] | None = None) -> Rows:
    """{id: (n_frames, *item)} as they are committed; `like` is such an array where there are no ids."""
    first = next(iter(values.values())) if like is None else like
    return Rows(
        form=Form(first.shape[1:], first.dtype, default_axes(first.ndim - 1)),
        n_frames=None if ragged else len(first),
        counts=[len(one) for one in values.values()],
        lines=[row_line(id, None, None, None) for id in values],
        ids=list(values),
        blocks=list(values.values()),
    )


def fill(root: Path, *units: Sequence[str], key: FeatureKey = KEY, dtype: Any = np.float32) -> FeatureStore:
    """A store with one segment per unit of ids."""
    store = FeatureStore(root)
    for ids in units:
        store.put_many(key, ids, batch(ids, dtype), recipe=RECIPE)
    return store


def recipe_dir(root: Path, key: FeatureKey = KEY) -> Path:
    """The directory of the only recipe of a key."""
    (found,) = [path for path in root.joinpath("data", *key.parts).iterdir() if path.is_dir()]
    return found


def segment_dirs(root: Path, key: FeatureKey = KEY) -> list[Path]:
    """The segments of the only recipe of a key, in name order."""
    return sorted(path for path in (recipe_dir(root, key) / "segments").iterdir() if path.is_dir())


def header_of(segment: Path) -> dict[str, Any]:
    """What a segment says of itself."""
    header: dict[str, Any] = json.loads((segment / "zarr.json").read_bytes())["attributes"]["featurestore"]
    return header


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Turn one bit of a file."""
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1 << bit
    path.write_bytes(raw)


def reseal(path: Path, old: bytes, new: bytes) -> None:
    """Change a sealed zarr.json and seal it again, as a later version would have written it."""
    raw = path.read_bytes()
    assert raw.count(old) == 1
    raw = raw.replace(old, new)
    at = raw.rfind(SEAL_MARK) + len(SEAL_MARK)
    path.write_bytes(raw[:at] + seal_of(raw)[1] + raw[at + SEAL_SIZE :])


class Making:
    """A compute that makes `values_of`, and writes down what it was asked for."""

    def __init__(self, recipe: dict[str, Any] | None = None, **answers: Any) -> None:
        self.settings = {"made_by": "Making"} if recipe is None else recipe
        self.answers = answers
        self.asked: list[list[str]] = []
        self.recipes_asked = 0

    def recipe(self, key: FeatureKey) -> dict[str, Any]:
        self.recipes_asked += 1
        return self.settings

    def __call__(self, key: FeatureKey, ids: Sequence[str]) -> Iterator[tuple[str, Features | Failure]]:
        self.asked.append(list(ids))
        for id in ids:
            answer = self.answers.get(id)
            if isinstance(answer, BaseException):
                raise answer
            yield id, answer if answer is not None else Features(values_of(id))

    @property
    def made(self) -> list[str]:
        return [id for ids in self.asked for id in ids]

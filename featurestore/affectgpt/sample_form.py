"""Form of a set: what its arrays have in common, and how the file of one sample may differ from it without loss."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.affectgpt.npy import NpyFile, npy_header

STORED = ("<f4", "<f2", "<f8")
Frames = int | str  # how many a sample has, or "all"


class MisfitError(Exception):
    """A file that cannot be a sample of its set: kind of the finding, and half a sentence."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind, self.what = kind, what


@dataclass(frozen=True, slots=True)
class Form:
    """What most files of a set are."""

    dtype: np.dtype[Any]
    item: tuple[int, ...]
    """of one frame"""
    n_frames: Frames
    rank: int
    """axes of the array in a file"""

    def file_shape(self, frames: int) -> tuple[int, ...]:
        """The array in the file of a sample of so many frames, as most files of the set have it."""
        whole = (frames, *self.item)
        if self.rank == len(self.item) and frames == 1:
            return self.item
        return (1, *whole) if self.rank == len(whole) + 1 else whole

    def frames(self, array: NDArray[Any]) -> NDArray[Any] | None:
        """(n_frames, *item), the same numbers in the same order; None where they are none."""
        if not array.size:
            return None
        shapes = [array.shape, (1, *array.shape)]
        while shapes[0][:1] == (1,):
            shapes.insert(0, shapes[0][1:])
        for shape in shapes:
            if shape[1:] == self.item and len(shape) and self.n_frames in ("all", shape[0]):
                return array.reshape(shape)
        return None

    def fit(self, file: NpyFile) -> tuple[NDArray[Any], dict[str, Any]]:
        """(values, how the file differs from what the form says).

        Values are (n_frames, *item) in the dtype of the set, or in their own where that would round them.
        Raises MisfitError for another width or number of frames, and for what are no floating numbers.
        """
        array = file.array
        values = self.frames(array)
        if values is None:
            raise MisfitError("shape", f"shape {array.shape}, not {self.wanted}")
        native = array.dtype.newbyteorder("=")
        if native.str not in STORED:
            raise MisfitError("dtype", f"{array.dtype}, and a store keeps float16, float32 and float64 bit for bit")
        values = values.astype(native, copy=False)
        facts: dict[str, Any] = {}
        kept = exactly(values, self.dtype)
        if array.dtype != (values if kept is None else kept).dtype:
            facts["file_dtype"] = array.dtype.str
        if file.parts:
            return values if kept is None else kept, {
                **facts,
                "files": list(file.parts),
                "file_shape": list(file.part_shape),
            }
        if array.shape != self.file_shape(len(values)):
            facts["file_shape"] = list(array.shape)
        if not file.is_plain:
            facts["file_header"] = base64.b64encode(file.header).decode()
            if file.fortran_order:
                facts["file_order"] = "F"
        return values if kept is None else kept, facts

    @property
    def wanted(self) -> str:
        """The shape that files should have, for people."""
        rows = "n" if self.n_frames == "all" else str(self.n_frames)
        shape = ", ".join([rows, *map(str, self.item)])
        return f"({shape})"


def exactly(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Values in another dtype, where that holds every one of them to the bit; else None."""
    if values.dtype == dtype:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(dtype)
        back = cast.astype(values.dtype)
    return cast if back.tobytes() == values.tobytes() else None


def form_of(files: Iterable[NpyFile], n_frames: Frames, item_rank: int | None) -> Form | None:
    """The form that most of some files have; None where none has frames of `n_frames`.

    item_rank  axes of one frame: 1 where they are vectors; None to tell by the files
    """
    seen: Counter[Form] = Counter()
    for file in files:
        array = file.array
        found = _item(array.shape, n_frames, item_rank)
        if found is not None and array.size and array.dtype.kind in "fiu":
            rank = len(found) if array.ndim == len(found) else array.ndim
            seen[Form(array.dtype.newbyteorder("="), found, n_frames, rank)] += 1
    return seen.most_common(1)[0][0] if seen else None


def _item(shape: tuple[int, ...], n_frames: Frames, rank: int | None) -> tuple[int, ...] | None:
    if not shape:
        return None
    if rank is not None:
        return shape[-rank:] if rank <= len(shape) <= rank + 2 else None
    bare = shape[1:] if shape[0] == 1 and len(shape) > 2 else shape  # a batch of one, as models return it
    ways = [bare] if n_frames == "all" else [shape, bare]
    for whole in [*ways, (1, *shape)] if len(shape) == 1 else ways:
        if len(whole) > 1 and n_frames in ("all", whole[0]):
            return whole[1:]
    return None


def file_of(values: NDArray[Any], facts: Mapping[str, Any], rank: int) -> list[tuple[str | None, bytes]]:
    """The bytes of a sample's file as it was imported, from its values and what its line says: [(name, bytes)].

    The name is None but for samples that were folders of a file for each frame.
    """
    form = Form(values.dtype, values.shape[1:], "all", rank)
    dtype = np.dtype(facts.get("file_dtype", values.dtype.str))
    array = values.astype(dtype)
    shape = tuple(facts.get("file_shape", form.file_shape(len(values))))
    if "files" in facts:
        header = npy_header(dtype, shape)
        return [(name, header + frame.tobytes()) for name, frame in zip(facts["files"], array, strict=True)]
    header = base64.b64decode(facts["file_header"]) if "file_header" in facts else npy_header(dtype, shape)
    return [(None, header + array.reshape(shape).tobytes("F" if facts.get("file_order") == "F" else "C"))]

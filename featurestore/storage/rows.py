"""Row: the features of one sample as they are stored, checked once, with what is kept beside their values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import ValuesError
from featurestore.features import Features
from featurestore.key import FeatureKey, check_id
from featurestore.provenance import misfit, written
from featurestore.storage import maintenance
from featurestore.storage.reader import SAMPLE_BYTES, Form
from featurestore.storage.writer import Rows, row_line

DTYPES = frozenset(map(np.dtype, ("float16", "float32", "uint8")))
IMPORTED = DTYPES | {np.dtype("float64")}  # from somebody's files: to make features in it would be a mistake
_AXIS = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)
_FLOAT32 = np.dtype(np.float32)
_BLOCK_ROWS, _BLOCK_BYTES = 256, 32 << 20
FROM_BFLOAT16 = "bfloat16"  # kept as float32, which holds every one of its numbers


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """Features that may be stored, and their line: encoded once, which is also the check that it can be."""

    features: Features
    line: bytes

    @classmethod
    def of(cls, id: str, features: Features) -> Row:
        """Features whose form and numbers were checked.  ValuesError where their provenance is no JSON."""
        provenance = features.provenance and _as_kept(features.provenance)
        made_in = FROM_BFLOAT16 if _is_bfloat16(features.values.dtype) else None
        if made_in is not None:
            features = replace(features, values=features.values.astype(np.float32))
        try:
            return cls(features, row_line(id, features.frame_indices, features.timestamps_s, provenance, made_in))
        except (TypeError, ValueError) as error:
            raise ValuesError(f"sample {id!r}: provenance is not a JSON object: {error}") from None

    @property
    def values(self) -> NDArray[Any]:
        """(n_frames, *item) as they are stored"""
        return self.features.values

    @property
    def form(self) -> Form:
        """What a frame of it is."""
        return form_of(self.features)

    def as_read(self) -> dict[str, Any]:
        """The line as it will be read back: tuples are lists then."""
        line: dict[str, Any] = json.loads(self.line)
        return line


def checked(key: FeatureKey, id: str, features: Features, dtypes: Collection[np.dtype[Any]] = DTYPES) -> Row:
    """Features as they are stored under a key; ValuesError says which sample, what, and what was expected."""
    check_form(key, id, features, dtypes)
    check_finite(id, features)
    return Row.of(id, features)


def form_of(features: Features) -> Form:
    """What a frame of these features is, as it is stored."""
    values = features.values
    dtype = values.dtype if values.dtype in IMPORTED else _FLOAT32
    return Form(values.shape[1:], dtype, features.axes or default_axes(values.ndim - 1))


@cache
def default_axes(count: int) -> tuple[str, ...]:
    """Names for the axes of a frame that nobody named: the last one is the features."""
    return (*(f"axis_{number}" for number in range(1, count)), "feature")


def check_form(key: FeatureKey, id: str, features: Features, dtypes: Collection[np.dtype[Any]] = DTYPES) -> None:
    """The types and shapes of what is to be stored."""
    check_id(id)
    values = features.values
    if not isinstance(values, np.ndarray) or not (values.dtype in dtypes or _is_bfloat16(values.dtype)):
        found = getattr(values, "dtype", type(values).__name__)
        names = ", ".join(sorted(map(str, dtypes)))
        raise ValuesError(f"sample {id!r}: values are {found}, not an array of {names} or {FROM_BFLOAT16}")
    expected = "(n_frames, ...)" if key.n_frames == "all" else f"({key.n_frames}, ...)"
    if values.ndim < 2 or 0 in values.shape or key.n_frames not in ("all", len(values)):
        raise ValuesError(f"sample {id!r}: values are {values.shape}, not {expected} as {key} says")
    size = values.size * (values.dtype if values.dtype in IMPORTED else _FLOAT32).itemsize
    if size > SAMPLE_BYTES:
        raise ValuesError(
            f"sample {id!r}: values are {size} bytes, and a sample may have {SAMPLE_BYTES}; store fewer frames of it"
        )
    _check_axes(id, features)
    for name, dtype in (("frame_indices", np.int64), ("timestamps_s", np.float64)):
        column = getattr(features, name)
        if column is None:
            continue
        if not isinstance(column, np.ndarray) or column.dtype != dtype or column.shape != values.shape[:1]:
            found = (column.dtype, column.shape) if isinstance(column, np.ndarray) else type(column).__name__
            raise ValuesError(f"sample {id!r}: {name} are {found}, not {np.dtype(dtype)} {values.shape[:1]}")
    provenance = features.provenance
    if provenance is None:
        return
    if not isinstance(provenance, Mapping):
        raise ValuesError(f"sample {id!r}: provenance is not a JSON object but a {type(provenance).__name__}")
    problem = misfit(provenance.get("sources", ()))
    if problem is not None:
        raise ValuesError(f"sample {id!r}: provenance: {problem}")


def _check_axes(id: str, features: Features) -> None:
    axes = features.axes
    if axes is None:
        return
    named = isinstance(axes, tuple) and all(isinstance(name, str) and _AXIS.fullmatch(name) for name in axes)
    if (
        not named
        or len(set(axes)) < len(axes)
        or len(axes) != features.values.ndim - 1
        or {"sample", "frame"} & {*axes}
    ):
        raise ValuesError(
            f"sample {id!r}: axes are {axes!r}, not a tuple of {features.values.ndim - 1} different names, of letters, "
            "digits and _, for the axes behind the frames"
        )


def check_finite(id: str, features: Features) -> None:
    """That values and timestamps are numbers."""
    values, timestamps_s = features.values, features.timestamps_s
    if not all_finite(values):
        count = int((~np.isfinite(values.astype(np.float64))).sum())
        raise ValuesError(f"sample {id!r}: {count} of {values.size} values are NaN or infinite")
    if timestamps_s is not None and not np.isfinite(timestamps_s).all():
        raise ValuesError(f"sample {id!r}: timestamps_s hold NaN or infinite numbers; pass None where they are unknown")


def all_finite(values: NDArray[Any]) -> bool:
    """Whether none is NaN or infinite."""
    if values.dtype.kind == "u":
        return True
    return bool(np.isfinite(values.astype(np.float32) if _is_bfloat16(values.dtype) else values).all())


def _is_bfloat16(dtype: np.dtype[Any]) -> bool:
    return dtype not in IMPORTED and dtype.name == FROM_BFLOAT16  # numpy makes the name anew each time, in 5 us


def as_rows(key: FeatureKey, rows: Mapping[str, Row]) -> list[Rows]:
    """Batches to commit, none above the size of a segment but for a single sample that is."""
    parts: list[list[str]] = []
    size = maintenance.MAX_BYTES
    for id, row in rows.items():
        size += row.values.nbytes
        if size > maintenance.MAX_BYTES:
            parts.append([])
            size = row.values.nbytes
        parts[-1].append(id)
    return [
        Rows(
            form=rows[ids[0]].form,
            n_frames=None if key.n_frames == "all" else key.n_frames,
            counts=[len(rows[id].values) for id in ids],
            lines=[rows[id].line for id in ids],
            ids=ids,
            blocks=_Frames([rows[id].values for id in ids]),
        )
        for ids in parts
    ]


def _as_kept(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance as it is written beside a row: paths of its sources as JSON can hold them."""
    kept = dict(provenance)
    if "sources" in kept:
        kept["sources"] = [written(source) for source in kept["sources"]]
    return kept


class _Frames:
    """The frames of several arrays, some arrays at a time, put behind each other when they are written."""

    def __init__(self, values: Sequence[NDArray[Any]]) -> None:
        self.values = values

    def __iter__(self) -> Iterator[NDArray[Any]]:
        start = size = 0
        for stop, values in enumerate(self.values, 1):
            size += values.nbytes
            if stop - start == _BLOCK_ROWS or size >= _BLOCK_BYTES or stop == len(self.values):
                part = self.values[start:stop]
                yield np.concatenate(part) if (whole := _undivided(part)) is None else whole
                start, size = stop, 0


def _undivided(parts: Sequence[NDArray[Any]]) -> NDArray[Any] | None:
    """The frames of these as one view, where they lie behind each other in memory; None where they do not."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if first.base is None or not all(part.base is first.base and part.flags.c_contiguous for part in parts):
        return None
    at, count = first.__array_interface__["data"][0], 0
    for part in parts:
        if part.__array_interface__["data"][0] != at:
            return None
        at += part.nbytes
        count += len(part)
    # All bytes of the view are bytes of the parts, whose memory its base keeps.  Strides are counted anew: that of an
    # axis of one element may be anything, zero included, in an array that is contiguous.
    strides = [first.itemsize * math.prod(first.shape[axis + 1 :]) for axis in range(first.ndim)]
    return np.lib.stride_tricks.as_strided(first, (count, *first.shape[1:]), strides)

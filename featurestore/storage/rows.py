"""Row: the features of one sample as they are stored, checked once, with what is kept beside their values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import ValuesError
from featurestore.features import Features
from featurestore.key import FeatureKey, check_id
from featurestore.provenance import misfit, written
from featurestore.storage import maintenance
from featurestore.storage.reader import ROW_BYTES
from featurestore.storage.writer import Rows, row_line

DTYPES = (np.dtype(np.float16), np.dtype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """Features that may be stored, and their line: encoded once, which is also the check that it can be."""

    features: Features
    line: bytes

    @classmethod
    def of(cls, id: str, features: Features) -> Row:
        """Features whose form and numbers were checked.  ValuesError where their provenance is no JSON."""
        provenance = features.provenance and _as_kept(features.provenance)
        try:
            return cls(features, row_line(id, features.frame_indices, features.timestamps_s, provenance))
        except (TypeError, ValueError) as error:
            raise ValuesError(f"sample {id!r}: provenance is not a JSON object: {error}") from None

    @property
    def values(self) -> NDArray[Any]:
        """(n_frames, dim) float16 | float32"""
        return self.features.values

    def as_read(self) -> dict[str, Any]:
        """The line as it will be read back: tuples are lists then."""
        line: dict[str, Any] = json.loads(self.line)
        return line


def checked(key: FeatureKey, id: str, features: Features) -> Row:
    """Features as they are stored under a key; ValuesError says which sample, what, and what was expected."""
    check_form(key, id, features)
    check_finite(id, features)
    return Row.of(id, features)


def check_form(key: FeatureKey, id: str, features: Features) -> None:
    """The types and shapes of what is to be stored."""
    check_id(id)
    values = features.values
    if not isinstance(values, np.ndarray) or values.dtype not in DTYPES:
        found = getattr(values, "dtype", type(values).__name__)
        raise ValuesError(f"sample {id!r}: values are {found}, not an array of {' or '.join(map(str, DTYPES))}")
    expected = "(n_frames, dim)" if key.n_frames == "all" else f"({key.n_frames}, dim)"
    if values.ndim != 2 or 0 in values.shape or key.n_frames not in ("all", len(values)):
        raise ValuesError(f"sample {id!r}: values are {values.shape}, not {expected} as {key} says")
    if values.nbytes > ROW_BYTES:
        raise ValuesError(
            f"sample {id!r}: values are {values.nbytes} bytes, and a sample may have {ROW_BYTES}; "
            "store fewer frames of it"
        )
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


def check_finite(id: str, features: Features) -> None:
    """That values and timestamps are numbers."""
    values, timestamps_s = features.values, features.timestamps_s
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise ValuesError(f"sample {id!r}: {count} of {values.size} values are NaN or infinite")
    if timestamps_s is not None and not np.isfinite(timestamps_s).all():
        raise ValuesError(f"sample {id!r}: timestamps_s hold NaN or infinite numbers; pass None where they are unknown")


def as_rows(rows: Mapping[str, Row]) -> list[Rows]:
    """Batches to commit: of one row count each, none above the size of a segment."""
    groups: dict[tuple[int, ...], list[list[str]]] = {}
    for id, row in rows.items():
        parts = groups.setdefault(row.values.shape, [[]])
        if len(parts[-1]) * (row.values.nbytes + 4) > maintenance.MAX_BYTES:
            parts.append([])
        parts[-1].append(id)
    return [
        Rows(
            shape=(shape[0], shape[1]),
            dtype=rows[ids[0]].values.dtype,
            lines=[rows[id].line for id in ids],
            ids=ids,
            blocks=_Stacked([rows[id].values for id in ids]),
        )
        for shape, parts in groups.items()
        for ids in parts
    ]


def _as_kept(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance as it is written beside a row: paths of its sources as JSON can hold them."""
    kept = dict(provenance)
    if "sources" in kept:
        kept["sources"] = [written(source) for source in kept["sources"]]
    return kept


class _Stacked:
    """Arrays of one shape and dtype as blocks of some rows, stacked when they are written."""

    def __init__(self, values: Sequence[NDArray[Any]], rows: int = 256) -> None:
        self.values = values
        self.rows = rows

    def __iter__(self) -> Any:
        for start in range(0, len(self.values), self.rows):
            part = self.values[start : start + self.rows]
            yield np.stack(part) if (whole := _undivided(part)) is None else whole


def _undivided(parts: Sequence[NDArray[Any]]) -> NDArray[Any] | None:
    """The array of which these are the rows, one behind the other, as a view; None where they are not."""
    first = parts[0]
    if first.base is None or not all(part.base is first.base and part.flags.c_contiguous for part in parts):
        return None
    begin = first.__array_interface__["data"][0]
    if any(part.__array_interface__["data"][0] != begin + i * first.nbytes for i, part in enumerate(parts)):
        return None
    # All bytes of the view are bytes of the rows, whose memory its base keeps.
    return np.lib.stride_tricks.as_strided(first, (len(parts), *first.shape), (first.nbytes, *first.strides))

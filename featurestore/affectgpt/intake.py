"""The rows of one feature folder, in batches: what can be imported, with everything else as findings."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featurestore.affectgpt.npy import MAX_BYTES, read_npy, read_rows
from featurestore.affectgpt.strangers import shown, what_file
from featurestore.affectgpt.tree import FeatureFolder
from featurestore.errors import InvalidIdError, LegacyTreeError
from featurestore.key import check_id
from featurestore.quality.findings import Findings

BATCH_BYTES = 32 << 20
PEEKED = 64
STORED = ("<f4", "<f2", "<f8")


@dataclass(slots=True)
class Intake:
    """One folder, listed, with the dtype and width that most of its files have."""

    folder: FeatureFolder
    ids: list[str]
    """of the `.npy` files, sorted by code point"""
    dtype: np.dtype[np.generic] | None
    """None where no file could be read"""
    dim: int = 0
    taken: list[str] = field(default_factory=list)
    """ids that were yielded so far"""


Batch = tuple[list[str], NDArray[np.generic] | list[NDArray[np.generic]]]


def open_folder(folder: FeatureFolder, findings: Findings) -> Intake:
    """List a folder and look into a few files.  Other files in it, and impossible ids, are findings."""
    ids = []
    try:
        for name, is_file in _listed(folder):
            if name.startswith(".") and not name.endswith(".npy"):
                continue  # .DS_Store, .nfs...
            if not name.endswith(".npy") or not is_file:
                findings.add("stray", folder.name, what_file(name), shown(name))
                continue
            try:
                ids.append(check_id(name[:-4]))
            except InvalidIdError:
                findings.add("bad_id", folder.name, "the file name is no sample id", shown(name))
    except OSError as error:
        findings.add("unreadable", folder.name, f"the folder cannot be listed: {error.strerror}")
    ids.sort()
    dtype, dim = _majority(folder, ids)
    if dtype is not None and dtype.str not in STORED:
        message = (
            f"{dtype} cannot be kept bit for bit: a store keeps float16, float32, float64; {_converted('float32')}"
        )
        findings.add("dtype", folder.name, message, *ids)
        ids = []
    return Intake(folder, ids, dtype, dim)


def _listed(folder: FeatureFolder) -> Iterator[tuple[str, bool]]:
    with os.scandir(folder.path) as entries:
        yield from ((entry.name, entry.is_file()) for entry in entries)


def _majority(folder: FeatureFolder, ids: Sequence[str]) -> tuple[np.dtype[np.generic] | None, int]:
    seen: Counter[tuple[str, int]] = Counter()
    for id in ids[:: max(1, len(ids) // PEEKED)]:
        try:
            array = read_npy(folder.path / f"{id}.npy")
        except (LegacyTreeError, OSError):
            continue
        if array.ndim == folder.file_ndim:
            seen[array.dtype.str, array.shape[-1]] += 1
    if not seen:
        return (np.dtype("<f4"), 0) if ids else (None, 0)
    (dtype, dim), _ = seen.most_common(1)[0]
    return np.dtype(dtype), dim


def read_batches(intake: Intake, findings: Findings) -> Iterator[Batch]:
    """(ids, values) of what can be imported, in order of ids.

    values are (N, n_frames, dim), or N arrays (n_i, dim) under an `all` key, in the dtype of the folder, finite.
    Files that are damaged, or differ from their folder in shape or dtype, or hold NaN or infinities, are findings.
    """
    if not intake.ids or intake.dtype is None:
        return
    n_frames = intake.folder.key.n_frames
    rows = n_frames if isinstance(n_frames, int) else 8  # au: a guess, for the size of batches only
    size = max(1, BATCH_BYTES // max(1, rows * intake.dim * intake.dtype.itemsize))
    for start in range(0, len(intake.ids), size):
        ids = intake.ids[start : start + size]
        ids, values = _fixed(intake, ids, findings) if isinstance(n_frames, int) else _ragged(intake, ids, findings)
        if ids:
            intake.taken += ids
            yield ids, values


def _fixed(intake: Intake, ids: list[str], findings: Findings) -> Batch:
    folder, dtype, dim = intake.folder, intake.dtype, intake.dim
    assert dtype is not None
    assert isinstance(folder.key.n_frames, int)
    if folder.key.n_frames * dim * dtype.itemsize > MAX_BYTES:
        # Only the name of the folder says so: no file that can be read has that many rows.
        findings.add("shape", folder.name, f"not {folder.key.n_frames} rows as the folder's name says", *ids)
        return [], []
    values: NDArray[np.generic] = np.empty((len(ids), folder.key.n_frames, dim), dtype)
    shape = values.shape[1:] if folder.file_ndim == 2 else values.shape[2:]
    keep = np.ones(len(ids), bool)
    left = read_rows(folder.path, [f"{id}.npy" for id in ids], values, shape)
    for i in left:
        array = _checked(intake, ids[i], shape, findings)
        keep[i] = array is not None
        values[i] = 0 if array is None else array
    finite = np.isfinite(values).all(axis=(1, 2))
    for bad in np.flatnonzero(keep & ~finite):
        findings.add("nonfinite", folder.name, _nonfinite(values[bad]), ids[bad])
    keep &= finite
    if keep.all():
        return ids, values
    return [id for id, kept in zip(ids, keep, strict=True) if kept], values[keep]


def _ragged(intake: Intake, ids: list[str], findings: Findings) -> Batch:
    kept, arrays = [], []
    for id in ids:
        array = _checked(intake, id, None, findings)
        if array is None:
            continue
        if not np.isfinite(array).all():
            findings.add("nonfinite", intake.folder.name, _nonfinite(array), id)
            continue
        kept.append(id)
        arrays.append(array)
    return kept, arrays


def _checked(intake: Intake, id: str, shape: tuple[int, ...] | None, findings: Findings) -> NDArray[np.generic] | None:
    """One file the slow way; None, with a finding, where it cannot be imported.  shape None: any (n, dim)."""
    folder = intake.folder
    try:
        array = read_npy(folder.path / f"{id}.npy")
    except LegacyTreeError as error:
        findings.add("unreadable", folder.name, _without_numbers(str(error)), id)
        return None
    except OSError as error:
        findings.add("unreadable", folder.name, f"cannot be read: {error.strerror}", id)
        return None
    wanted = shape if shape is not None else (array.shape[0] if array.ndim == 2 and array.size else 1, intake.dim)
    if array.shape != wanted:
        message = f"shape {array.shape}, not {_wanted(intake)}{_squeezed(intake, array.shape)}"
        if shape is not None and array.ndim == 2 and array.shape[1:] == shape[1:] and folder.key.modality == "frame":
            # The old emotion_peak wrote 8 rows whatever was asked for, under the name that was asked for.
            message += f"; if the values are right, the folder should be named ..._{array.shape[0]}frms"
        findings.add("shape", folder.name, message, id)
        return None
    if array.dtype != intake.dtype:
        findings.add(
            "dtype",
            folder.name,
            f"{_spelt(array.dtype)} in a folder of {intake.dtype}; {_converted(str(intake.dtype))}",
            id,
        )
        return None
    return array


def _wanted(intake: Intake) -> str:
    """The shape that a folder's files should have: what its name and its other files do not say is a letter."""
    n_frames = intake.folder.key.n_frames
    rows, dim = (n_frames, intake.dim or "n") if isinstance(n_frames, int) else ("n", intake.dim or "m")
    return f"({rows}, {dim})" if intake.folder.file_ndim == 2 else f"({dim},)"


def _squeezed(intake: Intake, shape: tuple[int, ...]) -> str:
    """The line that mends a file with an axis of length one too many, as one of the old scripts wrote them."""
    ndim, n_frames = intake.folder.file_ndim, intake.folder.key.n_frames
    for axis in range(len(shape)) if len(shape) == ndim + 1 else ():
        rest = shape[:axis] + shape[axis + 1 :]
        right = (ndim == 1 or n_frames in ("all", rest[0])) and intake.dim in (0, rest[-1])
        if shape[axis] == 1 and right:
            taken = "[" + ":, " * axis + "0]"
            return f"; take the axis of length one off: numpy.save(file, numpy.load(file){taken})"
    return ""


def _nonfinite(values: NDArray[np.generic]) -> str:
    """Which rows of one sample hold such values, without its name, so that many alike are one finding."""
    rows = np.flatnonzero(~np.isfinite(values).all(axis=-1)).tolist()
    if len(rows) == len(values):
        return "NaN or infinite values in every row"
    first = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
    return f"NaN or infinite values in row{'s' if len(rows) > 1 else ''} {first} of 0 to {len(values) - 1}"


def _spelt(dtype: np.dtype[np.generic]) -> str:
    """float64 for <f8; bytes in the other order have no such name."""
    return str(dtype) if dtype.isnative else f"{dtype.newbyteorder('=')} in big-endian order"


def _converted(wanted: str) -> str:
    return f'convert each with numpy.save(file, numpy.load(file).astype("{wanted}")), which may round'


def _without_numbers(message: str) -> str:
    """`is half-written: 128 bytes, not ...` -> `is half-written`, so that many such files are one finding."""
    return message.partition(":")[0]

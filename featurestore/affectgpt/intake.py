"""The rows of one feature folder, in batches: what can be imported, with everything else as findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.affectgpt.npy import MAX_BYTES, NpyFile, read_rows
from featurestore.affectgpt.sample_files import SampleFiles, list_samples
from featurestore.affectgpt.sample_form import STORED, Form, MisfitError, form_of
from featurestore.affectgpt.tree import FeatureFolder
from featurestore.errors import LegacyTreeError, MissingPackageError
from featurestore.quality.findings import Findings

BATCH_BYTES = 32 << 20
PEEKED = 64
FLOAT32 = np.dtype("<f4")


@dataclass(slots=True)
class Intake:
    """One folder, listed, with the form that most of its files have."""

    folder: FeatureFolder
    files: SampleFiles
    form: Form | None
    """None where there is nothing that could be imported"""
    ids: list[str]
    """of its samples, sorted by code point"""
    taken: list[str] = field(default_factory=list)
    """ids that were yielded so far"""

    @property
    def dtype(self) -> np.dtype[np.generic] | None:
        """None where no file could be read"""
        return self.form.dtype if self.form is not None else None

    @property
    def dim(self) -> int:
        """Width of a row; 0 where it is not known."""
        return self.form.item[-1] if self.form is not None else 0


@dataclass(slots=True)
class Batch:
    """Samples of one dtype: (N, n_frames, *item), or under an `all` key N arrays (n_i, *item), finite."""

    ids: list[str]
    values: NDArray[np.generic] | list[NDArray[np.generic]]
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """how the files of some differ from what their recipe says"""

    def rows(self) -> dict[str, NDArray[np.generic]]:
        return dict(zip(self.ids, self.values, strict=True))

    def without(self, ids: Sequence[str]) -> Batch:
        gone = set(ids)
        kept = [id for id in self.ids if id not in gone]
        return Batch(kept, [row for id, row in self.rows().items() if id not in gone], self.facts)

    @property
    def provenance(self) -> list[dict[str, Any] | None] | None:
        return [self.facts.get(id) for id in self.ids] if self.facts else None

    @property
    def dtype(self) -> np.dtype[np.generic]:
        dtype: np.dtype[np.generic] = self.values[0].dtype
        return dtype


def open_folder(folder: FeatureFolder, findings: Findings) -> Intake:
    """List a folder and look into a few files.  Other files in it, and impossible ids, are findings.

    Raises LegacyTreeError where the key was given and no file has its shape.
    """
    files = list_samples(folder, findings)
    ids = files.ids
    peeked = list(_peek(files))
    if folder.strict:
        peeked = [file for file in peeked if file.array.ndim == folder.file_ndim]
    form = form_of(peeked, folder.key.n_frames, folder.item_rank)
    if form is None and folder.given and peeked:
        raise _misfit(folder, peeked)
    if form is not None and form.dtype.str not in STORED:
        message = (
            f"{form.dtype} cannot be kept bit for bit: a store keeps float16, float32, float64; {_converted('float32')}"
        )
        findings.add("dtype", folder.name, message, *ids)
        form, ids = None, []
    if form is None and ids:
        form = Form(FLOAT32, (0,), folder.key.n_frames, folder.file_ndim)
    return Intake(folder, files, form, ids)


def _peek(files: SampleFiles) -> Iterator[NpyFile]:
    for id in files.ids[:: max(1, len(files.ids) // PEEKED)]:
        try:
            yield files.read(id)
        except (LegacyTreeError, MissingPackageError, OSError):
            continue


def _misfit(folder: FeatureFolder, files: Sequence[NpyFile]) -> LegacyTreeError:
    shapes = list(dict.fromkeys(file.array.shape for file in files))
    shown = ", ".join(map(str, shapes[:3])) + (", ..." if len(shapes) > 3 else "")
    first, key = shapes[0], folder.key
    frames = first[0] if len(first) > 1 else 1
    same = len({shape[:-1] for shape in shapes}) == 1
    fits = "/".join([*key.parts[:4], str(frames) if same else "all"])
    return LegacyTreeError(
        f"{folder.path}: its arrays are {shown}, and {key} wants {key.n_frames} frames of a sample in one; "
        f"a key that fits ends in /{fits.rpartition('/')[2]}: `--as {fits}`",
        path=folder.path,
    )


def read_batches(intake: Intake, findings: Findings) -> Iterator[Batch]:
    """What can be imported, in order of ids.

    In the dtype of the folder, but for files that it would round, which are batches of their own.
    Files that are damaged, or cannot be samples of their folder, or hold NaN or infinities, are findings.
    """
    form = intake.form
    if not intake.ids or form is None:
        return
    rows = form.n_frames if isinstance(form.n_frames, int) else 8  # a guess, for the size of batches only
    size = max(1, BATCH_BYTES // max(1, rows * int(np.prod(form.item)) * form.dtype.itemsize))
    for start in range(0, len(intake.ids), size):
        ids = intake.ids[start : start + size]
        odd: dict[str, Batch] = {}
        whole = isinstance(form.n_frames, int)
        batch = _fixed(intake, form, ids, odd, findings) if whole else _ragged(intake, form, ids, odd, findings)
        for each in [batch, *odd.values()]:
            if each.ids:
                intake.taken += each.ids
                yield each


def _fixed(intake: Intake, form: Form, ids: list[str], odd: dict[str, Batch], findings: Findings) -> Batch:
    folder, files = intake.folder, intake.files
    assert isinstance(form.n_frames, int)
    if form.n_frames * int(np.prod(form.item)) * form.dtype.itemsize > MAX_BYTES:
        # Only the name of the folder says so: no file that can be read has that many rows.
        findings.add("shape", folder.name, f"not {form.n_frames} rows as the folder's name says", *ids)
        return Batch([], [])
    values: NDArray[np.generic] = np.empty((len(ids), form.n_frames, *form.item), form.dtype)
    batch = Batch(ids, values)
    keep = np.ones(len(ids), bool)
    left: Sequence[int] = range(len(ids))
    if files.plain and form.item != (0,):
        names = [files.name(id) for id in ids] if files.prefix else [f"{id}.npy" for id in ids]
        left = read_rows(folder.path, names, values, form.file_shape(form.n_frames))
    for i in left:
        array = _checked(intake, form, ids[i], batch, odd, findings)
        keep[i] = array is not None
        values[i] = 0 if array is None else array
    finite = np.isfinite(values.reshape(len(ids), -1)).all(axis=1)
    for bad in np.flatnonzero(keep & ~finite):
        findings.add("nonfinite", folder.name, _nonfinite(values[bad]), ids[bad])
    keep &= finite
    if not keep.all():
        kept = [id for id, kept in zip(ids, keep, strict=True) if kept]
        batch = Batch(kept, values[keep], batch.facts)
    return batch


def _ragged(intake: Intake, form: Form, ids: list[str], odd: dict[str, Batch], findings: Findings) -> Batch:
    batch = Batch([], [])
    for id in ids:
        array = _checked(intake, form, id, batch, odd, findings)
        if array is None:
            continue
        if not np.isfinite(array).all():
            findings.add("nonfinite", intake.folder.name, _nonfinite(array), id)
            continue
        batch.ids.append(id)
        batch.values.append(array)  # type: ignore[union-attr]
    return batch


def _checked(
    intake: Intake, form: Form, id: str, batch: Batch, odd: dict[str, Batch], findings: Findings
) -> NDArray[np.generic] | None:
    """One file the slow way; None where it is no part of `batch`: with a finding, or in a batch of its own dtype."""
    name = intake.folder.name
    try:
        file = intake.files.read(id)
        values, facts = (_strictly if intake.folder.strict else _loosely)(intake, form, file)
    except LegacyTreeError as error:
        findings.add("unreadable", name, _without_numbers(str(error)), id)
    except MissingPackageError as error:
        findings.add("unreadable", name, error.problem.partition(": ")[2] or error.problem, id)
    except OSError as error:
        findings.add("unreadable", name, f"cannot be read: {error.strerror}", id)
    except MisfitError as error:
        findings.add(error.kind, name, error.what, id)
    else:
        if values.dtype == form.dtype:
            if facts:
                batch.facts[id] = facts
            return values
        if not np.isfinite(values).all():
            findings.add("nonfinite", name, _nonfinite(values), id)
            return None
        what = (
            f"{values.dtype} in a folder of {form.dtype}, which would round them: stored under a recipe of their own, "
            "beside the others"
        )
        findings.add("own_dtype", name, what, id, advice="to read them, name that recipe by its fingerprint")
        own = odd.setdefault(values.dtype.str, Batch([], []))
        own.ids.append(id)
        own.values.append(values)  # type: ignore[union-attr]
        if facts:
            own.facts[id] = facts
    return None


def _loosely(intake: Intake, form: Form, file: NpyFile) -> tuple[NDArray[np.generic], dict[str, Any]]:
    try:
        return form.fit(file)
    except MisfitError as error:
        raise MisfitError(error.kind, error.what + _hint(intake, file.array)) from None


def _strictly(intake: Intake, form: Form, file: NpyFile) -> tuple[NDArray[np.generic], dict[str, Any]]:
    """A file that must be as the name of its folder says."""
    array = file.array
    ragged = form.n_frames == "all"
    frames = (array.shape[0] if array.ndim == 2 and array.size else 1) if ragged else int(form.n_frames)
    if array.shape != form.file_shape(frames):
        message = f"shape {array.shape}, not {_wanted(intake, form)}{_squeezed(intake, form, array.shape)}"
        if not ragged and array.ndim == 2 and array.shape[1:] == form.item and intake.folder.key.modality == "frame":
            # The old emotion_peak wrote 8 rows whatever was asked for, under the name that was asked for.
            message += f"; if the values are right, the folder should be named ..._{array.shape[0]}frms"
        raise MisfitError("shape", message)
    if array.dtype != form.dtype:
        converted = _converted(str(form.dtype))
        raise MisfitError("dtype", f"{_spelt(array.dtype)} in a folder of {form.dtype}; {converted}")
    return form.fit(file)


def _hint(intake: Intake, array: NDArray[np.generic]) -> str:
    """What a shape that does not fit may come from."""
    model = intake.folder.model
    if model is not None and model.level == "tokens" and array.ndim > 1 and array.shape[-1] == intake.dim:
        return (
            f": {array.shape[-2]} tokens, where Emotion-LLaMA-v2 reads {model.n_frames}; a folder that has them "
            f"throughout is imported `--as` a key that ends in /{array.shape[-2]}"
        )
    if array.ndim and array.shape[-1] != intake.dim:
        return ": another width than most files have, so of another model; the loaders look at the first file only"
    return ""


def _wanted(intake: Intake, form: Form) -> str:
    """The shape that a folder's files should have: what its name and its other files do not say is a letter."""
    n_frames = form.n_frames
    rows, dim = (n_frames, intake.dim or "n") if isinstance(n_frames, int) else ("n", intake.dim or "m")
    return f"({rows}, {dim})" if intake.folder.file_ndim == 2 else f"({dim},)"


def _squeezed(intake: Intake, form: Form, shape: tuple[int, ...]) -> str:
    """The line that mends a file with an axis of length one too many, as one of the old scripts wrote them."""
    ndim, n_frames = intake.folder.file_ndim, form.n_frames
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

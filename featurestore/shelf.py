"""Shelf: one recipe of one key, opened for reading and writing."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore import replacement
from featurestore.durable import explain, fsync_dir
from featurestore.errors import (
    CorruptSegmentError,
    ExistsError,
    FormatVersionError,
    RecipeMismatchError,
    StoreError,
    ValuesError,
)
from featurestore.failures import FailureRecord, Failures
from featurestore.features import Failure, Features
from featurestore.flight import Flight
from featurestore.key import FeatureKey, check_id
from featurestore.levels import Place, ensure_levels, read_recipe
from featurestore.reader import ROW_BYTES, BadRowError, Reader, UnknownFormatError
from featurestore.recipe import Recipe
from featurestore.segment import Rows, commit, encode_line, row_line
from featurestore.sources import misfit

DTYPES = (np.dtype(np.float16), np.dtype(np.float32))


@contextmanager
def reading(what: object) -> Iterator[None]:
    """What the reader raises, which knows nothing of ours, in our words."""
    try:
        yield
    except StoreError:
        raise
    except UnknownFormatError as error:
        raise FormatVersionError(str(error)) from error
    except BadRowError as error:
        raise CorruptSegmentError(f"{what}: {error}; run `fstore verify --full --repair`") from error
    except OSError as error:
        raise StoreError(
            error.errno or errno.EIO, f"{what}: {error.strerror or error}; look at the path", str(error.filename or "")
        ) from error


class Shelf:
    """The rows, locks and failure records of one recipe.  Touches no disk until it is used."""

    def __init__(self, root: Path, key: FeatureKey, fingerprint: str, recipe: Recipe | None = None) -> None:
        self.key = key
        self.place = Place(root, key, fingerprint)
        self.reader = Reader(str(self.place.recipe_dir), str(key))
        self.flight = Flight(self.place.house / "locks")
        self.failures = Failures(self.place.house / "failed", fingerprint)
        self._recipe = recipe

    @property
    def fingerprint(self) -> str:
        return self.place.fingerprint

    @property
    def recipe(self) -> Recipe:
        """What was given, else what is stored beside the segments."""
        if self._recipe is None:
            self._recipe = read_recipe(self.place)
        return self._recipe

    def places(self, ids: Sequence[str]) -> list[Any]:
        """(segment, row) of each sample, None where it is not stored; InvalidIdError for what cannot be an id."""
        with reading(self.key):
            try:
                return [self.reader.find(id) for id in ids]
            except (UnicodeError, AttributeError, TypeError):
                for id in ids:
                    check_id(id)
                raise

    def line(self, id: str) -> dict[str, Any] | None:
        """What is kept beside the values of a sample; None where it is not stored."""
        if self.places([id]) == [None]:
            return None
        with reading(id):
            return self.reader.line(id)

    def lines(self) -> Iterator[dict[str, Any]]:
        """What is kept beside the values of each sample.

        Where that is damaged nobody knows whose it is: the sample is left out, and counts as missing from then on.
        """
        bad: list[BadRowError] = []
        with reading(self.key):
            for line, _, _ in self.reader.rows(bad=bad):
                yield line
            if bad:
                self.reader.leave_out(bad)

    def put(
        self,
        features: Mapping[str, Features],
        *,
        overwrite: Collection[str] = (),
        keep_stored: bool = False,
        made_with: Mapping[str, Any] | None = None,
    ) -> int:
        """Commit rows, durable when this returns; how many were not there before.

        Ids that hold the same bits already are left alone.  With other bits they are replaced, in one
        step, where `overwrite` has them; else left alone too where `keep_stored` is true, because
        another process was first; else ExistsError, and nothing is stored.
        """
        for id, item in features.items():
            check_features(self.key, id, item)
        first = next(iter(features.values()), None)
        with reading(self.key):
            self._look()
            for id, item in features.items():
                self.check_type(id, item, first)
            fresh, changed = self._compare(features)
        wanted = {id: item for id, item in changed.items() if id in overwrite}
        if len(wanted) < len(changed) and not keep_stored:
            other = next(id for id in changed if id not in wanted)
            raise ExistsError(
                f"{len(changed) - len(wanted)} of {len(features)} samples, e.g. {other!r}, are stored with other "
                f"values under {self.key}@{self.fingerprint}; pass overwrite=True to replace them"
            )
        for rows in as_rows(fresh):
            name = commit(self.place, self.recipe, rows, made_with=made_with)
            with reading(self.key):
                self.reader.see(name)
        if wanted:
            with self._alone():
                replacement.rewrite(self.place, self.recipe, self.reader, set(wanted), list(as_rows(wanted)))
        if len(fresh) + len(wanted) < len(features):
            self._fsync()
        self.failures.clear(features)
        return len(fresh)

    def fail(self, id: str, failure: Failure) -> FailureRecord:
        """Record that a sample cannot be made; the recipe is kept too, also when nothing can be made under it."""
        try:
            ensure_levels(self.place, self.recipe)
        except OSError as error:
            raise explain(error, f"the failure of sample {id!r} ({failure.message}) cannot be recorded") from error
        return self.failures.add(id, failure)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove the rows of these ids; how many were there."""
        with self._alone():
            present = {id for id in ids if check_id(id) in self.reader}
            if present:
                replacement.rewrite(self.place, self.recipe, self.reader, present)
            elif self.place.segments.is_dir():
                self._fsync()
        return len(present)

    def compact(self, codec: str | None = None, grace_s: float = replacement.GRACE_S) -> int:
        """Merge small segments, then remove replaced ones past the grace; how many were merged."""
        with self._alone():
            count = replacement.compact(self.place, self.recipe, self.reader, codec)
            replacement.gc(self.place, self.reader, grace_s)
        return count

    def gc(self, grace_s: float = replacement.GRACE_S) -> int:
        """Remove replaced segments and abandoned staging past the grace; how many."""
        with self._alone():
            count = replacement.gc(self.place, self.reader, grace_s)
            self.reader.refresh(force=True)
        return count

    def remove(self) -> None:
        """Remove everything: segments, recipe and records of failures.  Writers meanwhile begin anew or fail."""
        with self.flight.recipe():
            replacement.remove(self.place)
        self.reader = Reader(self.reader.path, self.reader.key)

    def quarantine(self) -> list[str]:
        """Move damaged segments aside, keeping their sound rows; the names of those moved."""
        with self.flight.recipe(), reading(self.key):
            moved = replacement.quarantine(self.place, self.recipe, self.reader)
        self.reader = Reader(self.reader.path, self.reader.key)
        return moved

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Under the recipe's lock, with what is stored now in sight."""
        with self.flight.recipe(), reading(self.key):
            self._look(force=True)
            yield

    def _look(self, force: bool = False) -> None:
        """See what is stored, before it is changed; not where that cannot be told."""
        self.reader.refresh(force)
        for name in self.reader.unread:
            raise CorruptSegmentError(
                errno.EIO,
                f"segment {name} of {self.key}@{self.fingerprint} cannot be read now ({self.reader.problems[name]}): "
                "what it holds is not known, so nothing was changed; try again, and if it stays so run "
                f"`fstore verify {self.key} --repair`",
                str(self.place.segments / name),
            )

    def _fsync(self) -> None:
        """What is as it was asked for already: who did it may have been killed before making it durable."""
        try:
            fsync_dir(self.place.segments)
        except OSError as error:
            raise explain(error, f"{self.key}: what is stored already cannot be made durable") from error

    def check_type(self, id: str, item: Features, first: Features | None) -> None:
        """dtype and dim of a recipe are those of its first segment, or of the first row of the first batch."""
        like = first.values if first is not None else item.values
        shape, dtype = self.reader.row_type or (like.shape, like.dtype)
        if (item.values.shape[1], item.values.dtype) != (shape[1], dtype):
            raise RecipeMismatchError(
                f"sample {id!r} has dim {item.values.shape[1]} and dtype {item.values.dtype}, but rows of "
                f"{self.key}@{self.fingerprint} have dim {shape[1]} and dtype {dtype}; put the dtype into the recipe, "
                "so that other numbers have another recipe"
            )

    def _compare(self, features: Mapping[str, Features]) -> tuple[dict[str, Features], dict[str, Features]]:
        """(not stored yet, stored with other bits)."""
        if not len(self.reader):
            return dict(features), {}
        fresh, changed = {}, {}
        for id, item in features.items():
            before = self.reader.get(id)
            if before is None:
                fresh[id] = item
            elif before.shape != item.values.shape or before.tobytes() != np.ascontiguousarray(item.values).tobytes():
                changed[id] = item
        return fresh, changed


def check_features(key: FeatureKey, id: str, item: Features) -> None:
    """Whether features may be stored under a key; ValuesError says which sample, what, and what was expected."""
    check_form(key, id, item)
    check_finite(id, item)


def check_form(key: FeatureKey, id: str, item: Features) -> None:
    """The types and shapes of what is to be stored."""
    check_id(id)
    values = item.values
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
        column = getattr(item, name)
        if column is None:
            continue
        if not isinstance(column, np.ndarray) or column.dtype != dtype or column.shape != values.shape[:1]:
            found = (column.dtype, column.shape) if isinstance(column, np.ndarray) else type(column).__name__
            raise ValuesError(f"sample {id!r}: {name} are {found}, not {np.dtype(dtype)} {values.shape[:1]}")
    try:
        if item.provenance is not None:
            encode_line(dict(item.provenance))
    except (TypeError, ValueError) as error:
        raise ValuesError(f"sample {id!r}: provenance is not a JSON object: {error}") from None
    problem = misfit(item.provenance.get("sources", ())) if item.provenance is not None else None
    if problem is not None:
        raise ValuesError(f"sample {id!r}: provenance: {problem}")


def check_finite(id: str, item: Features) -> None:
    """That values and timestamps are numbers."""
    if not np.isfinite(item.values).all():
        count = int((~np.isfinite(item.values)).sum())
        raise ValuesError(f"sample {id!r}: {count} of {item.values.size} values are NaN or infinite")
    if item.timestamps_s is not None and not np.isfinite(item.timestamps_s).all():
        raise ValuesError(f"sample {id!r}: timestamps_s hold NaN or infinite numbers; pass None where they are unknown")


def as_rows(features: Mapping[str, Features]) -> list[Rows]:
    """Batches to commit: of one row count each, none above the size of a segment."""
    groups: dict[tuple[int, ...], list[list[str]]] = {}
    for id, item in features.items():
        parts = groups.setdefault(item.values.shape, [[]])
        if len(parts[-1]) * (item.values.nbytes + 4) > replacement.MAX_BYTES:
            parts.append([])
        parts[-1].append(id)
    return [
        Rows(
            shape=(shape[0], shape[1]),
            dtype=features[ids[0]].values.dtype,
            lines=[
                row_line(id, item.frame_indices, item.timestamps_s, item.provenance)
                for id, item in ((id, features[id]) for id in ids)
            ],
            ids=ids,
            blocks=_Stacked([features[id].values for id in ids]),
        )
        for shape, parts in groups.items()
        for ids in parts
    ]


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

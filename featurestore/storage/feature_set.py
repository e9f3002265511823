"""Feature set: one recipe of one key, opened for reading and writing."""

from __future__ import annotations

import errno
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.errors import (
    CorruptSegmentError,
    ExistsError,
    FormatVersionError,
    RecipeMismatchError,
    StoreError,
)
from featurestore.features import Failure, Features
from featurestore.key import FeatureKey, check_id
from featurestore.recipe import Recipe
from featurestore.storage import maintenance
from featurestore.storage.durable import explain, fsync_dir
from featurestore.storage.failures import FailureRecord, Failures
from featurestore.storage.layout import Layout, ensure_levels, read_recipe
from featurestore.storage.locks import Locks
from featurestore.storage.manifest import withdraw, write_manifest
from featurestore.storage.reader import CorruptRowError, Found, Reader, UnknownFormatError
from featurestore.storage.rows import DTYPES, Row, as_rows, checked, form_of
from featurestore.storage.writer import commit

logger = logging.getLogger("featurestore")


@contextmanager
def reading(what: object) -> Iterator[None]:
    """What the reader raises, which knows nothing of ours, in our words."""
    try:
        yield
    except StoreError:
        raise
    except UnknownFormatError as error:
        problem, _, advice = str(error).rpartition(": ")
        raise FormatVersionError(problem, advice=advice) from error
    except CorruptRowError as error:
        raise CorruptSegmentError(f"{what}: {error}") from error
    except OSError as error:
        raise StoreError(
            error.errno or errno.EIO, f"{what}: {error.strerror or error}; look at the path", str(error.filename or "")
        ) from error


class FeatureSet:
    """The rows, locks and failure records of one recipe.  Touches no disk until it is used."""

    def __init__(self, root: Path, key: FeatureKey, fingerprint: str, recipe: Recipe | None = None) -> None:
        self.key = key
        self.layout = Layout(root, key, fingerprint)
        self.reader = Reader(str(self.layout.recipe_dir), str(key))
        self.locks = Locks(self.layout.housekeeping / "locks")
        self.failures = Failures(self.layout.housekeeping / "failed", fingerprint)
        self._recipe = recipe

    @property
    def fingerprint(self) -> str:
        return self.layout.fingerprint

    @property
    def recipe(self) -> Recipe:
        """What was given, else what is stored beside the segments."""
        if self._recipe is None:
            self._recipe = read_recipe(self.layout)
        return self._recipe

    def positions(self, ids: Sequence[str]) -> list[Any]:
        """(segment, row) of each sample, None where it is not stored; InvalidIdError for what cannot be an id."""
        with reading(self.key):
            try:
                return [self.reader.find(id) for id in ids]
            except (UnicodeError, AttributeError, TypeError):
                for id in ids:
                    check_id(id)
                raise

    def find_all(self, ids: Sequence[str]) -> Found:
        """The same of many at once."""
        with reading(self.key):
            try:
                return self.reader.find_all(ids)
            except (UnicodeError, AttributeError, TypeError):
                for id in ids:
                    check_id(id)
                raise

    def line(self, id: str) -> dict[str, Any] | None:
        """What is kept beside the values of a sample; None where it is not stored."""
        if self.positions([id]) == [None]:
            return None
        with reading(id):
            return self.reader.line(id)

    def lines(self) -> Iterator[dict[str, Any]]:
        """What is kept beside the values of each sample.

        Where that is damaged nobody knows whose it is: the sample is left out, and counts as missing from then on.
        """
        bad: list[CorruptRowError] = []
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
        dtypes: Collection[np.dtype[Any]] = DTYPES,
    ) -> int:
        """Check and commit features, durable when this returns; how many were not there before.  See `keep`."""
        rows = {id: checked(self.key, id, item, dtypes) for id, item in features.items()}
        fresh, _ = self.keep(rows, overwrite=overwrite, keep_stored=keep_stored, made_with=made_with)
        return len(fresh)

    def keep(
        self,
        rows: Mapping[str, Row],
        *,
        overwrite: Collection[str] = (),
        keep_stored: bool = False,
        seen: object = None,
        made_with: Mapping[str, Any] | None = None,
    ) -> tuple[Collection[str], Collection[str]]:
        """Commit rows, durable when this returns; which were not there before, and which were replaced.

        Ids that hold the same bits already are left alone.  With other bits they are replaced, in one
        step, where `overwrite` has them; else left alone too where `keep_stored` is true, because
        another process was first; else ExistsError, and nothing is stored.  Where `overwrite` has them, the
        same bits that were made of other files are replaced too, since what they were made of is kept beside them.

        `seen` is what the reader had seen when none of these was stored and their type was checked: while it
        has seen nothing else since, neither is done again.
        """
        with reading(self.key):
            self._look(briefly=seen is not None or self.reader.counts_links)
            if seen is not None and self.reader.seen is seen:
                fresh, changed = dict(rows), dict[str, Row]()
            else:
                first = next(iter(rows.values()), None)
                for id, row in rows.items():
                    self.check_type(id, row, first)
                fresh, changed = self._compare(rows, overwrite)
        wanted = {id: row for id, row in changed.items() if id in overwrite}
        if len(wanted) < len(changed) and not keep_stored:
            other = next(id for id in changed if id not in wanted)
            raise ExistsError(
                f"{len(changed) - len(wanted)} of {len(rows)} samples, e.g. {other!r}, are stored with other "
                f"values under {self.key}@{self.fingerprint}",
                advice="pass overwrite=True to replace them",
                key=self.key,
                ids=[id for id in changed if id not in wanted],
                root=self.layout.root,
            )
        for batch in as_rows(self.key, fresh):
            name = commit(self.layout, self.recipe, batch, made_with=made_with)
            with reading(self.key):
                self.reader.see(name)
        if wanted:
            with self._alone():
                maintenance.rewrite(self.layout, self.recipe, self.reader, set(wanted), as_rows(self.key, wanted))
        if len(fresh) + len(wanted) < len(rows):
            self._fsync()
        self.failures.clear(rows)
        return fresh, wanted

    def fail(self, id: str, failure: Failure) -> FailureRecord:
        """Record that a sample cannot be made; the recipe is kept too, also when nothing can be made under it."""
        try:
            ensure_levels(self.layout, self.recipe)
        except OSError as error:
            raise explain(error, f"the failure of sample {id!r} ({failure.message}) cannot be recorded") from error
        return self.failures.add(id, failure)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove the rows of these ids; how many were there."""
        with self._alone():
            present = {id for id in ids if check_id(id) in self.reader}
            if present:
                maintenance.rewrite(self.layout, self.recipe, self.reader, present)
            elif self.layout.segments.is_dir():
                self._fsync()
        return len(present)

    def compact(self, grace_s: float = maintenance.GRACE_S) -> int:
        """Merge small segments, then remove replaced ones past the grace; how many were merged."""
        with self._alone():
            count = maintenance.compact(self.layout, self.recipe, self.reader)
            maintenance.gc(self.layout, self.reader, grace_s)
            write_manifest(self.layout, self.reader)
        return count

    def publish(self) -> None:
        """Write the manifest, for readers that cannot list the folder."""
        with self._alone():
            write_manifest(self.layout, self.reader)

    def merge_small(self) -> int:
        """Merge the small segments, unless another process is at it; how many were merged.

        What cannot be done can wait: every sample is stored.
        """
        try:
            with self.locks.recipe(wait_s=0), reading(self.key):
                self._look(force=True)
                segments = maintenance.small(self.reader)
                count = maintenance.compact(self.layout, self.recipe, self.reader, segments)
                maintenance.gc(self.layout, self.reader)
        except StoreError as error:
            logger.debug("%s: small segments are merged by a later miss (%s)", self.key, error)
            return 0
        return count

    def gc(self, grace_s: float = maintenance.GRACE_S) -> int:
        """Remove replaced segments and abandoned staging past the grace; how many."""
        with self._alone():
            count = maintenance.gc(self.layout, self.reader, grace_s)
            self.reader.refresh(force=True)
        return count

    def remove(self) -> None:
        """Remove everything: segments, recipe and records of failures.  Writers meanwhile begin anew or fail."""
        with self.locks.recipe():
            maintenance.remove(self.layout)
            withdraw(self.layout)
        self.reader = Reader(self.reader.path, self.reader.key)

    def quarantine(self, also: Collection[str] = ()) -> list[str]:
        """Move damaged segments aside, and those named, keeping their sound rows; the names of those moved."""
        with self.locks.recipe(), reading(self.key):
            moved = maintenance.quarantine(self.layout, self.recipe, self.reader, also)
        self.reader = Reader(self.reader.path, self.reader.key)
        return moved

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Under the recipe's lock, with what is stored now in sight."""
        with self.locks.recipe(), reading(self.key):
            self._look(force=True)
            yield

    def _look(self, force: bool = False, briefly: bool = False) -> None:
        """See what is stored, before it is changed; not where that cannot be told."""
        self.reader.refresh(force, briefly)
        for name in self.reader.unread:
            raise CorruptSegmentError(
                errno.EIO,
                f"segment {name} of {self.key}@{self.fingerprint} cannot be read now ({self.reader.problems[name]}): "
                "what it holds is not known, so nothing was changed; try again, and repair it if it stays so",
                str(self.layout.segments / name),
                key=self.key,
                root=self.layout.root,
            )

    def _fsync(self) -> None:
        """What is as it was asked for already: who did it may have been killed before making it durable."""
        try:
            fsync_dir(self.layout.segments)
        except OSError as error:
            raise explain(error, f"{self.key}: what is stored already cannot be made durable") from error

    def check_type(self, id: str, item: Row | Features, first: Row | None) -> None:
        """What a frame of a recipe is, is what it is in its first segment, or in the first row of the first batch."""
        like = first if first is not None else item
        own = item.form if isinstance(item, Row) else form_of(item)
        form = self.reader.form or (like.form if isinstance(like, Row) else form_of(like))
        if own != form:
            raise RecipeMismatchError(
                f"sample {id!r} has frames of {own}, but those of {self.key}@{self.fingerprint} are {form}; put what "
                "differs into the recipe, so that other numbers have another recipe"
            )

    def _compare(self, rows: Mapping[str, Row], overwrite: Collection[str]) -> tuple[dict[str, Row], dict[str, Row]]:
        """(not stored yet, stored with other bits, or to be replaced and made of other files)."""
        if not len(self.reader):
            return dict(rows), {}
        fresh, changed = {}, {}
        for id, row in rows.items():
            before = self.reader.get(id)
            if before is None:
                fresh[id] = row
            elif before.shape != row.values.shape or before.tobytes() != np.ascontiguousarray(row.values).tobytes():
                changed[id] = row
            elif id in overwrite and row.features.provenance and self._provenance(id) != row.as_read()["provenance"]:
                changed[id] = row
        return fresh, changed

    def _provenance(self, id: str) -> Any:
        return (self.reader.line(id) or {}).get("provenance")

"""Lookup: one outcome for each sample that is asked for: memory, disk, then whatever a miss takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import ReadOnlyError, ValuesError
from featurestore.features import Compute, Failure, Features, distinct
from featurestore.fill import Fill, recorded
from featurestore.key import check_id
from featurestore.stats import BYTES_READ, COMPUTED, DISK_HITS, FAILED, MEMORY_HITS, MISSES, NOT_KEPT, WAITED, Stats
from featurestore.storage.absence import absence, failure_of
from featurestore.storage.catalog import Catalog
from featurestore.storage.claims import Waiting
from featurestore.storage.failures import FailureRecord
from featurestore.storage.feature_set import FeatureSet, reading
from featurestore.storage.layout import require_writable
from featurestore.storage.maintenance import MAX_SEGMENTS
from featurestore.storage.memory import MemoryTier
from featurestore.storage.reader import CorruptRowError, Found, FramesError, fits, frames_of
from featurestore.storage.rows import Row

Frames = slice | Sequence[int] | NDArray[np.integer[Any]]
"""Some frames of a sample, by their positions in it, ascending."""
Hit = tuple[NDArray[Any], Any]  # values, "memory" | "disk" | "computed"
Outcome = tuple[NDArray[Any], Any, Row | None] | Failure | FailureRecord | None
"""A hit and what was made just now; why it cannot be made; or None where it is not stored and cannot be made here."""


class Lookup:
    """What a store answers with, for any number of samples of one feature set; counts what became of each."""

    def __init__(
        self, catalog: Catalog, compute: Compute | None, memory: MemoryTier | None, stats: Stats, read_only: bool
    ) -> None:
        self.catalog = catalog
        self.compute = compute
        self.memory = memory
        self.stats = stats
        self.read_only = read_only

    def described(
        self, feature_set: FeatureSet, ids: Sequence[str]
    ) -> dict[str, Features | Failure | FailureRecord | None]:
        """`outcomes` of distinct ids, with what is kept beside the values of those that are there."""
        seen = feature_set.reader.seen
        lines = {id: feature_set.line(id) for id in ids}  # first: where one is damaged, the sample is a miss
        outcomes = self.outcomes(feature_set, ids, None if any(lines.values()) else seen)
        found: dict[str, Features | Failure | FailureRecord | None] = {}
        for id in ids:
            outcome = outcomes[id]
            if not isinstance(outcome, tuple):
                found[id] = outcome
                continue
            values, served_from, row = outcome
            line = lines[id] or (feature_set.line(id) if row is None else row.as_read())
            found[id] = None if line is None else _features(values, line, feature_set, served_from)  # deleted meanwhile
        return found

    def one(self, feature_set: FeatureSet, id: str, seen: object) -> tuple[NDArray[Any], Any, Row | None]:
        """What `outcomes` finds of one sample, or the error that says why there is nothing."""
        outcome = self.outcomes(feature_set, [id], seen)[id]
        if outcome is None:
            raise absence(self.catalog.root, feature_set.key, [id], feature_set)
        if not isinstance(outcome, tuple):
            raise failure_of(feature_set, {id: outcome}, 1, one=True)
        return outcome

    def all(
        self, feature_set: FeatureSet, ids: Sequence[str], seen: object
    ) -> dict[str, tuple[NDArray[Any], Any, Row | None]]:
        """What `outcomes` finds of a batch, or the error that says what is not to be had."""
        outcomes = self.outcomes(feature_set, ids, seen)
        if absent := [id for id, outcome in outcomes.items() if outcome is None]:
            raise absence(self.catalog.root, feature_set.key, absent, feature_set)
        failed = {id: outcome for id, outcome in outcomes.items() if isinstance(outcome, Failure | FailureRecord)}
        if failed:
            good = {id: outcome[0] for id, outcome in outcomes.items() if isinstance(outcome, tuple)}
            raise failure_of(feature_set, failed, len(outcomes), one=False, good=good)
        return {id: outcome for id, outcome in outcomes.items() if isinstance(outcome, tuple)}

    def batch(
        self, feature_set: FeatureSet, ids: Sequence[str], out: NDArray[Any] | None = None, ragged: bool = False
    ) -> Any:
        """Several samples: one array, or a list of arrays where it is ragged.  Errors as from `all`."""
        reader = feature_set.reader
        seen = reader.seen
        found = feature_set.find_all(ids)
        stored = found.numbers >= 0
        if stored.all() and (self.memory is None or not ids):
            batch = self.take(feature_set, found, out, ragged)
            if batch is not None:
                self.stats.counts()[DISK_HITS] += len(set(ids))
                return batch
        outcomes = self.all(feature_set, ids, None if stored.any() else seen)
        if ragged:
            return [outcomes[id][0].copy() for id in ids]
        values = outcomes[ids[0]][0]
        batch = checked_out(out, (len(ids), *values.shape), values.dtype)
        for slot, id in enumerate(ids):
            batch[slot] = outcomes[id][0]
        return batch

    def take(self, feature_set: FeatureSet, found: Found, out: NDArray[Any] | None = None, ragged: bool = False) -> Any:
        """What was found, read from the disk; None where something was damaged or removed meanwhile."""
        reader = feature_set.reader
        if out is not None and len(found):
            checked_out(out, reader.batch_shape(len(found)), reader.form and reader.form.dtype)
        with reading(feature_set.key):
            try:
                batch: Any = reader.take_ragged(found) if ragged else reader.take(found, out)
            except (OSError, CorruptRowError) as error:
                reader.recover(error)
                return None
        self.stats.counts()[BYTES_READ] += sum(one.nbytes for one in batch) if ragged else batch.nbytes
        return batch

    def frames(self, feature_set: FeatureSet, id: str, frames: Frames) -> tuple[NDArray[Any], Any, Row | None]:
        """Some frames of one sample, (k, *item), and no others read where they can be checked alone.  As `one`."""
        try:
            if self.memory is None:
                with reading(id):
                    part: NDArray[Any] | None = feature_set.reader.get(check_id(id), frames)
                if part is not None:
                    counts = self.stats.counts()
                    counts[DISK_HITS] += 1
                    counts[BYTES_READ] += part.nbytes
                    return part, "disk", None
            values, served_from, row = self.one(feature_set, id, None)
            wanted = frames_of(frames, len(values))
            return values[list(wanted)] if len(wanted) else values[:0], served_from, row
        except FramesError as error:
            raise ValuesError(f"sample {id!r} of {feature_set.key}: {error}") from None

    def described_frames(self, feature_set: FeatureSet, id: str, frames: Frames) -> Features:
        """`frames`, with what is kept beside them."""
        values, served_from, row = self.frames(feature_set, id, frames)
        line = feature_set.line(id) if row is None else row.as_read()
        if line is None:
            raise absence(self.catalog.root, feature_set.key, [id], feature_set)  # deleted meanwhile
        for name in ("frame_indices", "timestamps_s"):
            if line.get(name) is not None:
                line[name] = [line[name][frame] for frame in frames_of(frames, len(line[name]))]
        return _features(values, line, feature_set, served_from)

    def outcomes(self, feature_set: FeatureSet, ids: Sequence[str], seen: object) -> dict[str, Outcome]:
        """One outcome for each distinct id: memory, disk, then whatever a miss takes.

        `seen` is what the reader had seen when none of them was stored, where that is known.
        """
        counts, reader = self.stats.counts(), feature_set.reader
        found: dict[str, Outcome] = {}
        absent = list(distinct(ids))
        if seen is None:
            seen = reader.seen
            absent = self._take_hits(feature_set, absent, found)
        if absent:
            own = self.catalog.own_recipe(feature_set.key) if self.compute is not None else None
            makes = own is not None and own.fingerprint == feature_set.fingerprint
            with reading(feature_set.key):
                # Once for all of them, and with a look at the clock only where a miss lists it all the same.
                reader.refresh(briefly=makes and not self.read_only)
            if reader.seen is not seen:
                seen = reader.seen
                absent = self._take_hits(feature_set, absent, found)
            for id in absent:
                check_id(id)
            counts[MISSES] += len(absent)
            if absent and makes and not reader.unread:
                self._make(feature_set, absent, seen, found)
            elif absent:
                found.update(dict.fromkeys(absent) | recorded(feature_set, self.compute, absent))
        return found

    def _take_hits(self, feature_set: FeatureSet, ids: Sequence[str], found: dict[str, Outcome]) -> list[str]:
        """Those that are stored are counted, and put into `found`; the others."""
        counts, absent = self.stats.counts(), []
        for id in ids:
            hit = self._hit_of(feature_set, id)
            if hit is None:
                absent.append(id)
            else:
                counts[MEMORY_HITS if hit[1] == "memory" else DISK_HITS] += 1
                found[id] = (*hit, None)
        return absent

    def _make(self, feature_set: FeatureSet, ids: Sequence[str], seen: object, found: dict[str, Outcome]) -> None:
        """Have the compute make these, and keep them; what became of each goes into `found`."""
        compute, counts, made = self.compute, self.stats.counts(), dict[str, Outcome]()
        assert compute is not None

        def rest(unit: list[str]) -> list[str]:
            if not self.read_only and feature_set.reader.seen is not seen:
                made.update((id, (*hit, None)) for id in unit if (hit := self._hit_of(feature_set, id)) is not None)
            made.update(recorded(feature_set, compute, [id for id in unit if id not in made]))
            return [id for id in unit if id not in made]

        def stored(id: str, row: Row, ours: bool) -> None:
            # What is stored is what later calls get: another process may have been first, with other last bits.
            with reading(id):
                values = None if ours else feature_set.reader.get(id)
            made[id] = (row.values.copy(), "computed", row) if values is None else (values, "computed", None)

        def failed(id: str, failure: Failure, record: FailureRecord | None) -> None:
            made[id] = record or failure

        try:
            self._require_writable(feature_set, ids)
            Fill(
                feature_set,
                compute,
                Waiting(feature_set, ids, rest, not self.read_only),
                stored,
                failed,
                keep=not self.read_only,
            ).run()
        finally:
            answers = [outcome[1] for outcome in made.values() if isinstance(outcome, tuple)]
            computed = answers.count("computed")
            counts[COMPUTED] += computed
            counts[NOT_KEPT] += computed if self.read_only else 0
            counts[WAITED] += len(answers) - computed
            counts[FAILED] += len(ids) - len(answers)
        found.update(made)
        if not self.read_only and len(feature_set.reader.segments) > MAX_SEGMENTS:
            feature_set.merge_small()

    def _require_writable(self, feature_set: FeatureSet, ids: Sequence[str]) -> None:
        try:
            if not self.read_only:
                require_writable(feature_set.layout)
        except ReadOnlyError:
            if len(recorded(feature_set, self.compute, ids)) < len(ids):  # else nothing would be computed
                raise

    def _hit_of(self, feature_set: FeatureSet, id: str) -> Hit | None:
        (position,) = feature_set.positions([id])
        if position is None:
            return None
        if self.memory is not None:
            values = self.memory.get(position)
            if values is not None:
                return values, "memory"
        with reading(id):
            values = feature_set.reader.get(id)
        if values is None:
            return None
        self.stats.counts()[BYTES_READ] += values.nbytes
        if self.memory is not None:
            self.memory.put(position, values)
        return values, "disk"


def _features(values: NDArray[Any], line: Mapping[str, Any], feature_set: FeatureSet, served_from: Any) -> Features:
    frames, seconds, form = line.get("frame_indices"), line.get("timestamps_s"), feature_set.reader.form
    return Features(
        values,
        None if frames is None else np.array(frames, np.int64),
        None if seconds is None else np.array(seconds, np.float64),
        line.get("provenance"),
        feature_set.recipe,
        served_from,
        form.axes if form is not None else None,
    )


def checked_out(out: NDArray[Any] | None, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """`out`, or a fresh array where there is none; ValuesError where it does not fit."""
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or not fits(out, shape, dtype):
        found = f"{out.shape} {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ValuesError(f"out is {found}, not a writable C-contiguous {shape} {np.dtype(dtype)} as stored")
    return out

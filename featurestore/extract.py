"""extract: make many samples, several at a time, beside other processes, and survive any end."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from featurestore.errors import ConfigError, StoreError
from featurestore.extractor import Extractor
from featurestore.features import Failure, Features
from featurestore.flight import bucket_of
from featurestore.key import FeatureKey
from featurestore.levels import require_writable
from featurestore.miss import UNIT, checked, described
from featurestore.replacement import MAX_SEGMENTS
from featurestore.samples import Sample
from featurestore.shelf import Shelf, reading
from featurestore.sources import compare
from featurestore.store import FeatureStore

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = ["Extractor", "Report", "extract", "plan"]

logger = logging.getLogger("featurestore")
TRY_AGAIN_S = 600.0  # how long to wait, at the very end, for a sample that another process is making


@dataclass
class Report:
    """What `extract` did."""

    key: FeatureKey
    recipe: str
    """fingerprint"""
    asked: int = 0
    stored_before: int = 0
    computed: int = 0
    waited: int = 0
    """stored by another process meanwhile"""
    stale: list[str] = field(default_factory=list)
    """ids whose media changed since they were stored; made again"""
    failed: dict[str, Failure] = field(default_factory=dict)
    failed_before: dict[str, str] = field(default_factory=dict)
    """id -> message of samples with a record from an earlier run, not tried again"""
    cut_off: dict[str, float] = field(default_factory=dict)
    """id -> seconds that the header of a video announces and that are not there, of those computed now"""
    seconds: dict[str, float] = field(default_factory=dict)
    """wall, decode (adds up over the workers), encode, write"""

    @property
    def ok(self) -> bool:
        return not self.failed and not self.failed_before

    def as_dict(self) -> dict[str, Any]:
        """JSON for `--json`."""
        return {
            "key": str(self.key),
            "recipe": self.recipe,
            "asked": self.asked,
            "stored_before": self.stored_before,
            "computed": self.computed,
            "waited": self.waited,
            "stale": self.stale,
            "failed": {id: {"reason": f.reason, "message": f.message} for id, f in self.failed.items()},
            "failed_before": self.failed_before,
            "cut_off": self.cut_off,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


@dataclass(frozen=True)
class Plan:
    """What `extract` would do."""

    stored: list[str]
    stale: list[str]
    failed_before: dict[str, str]
    todo: list[str]
    """what would be computed: not stored, or stale"""


def plan(
    store: FeatureStore,
    key: FeatureKey,
    ids: Sequence[str],
    samples: Mapping[str, Sample] | None = None,
    *,
    retry: bool = False,
) -> Plan:
    """Sort ids into stored, stale, failed before and to do.  Reads no media unless its size or mtime changed.

    `retry` counts samples with a record of a failure among those to do.
    """
    ids = list(dict.fromkeys(ids))
    shelf = _shelf(store, key)
    with reading(key):
        shelf.reader.refresh()
        stale = set(stale_ids(shelf, samples, set(ids))) if samples is not None else set()
    stored, todo, failed = [], [], {}
    records = shelf.failures.all()
    for id in ids:
        record = records.get(id)
        if id in shelf.reader and id not in stale:
            stored.append(id)
        elif record is not None and not record.is_void() and not retry:
            failed[id] = record.message
        else:
            todo.append(id)
    return Plan(stored, [id for id in ids if id in stale], failed, todo)


def extract(
    store: FeatureStore,
    key: FeatureKey,
    ids: Sequence[str],
    *,
    retry: bool = False,
    progress: Callable[[int], object] = lambda count: None,
) -> Report:
    """Store the features of all `ids` that are not stored yet.

    The store's compute makes them: an `Extractor`, or any compute whose `ids` may be an iterator.
    Rows are committed 64 at a time, so that an end at any moment costs at most those in flight.
    `retry` tries those again that have a record of a failure; a record goes when its sample is stored.
    `progress` is called with the number of samples that were just settled.

    Raises for what concerns all samples (weights, disk full, a store that cannot be written: before any is
    made); a failed sample is in the report.
    """
    started = time.perf_counter()
    compute = store.compute
    if compute is None:
        raise ConfigError("extract needs a store with a compute: FeatureStore(root, compute=Extractor(...))")
    samples = compute.sources.get(key.dataset) if isinstance(compute, Extractor) else None
    shelf = _shelf(store, key)
    wanted = plan(store, key, ids, samples, retry=retry)
    report = Report(key, shelf.fingerprint, len(set(ids)), len(wanted.stored))
    report.failed_before = wanted.failed_before
    report.stale = wanted.stale
    progress(len(wanted.stored) + len(wanted.failed_before))
    before = (compute.seconds.decode, compute.seconds.encode) if isinstance(compute, Extractor) else (0.0, 0.0)
    if wanted.todo:
        require_writable(shelf.place)
        if isinstance(compute, Extractor):
            compute.probe(key, wanted.todo)
        work = _Work(shelf, wanted.todo, set(wanted.stale), report, progress)
        work.run(compute)
        _tidy(shelf)
        report.seconds["write"] = work.write_s
    after = (compute.seconds.decode, compute.seconds.encode) if isinstance(compute, Extractor) else (0.0, 0.0)
    report.seconds["decode"], report.seconds["encode"] = after[0] - before[0], after[1] - before[1]
    report.seconds["wall"] = time.perf_counter() - started
    return report


def _tidy(shelf: Shelf) -> None:
    """Merge small segments and remove replaced ones.  Every sample is stored by now: what cannot be done can wait."""
    try:
        if len(shelf.reader.segments) > MAX_SEGMENTS:
            shelf.compact()
        shelf.gc()
    except StoreError as error:  # no lock is to be had, or no room to merge
        logger.warning("%s: every sample is stored, merging and removing is left to a later run (%s)", shelf.key, error)


class _Work:
    """The samples of one `extract`: claimed, computed, committed in units, released.

    It never waits while it holds a lock.  Buckets that others hold are left for the end, and waited
    for one by one with nothing in hand; waiting earlier would make a convoy of several extractions.
    """

    def __init__(
        self, shelf: Shelf, ids: Sequence[str], stale: set[str], report: Report, progress: Callable[[int], object]
    ) -> None:
        self.shelf = shelf
        self.queue = deque(ids)
        self.stale = stale
        self.report = report
        self.progress = progress
        self.later: list[str] = []
        self.write_s = 0.0
        self._locks: dict[int, tuple[FileLock | None, set[str]]] = {}
        self._ready: dict[str, Features] = {}

    def run(self, compute: Any) -> None:
        try:
            self._take(compute, self._claimed())
            for id in self.later:
                with self.shelf.flight.hold([id], TRY_AGAIN_S):
                    if not self._stored_meanwhile(id):
                        self._take(compute, iter([id]))
        finally:
            # What is ready is kept, also when this ends by Ctrl-C or a full disk.
            try:
                self._commit(compute)
            finally:
                for lock, _ in self._locks.values():
                    if lock is not None:
                        lock.release()

    def _take(self, compute: Any, ids: Iterator[str]) -> None:
        for id, result in compute(self.shelf.key, ids):
            outcome = checked(self.shelf, id, result, next(iter(self._ready.values()), None))
            if isinstance(outcome, Features):
                self._ready[id] = outcome
                if len(self._ready) >= UNIT:
                    self._commit(compute)
                continue
            self.report.failed[id] = outcome
            if outcome.deterministic:
                self.shelf.fail(id, outcome)
            self._release(id)
            self.progress(1)
        self._commit(compute)

    def _commit(self, compute: Any) -> None:
        if not self._ready:
            return
        start = time.perf_counter()
        ready, self._ready = self._ready, {}
        self.shelf.put(ready, overwrite=self.stale, keep_stored=True, made_with=described(compute, self.shelf.key))
        self.write_s += time.perf_counter() - start
        self.report.computed += len(ready)
        for id, features in ready.items():
            self._release(id)
            missing_s = (features.provenance or {}).get("note", {}).get("cut_off", {}).get("missing_s")
            if missing_s is not None:
                self.report.cut_off[id] = missing_s
        self.progress(len(ready))

    def _claimed(self) -> Iterator[str]:
        """Ids whose bucket is ours, one by one as the compute has room for them."""
        while self.queue:
            id = self.queue.popleft()
            if not self._claim(id):
                self.later.append(id)
            elif self._stored_meanwhile(id):
                self._release(id)
            else:
                yield id

    def _claim(self, id: str) -> bool:
        bucket = bucket_of(id)
        held = self._locks.get(bucket)
        if held is None:
            try:
                lock = self.shelf.flight.try_hold(bucket)
            except OSError:
                held = self._locks[bucket] = (None, set())  # no locks here: at worst the same work twice
            else:
                if lock is None:
                    return False
                held = self._locks[bucket] = (lock, set())
        held[1].add(id)
        return True

    def _release(self, id: str) -> None:
        bucket = bucket_of(id)
        held = self._locks.get(bucket)
        if held is None:
            return
        held[1].discard(id)
        if not held[1]:
            del self._locks[bucket]
            if held[0] is not None:
                held[0].release()

    def _stored_meanwhile(self, id: str) -> bool:
        if id in self.stale:
            return False
        self.shelf.reader.refresh()
        if id not in self.shelf.reader:
            return False
        self.report.waited += 1
        self.progress(1)
        return True


def stale_ids(shelf: Shelf, samples: Mapping[str, Sample], ids: set[str]) -> Iterator[str]:
    """Stored samples whose media are not those that were read: by size and mtime, and if those differ by digest."""
    for line in shelf.lines():
        sample = samples.get(line["id"]) if line["id"] in ids else None
        if sample is not None and compare(line.get("provenance") or {}, sample.paths()) == "changed":
            yield line["id"]


def _shelf(store: FeatureStore, key: FeatureKey) -> Shelf:
    shelf = store.shelf(key)
    if shelf is None:
        raise ConfigError(f"{key}: nothing is stored and the store has no compute that says under which recipe to look")
    return shelf

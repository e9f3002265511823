"""Extraction: make many samples, several at a time, beside other processes, and survive any end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, overload

from featurestore.compute.counterparts import Counterparts, Verdict
from featurestore.compute.extractor import Extractor, Seconds
from featurestore.errors import ConfigError, StoreError
from featurestore.features import Compute, Failure
from featurestore.fill import Fill
from featurestore.key import FeatureKey
from featurestore.sample import Sample
from featurestore.storage.catalog import as_key
from featurestore.storage.claims import Deferring
from featurestore.storage.failures import FailureRecord
from featurestore.storage.feature_set import FeatureSet, reading
from featurestore.storage.layout import require_writable
from featurestore.storage.maintenance import MERGED_FROM
from featurestore.storage.rows import Row
from featurestore.store import FeatureStore

__all__ = ["ExtractionReport", "extract", "plan"]

logger = logging.getLogger("featurestore")


@dataclass
class ExtractionReport:
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
    """ids whose media changed since they were stored, or are other files now; made again"""
    gone: list[str] = field(default_factory=list)
    """stored ids whose media are not there: whether they changed cannot be told"""
    unnamed: list[str] = field(default_factory=list)
    """stored ids whose samples do not name the files any more that they were made of"""
    failed: dict[str, Failure] = field(default_factory=dict)
    failed_before: dict[str, str] = field(default_factory=dict)
    """id -> message of samples with a record from an earlier run, not tried again"""
    cut_off: dict[str, float | None] = field(default_factory=dict)
    """id -> seconds that the header of a video announces and that are not there, of those computed now; None of a sound
    that begins or ends with a piece of a packet, and does not say"""
    seconds: dict[str, float] = field(default_factory=dict)
    """wall, decode (adds up over the workers), load (of the encoder), encode, write"""

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
            "gone": self.gone,
            "unnamed": self.unnamed,
            "failed": {id: {"reason": f.reason, "message": f.message} for id, f in self.failed.items()},
            "failed_before": self.failed_before,
            "cut_off": self.cut_off,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


@dataclass(frozen=True)
class ExtractionPlan:
    """What `extract` would do."""

    stored: list[str]
    stale: list[str]
    failed_before: dict[str, str]
    todo: list[str]
    """what would be computed: not stored, or stale"""
    gone: list[str]
    """of those stored: their media are not there"""
    unnamed: list[str]
    """of those stored: their samples do not name what they were made of"""


def plan(
    store: FeatureStore,
    key: FeatureKey,
    ids: Sequence[str],
    samples: Mapping[str, Sample] | None = None,
    *,
    retry: bool = False,
) -> ExtractionPlan:
    """Sort ids into stored, stale, failed before and to do.  Reads no media unless its size or mtime changed.

    `retry` counts samples with a record of a failure among those to do.
    """
    ids = list(dict.fromkeys(ids))
    feature_set = _feature_set(store, key)
    with reading(key):
        feature_set.reader.refresh()
        found = verdicts(feature_set, samples, set(ids)) if samples is not None else {}
    stale = {id for id, verdict in found.items() if verdict == "changed"}
    counterparts = Counterparts(samples or {}, key.modality)
    stored, todo, failed = [], [], {}
    records = feature_set.failures.all()
    for id in ids:
        record = records.get(id)
        if id in feature_set.reader and id not in stale:
            stored.append(id)
        elif record is not None and not record.is_void() and not counterparts.outdated(record) and not retry:
            failed[id] = record.message
        else:
            todo.append(id)
    gone, unnamed = ([id for id in stored if found.get(id) == why] for why in ("gone", "unnamed"))
    return ExtractionPlan(stored, [id for id in ids if id in stale], failed, todo, gone, unnamed)


@overload
def extract(  # type: ignore[overload-overlap]  # a text is a sequence of texts too: it is one key
    store: FeatureStore,
    keys: FeatureKey | str,
    ids: Sequence[str] | None = None,
    *,
    retry: bool = False,
    progress: Callable[[int], object] | None = None,
) -> ExtractionReport: ...
@overload
def extract(
    store: FeatureStore,
    keys: Iterable[FeatureKey | str],
    ids: Sequence[str] | None = None,
    *,
    retry: bool = False,
    progress: Callable[[int], object] | None = None,
) -> list[ExtractionReport]: ...
def extract(
    store: FeatureStore,
    keys: FeatureKey | str | Iterable[FeatureKey | str],
    ids: Sequence[str] | None = None,
    *,
    retry: bool = False,
    progress: Callable[[int], object] | None = None,
) -> ExtractionReport | list[ExtractionReport]:
    """Store the features of all `ids` that are not stored yet.

    Rows are committed 64 at a time, and at least every 30 s, so that an end at any moment costs at most those in
    flight.  Other processes may extract the same key at the same time: each sample is made once.

    Args:
        store: With the compute that makes them: an `Extractor`, or any compute whose `ids` may be an iterator.
        keys: A key or its text; or several, which are extracted one after the other.
        ids: Of the samples, under each of the keys; by default all that the `Extractor` was given of a key's dataset.
        retry: Try samples again that have a record of a failure; a record goes when its sample is stored.
        progress: Called with the number of samples that were just made, that failed, or that turned out to be stored,
            by other processes too.

    Returns:
        What was done; of several keys a list, in their order.  A sample that failed is in the report.

    Raises:
        ConfigError: The store has no compute, or `ids` are not given and the compute has no samples of the dataset.
        FeatureStoreError: What concerns all samples: weights, a full disk, a store that cannot be written (before any
            sample is made).

    Example:
        >>> with Extractor({"mine": read_manifest("mine.csv")}) as compute:             # doctest: +SKIP
        ...     report = extract(FeatureStore("features", compute), "mine/frame/CLIP_VIT_LARGE/uniform/8")
    """
    options: dict[str, Any] = {"retry": retry, "progress": progress or _silent}
    if isinstance(keys, FeatureKey | str):
        return _extract(store, as_key(keys), ids, **options)
    return [_extract(store, key, ids, **options) for key in [as_key(key) for key in keys]]


def _silent(count: int) -> None:
    """Progress that nobody watches."""


def _extract(
    store: FeatureStore,
    key: FeatureKey,
    ids: Sequence[str] | None,
    retry: bool,
    progress: Callable[[int], object],
) -> ExtractionReport:
    started = time.perf_counter()
    compute = store.compute
    if compute is None:
        raise ConfigError("extract needs a store with a compute: FeatureStore(root, compute=Extractor(...))")
    samples = compute.sources.get(key.dataset) if isinstance(compute, Extractor) else None
    if ids is None:
        if samples is None:
            raise ConfigError(f"{key}: the compute has no samples of dataset {key.dataset!r}; pass the ids to make")
        ids = list(samples)
    feature_set = _feature_set(store, key)
    wanted = plan(store, key, ids, samples, retry=retry)
    report = ExtractionReport(key, feature_set.fingerprint, len(set(ids)), len(wanted.stored))
    report.failed_before = wanted.failed_before
    report.stale, report.gone, report.unnamed = wanted.stale, wanted.gone, wanted.unnamed
    progress(len(wanted.stored) + len(wanted.failed_before))
    before = _seconds(compute)
    if wanted.todo:
        require_writable(feature_set.layout)
        if isinstance(compute, Extractor):
            compute.probe(key, wanted.todo)
        report.seconds["write"] = _fill(feature_set, compute, wanted, report, progress)
        _tidy(feature_set)
    report.seconds |= {name: value - before[name] for name, value in _seconds(compute).items()}
    report.seconds["wall"] = time.perf_counter() - started
    return report


def _fill(
    feature_set: FeatureSet,
    compute: Compute,
    wanted: ExtractionPlan,
    report: ExtractionReport,
    progress: Callable[[int], object],
) -> float:
    """Make what is to do, as far as no other process does; how many seconds were spent on writing."""
    stale = set(wanted.stale)

    def others(count: int) -> None:
        report.waited += count
        progress(count)

    def stored(id: str, row: Row, ours: bool) -> None:
        report.computed += 1
        note = (row.features.provenance or {}).get("note")  # of a compute of one's own it may be anything
        cut_off = note.get("cut_off") if isinstance(note, Mapping) else None
        if isinstance(cut_off, Mapping) and "missing_s" in cut_off:
            report.cut_off[id] = cut_off["missing_s"]

    def failed(id: str, failure: Failure, record: FailureRecord | None) -> None:
        report.failed[id] = failure

    claim = Deferring(feature_set, wanted.todo, stale, others)
    fill = Fill(feature_set, compute, claim, stored, failed, progress=progress, overwrite=stale)
    with fill.by_the_clock():
        fill.run()
    return fill.write_s


def _seconds(compute: Any) -> dict[str, float]:
    return asdict(compute.seconds if isinstance(compute, Extractor) else Seconds())


def _tidy(feature_set: FeatureSet) -> None:
    """Merge small segments and remove replaced ones.  Every sample is stored by now: what cannot be done can wait."""
    try:
        if len(feature_set.reader.segments) >= MERGED_FROM:
            feature_set.compact()
        feature_set.gc()
        feature_set.publish()
    except StoreError as error:  # no lock is to be had, or no room to merge
        logger.warning(
            "%s: every sample is stored, merging and removing is left to a later run (%s)", feature_set.key, error
        )


def verdicts(feature_set: FeatureSet, samples: Mapping[str, Sample], ids: set[str]) -> dict[str, Verdict]:
    """Of stored samples: whether they were made of the files that their samples name now."""
    counterparts = Counterparts(samples, feature_set.key.modality)
    lines = (line for line in feature_set.lines() if line["id"] in ids and line["id"] in samples)
    return {line["id"]: counterparts.verdict(line["id"], line.get("provenance")) for line in lines}


def _feature_set(store: FeatureStore, key: FeatureKey) -> FeatureSet:
    feature_set = store.feature_set(key)
    if feature_set is None:
        raise ConfigError(f"{key}: nothing is stored and the store has no compute that says under which recipe to look")
    return feature_set

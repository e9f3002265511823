"""A feature set against its samples, in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from featurestore.compute.counterparts import Counterparts, Verdict, own_verdict
from featurestore.errors import FeatureStoreError
from featurestore.key import FeatureKey
from featurestore.quality.findings import Findings
from featurestore.quality.integrity import Damage
from featurestore.sample import Sample
from featurestore.storage.feature_set import FeatureSet


@dataclass
class Unchecked:
    """Stored samples of which nobody can say whether their media changed."""

    gone: list[str] = field(default_factory=list)
    """their media are not there"""
    unnamed: list[str] = field(default_factory=list)
    """the source does not name what they were made of"""
    unrecorded: list[str] = field(default_factory=list)
    """what they were made of was not recorded"""

    def add(self, verdict: Verdict, id: str) -> None:
        """Keep an id, where the verdict says that it was not checked."""
        if verdict in ("gone", "unnamed", "unrecorded"):
            getattr(self, verdict).append(id)


def check_media(damage: Damage, where: str, findings: Findings) -> Unchecked:
    """Without a source: the files that were recorded, where they were, against what they are now."""
    stale, unchecked = [], Unchecked()
    for row in damage.lines():
        verdict = own_verdict(row.get("provenance"))
        unchecked.add(verdict, row["id"])
        if verdict == "changed":
            stale.append(row["id"])
    _tell_stale(stale, where, damage.feature_set, findings)
    return unchecked


def check_coverage(
    feature_set: FeatureSet,
    samples: Mapping[str, Sample],
    where: str,
    damage: Damage,
    findings: Findings,
) -> Unchecked:
    """Samples that are missing, failed, unknown to the source, or made from other bytes than the media have now."""
    key, facts = feature_set.key, facts_of(feature_set)
    stored = set()
    stale, unchecked = [], Unchecked()
    counterparts = Counterparts(samples, feature_set.key.modality)
    for row in damage.lines():
        id = row["id"]
        stored.add(id)
        if id in samples:
            verdict = counterparts.verdict(id, row.get("provenance"))
            unchecked.add(verdict, id)
            if verdict == "changed":
                stale.append(id)
    absent = [id for id in samples if id not in stored]
    every = feature_set.failures.all().items()
    records = {id: each for id, each in every if not each.is_void() and not counterparts.outdated(each)}
    missing = [id for id in absent if id not in records]
    if missing:
        what = f"{len(missing)} of {len(samples)} samples are not stored"
        findings.add("missing", where, what, *missing, advice=f"{in_python('extract', key)} makes them", **facts)
    failed: dict[str, list[str]] = {}
    for id in absent:
        if id in records:
            failed.setdefault(records[id].reason, []).append(id)
    for reason, ids in failed.items():
        what = f"{reason}: {records[ids[0]].message}"
        advice = f"mend the cause, then {in_python('extract', key, 'retry=True')}"
        if len(ids) > 1:
            what = f"{reason}: {len(ids)} samples cannot be made, e.g. {what.removeprefix(f'{reason}: ')}"
            advice = f"`store.failures({str(key)!r})` says of each why; {advice}"
        findings.add("failed", where, what, *ids, advice=advice, **facts)
    extra = sorted(stored - samples.keys())
    if extra:
        advice = "the source may be of one split; else `store.delete(key, ids)` removes them"
        findings.add("extra", where, "stored, but not in the source", *extra, advice=advice, **facts)
    _tell_stale(stale, where, feature_set, findings)
    return unchecked


def in_python(function: str, key: FeatureKey, *more: str) -> str:
    """A call to make next."""
    return f"`featurestore.{function}({', '.join(['store', repr(str(key)), *more])})`"


def facts_of(feature_set: FeatureSet) -> dict[str, Any]:
    """What a command line says by what a program is advised."""
    try:
        return {"key": feature_set.key, "recipe": feature_set.recipe}
    except FeatureStoreError:
        return {"key": feature_set.key}  # a finding of its own


def _tell_stale(ids: Sequence[str], where: str, feature_set: FeatureSet, findings: Findings) -> None:
    if ids:
        advice = f"{in_python('extract', feature_set.key)} makes them again"
        what = "made of other files than the media are now"
        findings.add("stale", where, what, *ids, advice=advice, **facts_of(feature_set))

"""A recipe against the source of its samples, in both directions."""

from __future__ import annotations

from collections.abc import Mapping

from featurestore.extract import is_stale
from featurestore.samples import Sample
from featurestore.shelf import Shelf
from featurestore.verify.damage import Damage
from featurestore.verify.findings import Findings


def check_coverage(shelf: Shelf, samples: Mapping[str, Sample], where: str, damage: Damage, findings: Findings) -> None:
    """Samples that are missing, failed, unknown to the source, or made from other bytes than the media have now."""
    stored = set()
    stale = []
    for line in damage.lines():
        id = line["id"]
        stored.add(id)
        if id in samples and is_stale(line.get("provenance") or {}, samples[id]):
            stale.append(id)
    absent = [id for id in samples if id not in stored]
    records = {id: record for id, record in shelf.failures.all().items() if not record.is_void()}
    missing = [id for id in absent if id not in records]
    if missing:
        what = f"{len(missing)} of {len(samples)} samples are not stored"
        findings.add("missing", where, what, f"run `fstore extract {shelf.key}`", *missing)
    for id in absent:
        if id in records:
            advice = f"mend the cause, then `fstore retry {shelf.key}`"
            findings.add("failed", where, f"{records[id].reason}: {records[id].message}", advice, id)
    extra = sorted(stored - samples.keys())
    if extra:
        advice = "the source may be of one split; else `fstore rm` removes them"
        findings.add("extra", where, "stored, but not in the source", advice, *extra)
    if stale:
        advice = f"`fstore extract {shelf.key}` makes them again"
        findings.add("stale", where, "the media changed since they were read", advice, *stale)

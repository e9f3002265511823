"""A recipe against the source of its samples, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from featurestore.samples import Sample
from featurestore.shelf import Shelf
from featurestore.sources import compare
from featurestore.verify.damage import Damage
from featurestore.verify.findings import Findings


def check_coverage(
    shelf: Shelf,
    samples: Mapping[str, Sample],
    where: str,
    damage: Damage,
    findings: Findings,
    line: Callable[[str], str],
) -> list[str]:
    """Samples that are missing, failed, unknown to the source, or made from other bytes than the media have now.

    line   a command -> the line that an advice names
    Returns ids of stored samples whose media are gone: nobody can say whether they changed.
    """
    stored = set()
    stale, gone = [], []
    for row in damage.lines():
        id = row["id"]
        stored.add(id)
        if id in samples:
            state = compare(row.get("provenance") or {}, samples[id].paths())
            if state == "changed":
                stale.append(id)
            elif state == "gone":
                gone.append(id)
    absent = [id for id in samples if id not in stored]
    records = {id: record for id, record in shelf.failures.all().items() if not record.is_void()}
    missing = [id for id in absent if id not in records]
    if missing:
        what = f"{len(missing)} of {len(samples)} samples are not stored"
        findings.add("missing", where, what, f"run `{line('extract')}`", *missing)
    failed: dict[str, list[str]] = {}
    for id in absent:
        if id in records:
            failed.setdefault(records[id].reason, []).append(id)
    for reason, ids in failed.items():
        what = f"{reason}: {records[ids[0]].message}"
        advice = f"mend the cause, then `{line('retry')}`"
        if len(ids) > 1:
            what = f"{reason}: {len(ids)} samples cannot be made, e.g. {what.removeprefix(f'{reason}: ')}"
            advice = f"`{line('ls --failures')}` says of each why; {advice}"
        findings.add("failed", where, what, advice, *ids)
    extra = sorted(stored - samples.keys())
    if extra:
        advice = "the source may be of one split; else `fstore rm` removes them"
        findings.add("extra", where, "stored, but not in the source", advice, *extra)
    if stale:
        advice = f"`{line('extract')}` makes them again"
        findings.add("stale", where, "the media changed since they were read", advice, *stale)
    return gone

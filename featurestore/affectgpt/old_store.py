"""Old store: copy one of format 1 into a store, bit for bit, with its recipes and its records of failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from featurestore.errors import ConfigError, InputError, InvalidIdError
from featurestore.features import gathered
from featurestore.quality.findings import Finding, Findings
from featurestore.storage.durable import explain
from featurestore.storage.failures import Failures
from featurestore.storage.feature_set import FeatureSet
from featurestore.storage.format_1 import OldSet, is_old_store, old_sets
from featurestore.storage.layout import ensure_levels
from featurestore.storage.maintenance import carried
from featurestore.storage.rows import Row, checked

BATCH_ROWS, BATCH_BYTES = 4096, 64 << 20
COLUMNS = ("frame_indices", "timestamps_s", "provenance")


@dataclass(slots=True)
class SetReport:
    """What became of one feature set."""

    key: str
    recipe: str
    """its fingerprint, the same in both stores"""
    samples: int = 0
    """that are sound"""
    stored: int = 0
    """of them; what would be, where nothing is stored"""
    present: int = 0
    """stored with the same bits before"""
    failures: int = 0
    """records that were copied, or would be"""


@dataclass(slots=True)
class CopyReport:
    """What `copy_store` did, and what it left out."""

    store: str
    sets: list[SetReport] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "old_store": self.store,
            "sets": [asdict(one) for one in self.sets],
            "findings": [finding.as_json() for finding in self.findings],
        }


def copy_store(
    old: Path, new: Path, *, dry_run: bool = False, progress: Callable[[int, int], None] = lambda done, total: None
) -> CopyReport:
    """Copy every sound sample of a store of format 1 that is not in the new one; run again, it stores nothing twice.

    Values, frame indices, timestamps, provenance, recipes and records of failures stay as they are.  What is damaged,
    or stored with other values, is a finding, and left out.
    """
    if is_old_store(new):
        raise ConfigError(f"{new} is a store of format 1 itself: name the folder of a new one")
    findings, report = Findings(), CopyReport(str(old))
    sets = old_sets(old)
    total, done = sum(map(len, sets)), 0
    for one in sets:
        name = f"{one.key}@{one.fingerprint[:8]}"
        try:
            recipe = one.recipe()
        except ValueError as error:
            findings.add("recipe", name, f"{error}; nothing of it was copied")
            continue
        row = SetReport(str(one.key), one.fingerprint)
        report.sets.append(row)
        feature_set = FeatureSet(new, one.key, one.fingerprint, recipe)
        if not dry_run:
            try:
                ensure_levels(feature_set.layout, recipe)
            except OSError as error:
                raise explain(error, f"cannot make the folders of {name}: nothing of it was copied") from error
        for rows, made_with in _batches(one, findings, name):
            fresh = _kept(feature_set, rows, made_with, dry_run)
            other = [id for id in rows if id not in fresh and not _same(feature_set, id, rows[id])]
            if other:
                findings.add("exists", name, "stored with other values in the new store, and left so", *other)
            row.samples += len(rows)
            row.stored += len(fresh)
            row.present += len(rows) - len(fresh) - len(other)
            progress(done := done + len(rows), total)
        for what, why in one.problems.items():
            findings.add("damaged", name, why, what)
        row.failures = _copy_failures(old, feature_set, findings, name, dry_run)
    report.findings = list(findings)
    return report


def _batches(one: OldSet, findings: Findings, name: str) -> Iterator[tuple[dict[str, Row], dict[str, Any]]]:
    """({id: row}, versions that made them), each of some megabytes."""
    rows: dict[str, Row] = {}
    made_with: dict[str, Any] = {}
    size = 0
    for line, values, made in one.samples():
        id = line["id"]
        frames, seconds, provenance = ([column] if (column := line.get(name)) is not None else None for name in COLUMNS)
        try:
            features = gathered([id], [values], frames, seconds, provenance)[id]
            rows[id] = checked(one.key, id, features)
        except (InputError, InvalidIdError) as error:  # sealed, and yet not what a store writes
            findings.add("damaged", name, str(error), f"sample {id!r}")
            continue
        made_with |= carried([made])
        size += values.nbytes
        if len(rows) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield rows, made_with
            rows, made_with, size = {}, {}, 0
    if rows:
        yield rows, made_with


def _kept(feature_set: FeatureSet, rows: dict[str, Row], made_with: dict[str, Any], dry_run: bool) -> set[str]:
    """Those that were not stored before, and are now."""
    if dry_run:
        return {id for id in rows if feature_set.positions([id]) == [None]}
    return {*feature_set.keep(rows, keep_stored=True, made_with=made_with)[0]}


def _same(feature_set: FeatureSet, id: str, row: Row) -> bool:
    values = feature_set.reader.get(id)
    return values is not None and values.shape == row.values.shape and values.tobytes() == row.values.tobytes()


def _copy_failures(old: Path, feature_set: FeatureSet, findings: Findings, name: str, dry_run: bool) -> int:
    """Records of samples that are not stored, and of which there is no other record."""
    layout = feature_set.layout
    folder = old.joinpath(".fstore", *layout.key.parts, layout.fingerprint, "failed")
    failures, count = Failures(folder, layout.fingerprint), 0
    for path in sorted(folder.glob("*.json")):
        try:
            record = failures.read(path)
        except (OSError, ValueError) as error:
            findings.add("record", name, f"a record of a failure cannot be read: {error}", path.name)
            continue
        if feature_set.positions([record.id]) == [None] and feature_set.failures.get(record.id) is None:
            count += 1
            if not dry_run:
                feature_set.failures.keep(record)
    return count

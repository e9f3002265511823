"""System calls that fail: an error in our words, the old data intact, nothing left behind, and the next try works."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import FAULTS, Failing, Fault
from figures import Figures
from mutants import mutant, removes_before_it_replaces
from oracle import ALL, SECOND_RECIPE, Op, Oracle, run

from featurestore import FeatureStore
from featurestore.errors import FeatureStoreError
from featurestore.storage import durable, layout, writer
from featurestore.storage.feature_set import FeatureSet

PUTS = [Op("put", (f"s{number}", f"t{number}"), 1) for number in range(3)]

# name -> (what is there before, what meets the fault)
OPERATIONS: dict[str, tuple[list[Op], Op]] = {
    "first put": ([], Op("put", ("a", "b"), 1)),
    "put": (PUTS[:2], PUTS[2]),
    "put again": (PUTS, PUTS[2]),
    "put of a second recipe": (PUTS[:1], Op("put", ("a",), 1, recipe=SECOND_RECIPE)),
    "put of several lengths": (PUTS[:1], Op("put", ("a", "bb"), 1, key=ALL)),
    "overwrite": (PUTS, Op("overwrite", ("s0", "t1"), 2)),
    "overwrite of several lengths": ([Op("put", ("a", "bb", "ccc"), 1, key=ALL)], Op("overwrite", ("bb",), 2, key=ALL)),
    "delete": (PUTS, Op("delete", ("s0", "t1"))),
    "compact": (PUTS, Op("compact")),
    "compact of several lengths": (
        [Op("put", (f"s{number}", f"t{number}x"), number, key=ALL) for number in (1, 2)],
        Op("compact", key=ALL),
    ),
    "get": (PUTS, Op("get", ("s0", "t1"))),
    "get of several lengths": ([Op("put", ("a", "bb", "ccc"), 1, key=ALL)], Op("get", ("a", "ccc"), key=ALL)),
    "gc": ([*PUTS, Op("overwrite", ("s0",), 2)], Op("gc")),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_any_system_call_may_fail(
    name: str, fast_disk: Path, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    before, op = OPERATIONS[name]
    template = fast_disk / "template"
    shutil.rmtree(template, ignore_errors=True)
    oracle = Oracle()
    template.mkdir()
    run(FeatureStore(template / "features"), oracle, before)
    count = calls_of(template, fast_disk / "disk", op)
    found = []
    cases = [(at, fault) for at in range(count) for fault in FAULTS]
    step = max(1, len(cases) // rounds(250, 1_000_000))
    for at, fault in cases[::step]:
        found += [f"call {at}, {fault}: {what}" for what in wrong(template, fast_disk / "disk", before, op, at, fault)]
    figures.record("failing system calls", len(cases[::step]), "cases", {"lost, wrong or unclear": len(found)})
    assert found[:20] == []


def fresh(template: Path, disk: Path) -> FeatureStore:
    shutil.rmtree(disk, ignore_errors=True)
    shutil.copytree(template, disk)
    layout._durable.clear()
    return FeatureStore(disk / "features")


def calls_of(template: Path, disk: Path, op: Op) -> int:
    store = fresh(template, disk)
    with Failing(disk) as failing:
        op.run(store)
    return len(failing.calls)


def wrong(template: Path, disk: Path, before: list[Op], op: Op, at: int, fault: Fault) -> list[str]:
    """What is not as promised when this call of the operation fails."""
    store = fresh(template, disk)
    oracle = Oracle()
    for earlier in before:
        oracle.begin(earlier)
        oracle.done()
    old = {place: dict(held) for place, held in oracle.held.items()}
    oracle.begin(op)
    error: Exception | None = None
    with Failing(disk, at, fault) as failing:
        try:
            op.run(store)
        except Exception as raised:  # noqa: BLE001 - its type is what is tested
            error = raised
    call = failing.calls[at] if at < len(failing.calls) else "?"
    if error is None:
        oracle.done()
    told = error is not None or fault.code is None or fault.done or fault.code == errno.EACCES
    found = oracle.settle(disk / "features")
    if error is not None and not isinstance(error, FeatureStoreError):
        found.append(f"{type(error).__name__}: {error}")
    if call == "fsync" and not told:
        found.append("nobody was told")
    held = {place: {id: version for id, version in ids.items() if version} for place, ids in oracle.held.items()}
    if "nothing was" in str(error) and {at: ids for at, ids in held.items() if ids} != old:
        found.append(f"not true: {error}")
    try:
        run(store, oracle, [op])
    except Exception as raised:  # noqa: BLE001 - any is a finding
        found.append(f"the next try: {type(raised).__name__}: {raised}")
        oracle.doubt = None
    found += oracle.settle(disk / "features")
    found += [f"left behind: {path}" for path in left_behind(disk / "features", op)]
    return [f"{call}: {what}" for what in found]


def left_behind(root: Path, op: Op) -> list[str]:
    """Files that a later gc does not remove."""
    housekeeping = root / ".fstore"
    old = time.time() - 86_400
    for path in housekeeping.rglob("*"):
        os.utime(path, (old, old))
    feature_set = FeatureStore(root).feature_set(op.key, fingerprint=op.recipe.fingerprint)
    assert feature_set is not None
    feature_set.gc(0)
    files = [path for path in housekeeping.rglob("*") if not path.is_dir() and path.suffix != ".lock"]
    files = [path for path in files if path.name not in ("manifest.json", "manifest.rows", "catalog.json")]
    return [str(path.relative_to(housekeeping)) for path in files]


# What is broken, and the operation whose failing calls show it.
MUTANTS = {
    "a short write counts as a whole one": (
        "put",
        lambda: mutant(durable.write, "while rest:  # a write may be short", "if rest:"),
    ),
    "a failed fsync is passed over": (
        "put",
        lambda: mutant(
            durable.fsync,
            "else:\n        os.fsync(fd)",
            "else:\n        try:\n            os.fsync(fd)\n        except OSError:\n            pass",
        ),
    ),
    "a lost answer to the rename is a no": (
        "put",
        lambda: mutant(writer.commit, "if os.path.exists(target):", "if 0:"),
    ),
    "what cannot be read is not there": (
        "overwrite",
        lambda: mutant(FeatureSet._look, "in self.reader.unread", "in ()"),
    ),
    "old rows go before new ones come": (
        "overwrite",
        removes_before_it_replaces,
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_an_operation_that_passes_over_a_failure_is_caught(name: str, fast_disk: Path, figures: Figures) -> None:
    operation, broken = MUTANTS[name]
    before, op = OPERATIONS[operation]
    template = fast_disk / "template"
    shutil.rmtree(template, ignore_errors=True)
    template.mkdir()
    run(FeatureStore(template / "features"), Oracle(), before)
    with broken():
        cases = [(at, fault) for at in range(calls_of(template, fast_disk / "disk", op)) for fault in FAULTS]
        assert any(wrong(template, fast_disk / "disk", before, op, at, fault) for at, fault in cases)
    figures.caught("failing system calls", name)

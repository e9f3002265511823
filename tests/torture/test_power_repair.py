"""Power cuts in a repair: sound rows stay, damaged ones do not come back in another form, and nothing is deleted."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from figures import Figures
from oracle import KEY, RECIPE, Op, value
from power import State, restore, states
from recorder import Recorder, Recording

from featurestore import FeatureStore
from featurestore.errors import CorruptSegmentError, MissingFeatureError
from featurestore.storage import layout

STORE = "lab/features"
PUTS = [Op("put", (f"s{number}", f"t{number}"), 1) for number in range(3)]


@dataclass(frozen=True)
class Repair:
    """What was done and is durable, which file of which of the segments that count is damaged, and who is sound."""

    ops: tuple[Op, ...]
    segment: int
    file: str
    sound: dict[str, int]
    lost: tuple[str, ...]


REPAIRS = {
    "a row": Repair(tuple(PUTS), 1, "c.0.0.0", {"s0": 1, "t0": 1, "t1": 1, "s2": 1, "t2": 1}, ("s1",)),
    "a whole segment": Repair(tuple(PUTS), 1, "zarr.json", {"s0": 1, "t0": 1, "s2": 1, "t2": 1}, ("s1", "t1")),
    "a segment that replaces another": Repair(
        (*PUTS[:2], Op("overwrite", ("s0",), 2)), 0, "zarr.json", {"s1": 1, "t1": 1}, ("s0", "t0")
    ),
    "a row of a segment that replaces two": Repair(
        (*PUTS[:2], Op("overwrite", ("s0",), 2), Op("overwrite", ("s0",), 3)),
        0,
        "c.0.0.0",
        {"s0": 3, "s1": 1, "t1": 1},
        ("t0",),
    ),
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def record(folder: Path, repair: Repair) -> tuple[Recording, dict[str, bytes]]:
    """The repair, step by step; and what it must not delete: {segment/file: content}."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    store = FeatureStore(folder / STORE)
    for op in repair.ops:
        op.run(store)
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    damaged = feature_set.reader.segments[repair.segment]
    path = Path(damaged.path) / repair.file
    content = bytearray(path.read_bytes())
    row = next(place[1] for id in repair.lost if (place := feature_set.reader.find(id)) is not None)
    if repair.file == damaged.shard_file:
        content[damaged.span(row)[0] * damaged.frame_bytes + 5] ^= 4
    else:
        content[60] ^= 4
    path.write_bytes(content)
    kept = {f"{one.parent.name}/{one.name}": one.read_bytes() for one in Path(damaged.path).iterdir()}
    layout._durable.clear()  # what follows is another process
    with Recorder(folder) as recorder:
        repaired(folder / STORE, repair)
        recorder.mark("done")
    return recorder.recording, kept


def repaired(root: Path, repair: Repair) -> None:
    """As `fstore verify --full --repair` does: read everything, then move aside."""
    feature_set = FeatureStore(root).feature_set(KEY)
    assert feature_set is not None
    for id in (*repair.sound, *repair.lost):
        feature_set.reader.get(id)
    feature_set.quarantine()


def damage(disk: Path, state: State, repair: Repair, kept: dict[str, bytes], acknowledged: bool) -> list[str]:
    """What is lost or wrong after the power comes back, and after the repair is done once more."""
    shutil.rmtree(disk, ignore_errors=True)
    restore(state, disk)
    layout._durable.clear()
    root = disk / STORE
    found = wrong(root, repair, acknowledged) + (deleted(root, kept) if acknowledged else [])
    if not found:
        repaired(root, repair)
        found = [f"after another repair: {one}" for one in wrong(root, repair, True)]
    return found


def wrong(root: Path, repair: Repair, settled: bool) -> list[str]:
    store, found = FeatureStore(root), []
    for id, version in repair.sound.items():
        try:
            if not np.array_equal(store.get(KEY, id), value(id, version)):
                found.append(f"{id} is not that of version {version}")
        except (MissingFeatureError, CorruptSegmentError) as error:
            found.append(f"{id}: {error}")
    for id in repair.lost:
        try:
            store.get(KEY, id)
            found.append(f"{id} came back")
        except MissingFeatureError:
            continue
        except CorruptSegmentError as error:
            found += [f"{id} is still said to be damaged: {error}"] if settled else []
    feature_set = store.feature_set(KEY, fingerprint=RECIPE.fingerprint)
    assert feature_set is not None
    return found + (list(feature_set.reader.problems.values()) if settled else [])


def deleted(root: Path, kept: dict[str, bytes]) -> list[str]:
    """Files of the damaged segment that are not in the quarantine."""
    aside = {path.parent.name: path.parent for path in root.glob(".fstore/**/quarantine/*/zarr.json")}
    return [
        f"{name} is gone"
        for name, content in kept.items()
        if name.partition("/")[0] not in aside
        or (aside[name.partition("/")[0]] / name.partition("/")[2]).read_bytes() != content
    ]


@pytest.fixture(scope="module")
def recordings(fast_disk: Path) -> dict[str, tuple[Recording, dict[str, bytes]]]:
    return {name: record(fast_disk / "repaired", repair) for name, repair in REPAIRS.items()}


def first_damage(disk: Path, recording: Recording, repair: Repair, kept: dict[str, bytes]) -> tuple[int, list[str]]:
    """(states tried, what was wrong in the first that is)."""
    for number, (issued, state) in enumerate(states(recording, random.Random(0), extra=1), 1):
        acknowledged = any(event.kind == "mark" for event in recording.events[:issued])
        found = damage(disk, state, repair, kept, acknowledged)
        if found:
            return number, [f"after {issued} steps: {one}" for one in found]
    return number, []


@pytest.mark.parametrize("name", REPAIRS)
def test_a_power_cut_in_a_repair_deletes_nothing_and_brings_nothing_back(
    name: str, fast_disk: Path, recordings: dict[str, tuple[Recording, dict[str, bytes]]], figures: Figures
) -> None:
    recording, kept = recordings[name]
    count, found = first_damage(fast_disk / "disk", recording, REPAIRS[name], kept)
    figures.record("power cuts in a repair", count, "states of the disk", {"lost or wrong": len(found)})
    assert found == []


def test_every_fsync_of_a_repair_is_needed(
    fast_disk: Path, recordings: dict[str, tuple[Recording, dict[str, bytes]]], figures: Figures
) -> None:
    """Those of `quarantine` itself; those of a commit have a test of their own."""
    sites = {site for recording, _ in recordings.values() for site in recording.sites if "_set_aside" in site}
    assert len(sites) >= 3
    for site in sites:
        assert any(
            first_damage(fast_disk / "disk", recording.without(site), REPAIRS[name], kept)[1]
            for name, (recording, kept) in recordings.items()
        ), site
        figures.caught("power cuts in a repair", f"without the fsync in {site}")

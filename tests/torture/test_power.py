"""Power cuts: whatever a cut leaves on the disk, what was acknowledged is there, and every fsync is needed."""

from __future__ import annotations

import functools
import itertools
import json
import random
import shutil
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import crash_workers
import pytest
from figures import Figures
from mutants import commits_file_by_file, mutant
from oracle import ALL, SECOND_RECIPE, Op, Oracle, run
from power import State, restore, states
from recorder import Killed, Recorder, Recording
from workers import run_all

from featurestore import FeatureKey, FeatureStore, Recipe
from featurestore.errors import FeatureStoreError
from featurestore.storage import layout, manifest, reader
from featurestore.storage.reader import seal_of

STORE = "lab/features"
PARTS = 4  # that are tried side by side
PUTS = [Op("put", (f"s{number}", f"t{number}"), 1) for number in range(3)]

# name -> (what was done before and is durable, what the power is cut in)
SCENARIOS: dict[str, tuple[list[Op], list[Op]]] = {
    "the first commit ever": ([], [Op("put", ("a", "b"), 1)]),
    "later commits": (PUTS[:1], PUTS[1:]),
    "a second recipe": (PUTS[:1], [Op("put", ("a",), 1, recipe=SECOND_RECIPE)]),
    "samples of several lengths": (
        [],
        [Op("put", ("a", "bb", "ccc"), 1, key=ALL), Op("overwrite", ("a", "bb"), 2, key=ALL), Op("compact", key=ALL)],
    ),
    "overwrite": (PUTS, [Op("overwrite", ("s0", "t1"), 2), Op("gc"), Op("overwrite", ("s0", "s2"), 3)]),
    "delete": (PUTS, [Op("delete", ("s0", "t1")), Op("gc")]),
    "delete everything": (PUTS[:1], [Op("delete", ("s0", "t0")), Op("gc"), Op("put", ("s0",), 5)]),
    "compact": (PUTS, [Op("compact"), Op("put", ("a",), 4), Op("compact")]),
    "remove": (PUTS, [Op("remove"), Op("put", ("s0",), 5)]),
    "replaced twice, then gc": (
        [*PUTS, Op("overwrite", ("s0",), 2), Op("overwrite", ("s0", "s1"), 3)],
        [Op("overwrite", ("s0",), 4), Op("delete", ("s1",)), Op("gc"), Op("gc")],
    ),
}


def record(folder: Path, before: list[Op], ops: list[Op]) -> Recording:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    store = FeatureStore(folder / STORE)
    for op in before:
        op.run(store)
    layout._durable.clear()  # what follows is another process
    with Recorder(folder) as recorder:
        for number, op in enumerate(ops):
            recorder.mark(f"begin {number}")
            op.run(store)
            recorder.mark(f"done {number}")
    return recorder.recording


def oracle_at(recording: Recording, issued: int, before: list[Op], ops: list[Op]) -> Oracle:
    """What had been acknowledged, and what was in doubt, after that many events."""
    oracle = Oracle()
    for op in before:
        oracle.begin(op)
        oracle.done()
    for event in recording.events[:issued]:
        if event.kind == "mark":
            what, number = event.name.split()
            oracle.begin(ops[int(number)]) if what == "begin" else oracle.done()
    return oracle


def damage(disk: Path, state: State, oracle: Oracle, go_on: bool) -> list[str]:
    """What is lost or wrong after the power comes back, and after the work in doubt is done once more."""
    shutil.rmtree(disk, ignore_errors=True)
    restore(state, disk)
    layout._durable.clear()
    doubt, root = oracle.doubt, disk / STORE
    acknowledged = {place for place, ids in oracle.held.items() if any(ids.values())}
    merged = set(oracle.merged)
    found = oracle.settle(root)
    acknowledged = {place for place in acknowledged if any(oracle.held[place].values())}  # not removed meanwhile
    found += [f"no Zarr group at {level}" for place in acknowledged for level in levels_without_group(root, *place)]
    found += [f"{path} does not say what zarr.json says" for path in wrong_second_lists(root)]
    found += [what for place in merged for what in wrong_manifest(root, *place)]
    if go_on and not found and doubt is not None:
        if doubt.name in ("put", "overwrite") or any(any(ids.values()) for ids in oracle.held.values()):
            run(FeatureStore(root), oracle, [doubt])
        found += oracle.settle(root)
    return found


def wrong_manifest(root: Path, key: FeatureKey, recipe: Recipe) -> list[str]:
    """What a merge that was acknowledged said for readers that cannot list, and is not there."""
    feature_set = FeatureStore(root).feature_set(key, fingerprint=recipe.fingerprint)
    assert feature_set is not None
    try:
        said = manifest.read_manifest(feature_set.layout)
        catalog = (root / ".fstore" / "catalog.json").read_bytes()
        listed = json.loads(catalog)["keys"].get(str(key), ())
    except (OSError, ValueError, FeatureStoreError) as error:
        return [f"no manifest of {key}: {error}"]
    there = [segment.name for segment in feature_set.reader.segments]
    found = [f"the manifest of {key} names {said['segments']}"] * ([one["name"] for one in said["segments"]] != there)
    rows = feature_set.layout.manifest_rows
    whole = rows.exists() and blake2b(rows.read_bytes(), digest_size=32).hexdigest() == said["rows"]["blake2b"]
    found += [f"the records of {key} are not those of its manifest"] * (not whole)
    return found + [f"the catalog lacks {key}"] * (recipe.fingerprint not in listed or len({*seal_of(catalog)}) > 1)


def wrong_second_lists(root: Path) -> list[Path]:
    """Files `replaces` that would be of no use when their zarr.json is damaged one day."""
    wrong = []
    for document in root.glob("data/**/segments/*-*/zarr.json"):
        try:
            names = json.loads(document.read_bytes())["attributes"]["featurestore"]["replaces"]
        except ValueError:
            continue  # found by what can be read
        path = document.with_name("replaces")
        if (path.read_text().split() if path.exists() else []) != names:
            wrong.append(path)
    return wrong


def levels_without_group(root: Path, key: FeatureKey, recipe: Recipe) -> list[Path]:
    """Levels from `data` to `segments` that a Zarr client could not open."""
    bad = []
    parts = ("data", *key.parts, recipe.fingerprint, "segments")
    folders = [root.joinpath(*parts[: depth + 1]) for depth in range(len(parts))]
    for folder in folders:
        try:
            assert json.loads((folder / "zarr.json").read_bytes())["node_type"] == "group"
        except (OSError, ValueError, AssertionError):
            bad.append(folder)
    return bad


@pytest.fixture(scope="module")
def recordings(fast_disk: Path) -> dict[str, Recording]:
    return {name: record(fast_disk / "recorded", *ops) for name, ops in SCENARIOS.items()}


def record_killed(folder: Path, op: Op, kill_after: int) -> tuple[Recording, bool]:
    """One process is killed in its commit, another one makes the same commit; whether the first came to its end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    layout._durable.clear()
    with Recorder(folder, kill_after) as recorder:
        try:
            op.run(FeatureStore(folder / STORE))
            finished = True
        except Killed:
            finished = False
        recorder.kill_after = None
        layout._durable.clear()
        op.run(FeatureStore(folder / STORE))
    return recorder.recording, finished


def history(seed: int) -> tuple[list[Op], list[Op]]:
    """Operations at random, as those of the victims of kill -9: six that are durable, six in which the power is cut."""
    random_, oracle = random.Random(seed), Oracle()
    ops: list[Op] = []
    while len(ops) < 12:
        line = crash_workers.choose(random_, 0, oracle, seed)
        if line is not None and line[0] != "get":
            ops.append(crash_workers.op_of(*line))
            oracle.begin(ops[-1])
            oracle.done()
    return ops[:6], ops[6:]


def cut(folder: Path, name: str, most: int, extra: int, part: int) -> tuple[int, list[str]]:
    """(states of a scenario or a history that were tried, damage), of one part of them."""
    before, ops = SCENARIOS[name] if name in SCENARIOS else history(int(name))
    recording = record(folder / f"recorded {part}", before, ops)
    todo = list(states(recording, random.Random(name), extra))
    some = random.Random(name).sample(todo, min(len(todo), most))[part::PARTS]
    found = [
        f"{name}, {issued} steps: {what}"
        for issued, state in some
        for what in damage(folder / f"disk {part}", state, oracle_at(recording, issued, before, ops), True)
    ]
    return len(some), found


@pytest.mark.timeout(0)
def test_nothing_acknowledged_is_lost_in_a_power_cut(
    fast_disk: Path, long_run: bool, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    """Moments of every scenario get their share of the states, whatever their number; histories at random the rest."""
    count, checked = rounds(5_000, 100_000), 0
    names = itertools.chain(SCENARIOS, map(str, itertools.count()))
    while checked < count:
        name, most = next(names), min(count // 10, count - checked)
        extra = 100 if long_run and name in SCENARIOS else 4
        for tried, found in run_all([functools.partial(cut, fast_disk, name, most, extra, i) for i in range(PARTS)]):
            figures.record("power cuts", tried, "states of the disk", {"lost or wrong": len(found)})
            assert found[:20] == []
            checked += tried


def test_every_fsync_is_needed(fast_disk: Path, recordings: dict[str, Recording], figures: Figures) -> None:
    """Left out of the source one at a time, each is missed: a state of the disk exists that loses something."""
    sites = {site for recording in recordings.values() for site in recording.sites}
    missed = {site: name for site in sorted(sites) if (name := where_missed(fast_disk, recordings, site)) is not None}
    for site in missed:
        figures.caught("power cuts", f"no fsync in {site.partition(' > durable')[0]}")
    assert sites - missed.keys() == set()


def first_damage(disk: Path, name: str, recording: Recording, first: int = 0) -> list[str]:
    """What is wrong in the first state of a scenario in which something is, from some event on."""
    before, ops = SCENARIOS[name]
    for issued, state in states(recording, random.Random(0), first=first):
        if found := damage(disk, state, oracle_at(recording, issued, before, ops), False):
            return found
    return []


def test_a_document_that_is_not_written_last_is_caught(fast_disk: Path, figures: Figures) -> None:
    """Who copies a segment file by file cannot rename it into place: the order is what holds."""
    for name in ("the first commit ever", "overwrite", "samples of several lengths"):
        with commits_file_by_file(document_last=True):
            assert first_damage(fast_disk / "disk", name, record(fast_disk / "recorded", *SCENARIOS[name])) == []
        with commits_file_by_file(document_last=False):
            assert first_damage(fast_disk / "disk", name, record(fast_disk / "recorded", *SCENARIOS[name])) != []
    figures.caught("power cuts", "zarr.json first")


def test_replaces_that_counts_without_a_document_is_caught(fast_disk: Path, figures: Figures) -> None:
    with commits_file_by_file(document_last=True):
        recording = record(fast_disk / "recorded", *SCENARIOS["overwrite"])
    with mutant(reader.Reader._open_all, 'if file == "zarr.json":', "if False:"):
        assert first_damage(fast_disk / "disk", "overwrite", recording) != []
    figures.caught("power cuts", "`replaces` counts without a zarr.json")


def where_missed(fast_disk: Path, recordings: dict[str, Recording], site: str) -> str | None:
    """The scenario in which a power cut does damage where this fsync is left out."""
    for name, recording in recordings.items():
        left_out = [
            number for number, event in enumerate(recording.events) if (event.kind, event.name) == ("fsync", site)
        ]
        # Up to there nothing differs, and all is well.
        if left_out and first_damage(fast_disk / "disk", name, recording.without(site), left_out[0]):
            return name
    return None


def test_what_a_killed_writer_left_without_fsync_is_made_durable_by_the_next(fast_disk: Path, figures: Figures) -> None:
    op = Op("put", ("a", "b"), 1)
    found: list[str] = []
    checked, kill_after, finished = 0, 0, False
    while not finished:
        recording, finished = record_killed(fast_disk / "recorded", op, kill_after)
        for _, state in states(recording, random.Random(0), first=len(recording.events)):
            oracle = Oracle()
            oracle.begin(op)
            oracle.done()
            found += [
                f"killed after {kill_after} steps: {one}" for one in damage(fast_disk / "disk", state, oracle, False)
            ]
            checked += 1
        kill_after += 1
    figures.record("power cuts after a kill", checked, "states of the disk", {"lost or wrong": len(found)})
    assert found[:20] == []

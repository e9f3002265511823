"""Overwrite, delete, compact, quarantine and gc: one segment replaces others, and nothing comes back."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_factories import ALL, DIM, KEY, RECIPE, batch, fill, flip, header_of, rows_of, segment_dirs, values_of

from featurestore import FeatureKey, FeatureStore, Recipe
from featurestore.errors import CorruptSegmentError
from featurestore.storage import maintenance as room
from featurestore.storage import writer as segment_room
from featurestore.storage.feature_set import FeatureSet
from featurestore.storage.layout import Layout

IDS = ["a", "b", "c", "d"]


def feature_set_of(root: Path, key: FeatureKey = KEY) -> FeatureSet:
    feature_set = FeatureStore(root).feature_set(key)
    assert feature_set is not None
    return feature_set


def names(root: Path, key: FeatureKey = KEY) -> list[str]:
    return [path.name for path in segment_dirs(root, key)]


def stored(root: Path, key: FeatureKey = KEY) -> dict[str, bytes]:
    """What a new object reads."""
    store = FeatureStore(root)
    return {id: store.get(key, id).tobytes() for id in store.ids(key)}


def expected(**values: str) -> dict[str, bytes]:
    return {id: values_of(value).tobytes() for id, value in values.items()}


def grow_old(root: Path, seconds: float) -> None:
    """Let time pass for everything below a store."""
    then = time.time() - seconds
    for path in root.rglob("*"):
        os.utime(path, (then, then))


# -- replacing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_bytes", [room.MAX_BYTES, DIM * 4])
def test_an_overwrite_is_one_segment_whatever_the_lengths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_bytes: int
) -> None:
    """So that nobody sees one of two samples replaced, and a killed one has replaced nothing."""
    store = FeatureStore(tmp_path)
    rows = [values_of(id, 1) for id in "xyz"]
    store.put_many(ALL, ["x", "y", "z"], rows, recipe=RECIPE)
    (old,) = names(tmp_path, ALL)
    monkeypatch.setattr(room, "MAX_BYTES", max_bytes)
    store.put_many(ALL, ["x", "z"], [values_of("v", 2), values_of("w", 5)], recipe=RECIPE, overwrite=True)
    (new,) = set(names(tmp_path, ALL)) - {old}
    path = segment_dirs(tmp_path, ALL)[names(tmp_path, ALL).index(new)]
    assert header_of(path)["replaces"] == [old]
    assert stored(tmp_path, ALL) == {
        id: values_of(value, n).tobytes() for id, value, n in (("x", "v", 2), ("y", "y", 1), ("z", "w", 5))
    }


def test_a_delete_is_one_segment_with_the_survivors(tmp_path: Path) -> None:
    store = fill(tmp_path, IDS, ["e"])
    old, other = names(tmp_path)
    store.delete(KEY, ["b", "d"])
    (new,) = set(names(tmp_path)) - {old, other}
    path = segment_dirs(tmp_path)[names(tmp_path).index(new)]
    assert header_of(path)["replaces"] == [old]
    assert (path / "replaces").read_text() == f"{old}\n"
    assert int(new[:20]) == int(old[:20]) - 1
    assert stored(tmp_path) == expected(a="a", c="c", e="e")


def test_replaces_names_all_that_its_predecessors_replace_and_is_still_there(tmp_path: Path) -> None:
    store = fill(tmp_path, IDS)
    for id in ("a", "b", "c"):
        store.delete(KEY, [id])
    replaced = [set(header_of(path)["replaces"]) for path in segment_dirs(tmp_path)]
    assert sorted(map(len, replaced)) == [0, 1, 2, 3]
    # Whichever of the replaced ones goes, nothing of another comes back.
    for path in segment_dirs(tmp_path):
        if len(header_of(path)["replaces"]) < 3:
            away = tmp_path / "away"
            shutil.move(path, away)
            assert stored(tmp_path) == expected(d="d")
            shutil.move(away, path)


def test_an_id_stored_twice_is_deleted_and_overwritten_wherever_it_is(tmp_path: Path) -> None:
    store = fill(tmp_path, ["a", "b"])
    feature_set = feature_set_of(tmp_path)
    later = rows_of({"a": values_of("second")})
    segment_room.commit(feature_set.layout, Recipe(RECIPE), later)
    assert stored(tmp_path) == expected(a="a", b="b")
    store.put_many(KEY, ["a"], batch(["x"]), recipe=RECIPE, overwrite=True)
    assert stored(tmp_path) == expected(a="x", b="b")
    segment_room.commit(feature_set.layout, Recipe(RECIPE), later)
    assert stored(tmp_path) == expected(a="x", b="b")
    store.delete(KEY, ["a"])
    assert stored(tmp_path) == expected(b="b")


def test_what_is_kept_beside_a_row_goes_with_it(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.put_many(
        KEY,
        IDS,
        batch(IDS),
        recipe=RECIPE,
        frame_indices=np.arange(16).reshape(4, 4),
        timestamps_s=np.arange(16).reshape(4, 4) / 3,
        provenance=[{"sources": [], "note": {"é": number}} for number in range(4)],
    )
    fill(tmp_path, ["e"])
    store.delete(KEY, ["a"])
    store.compact(KEY)
    features = FeatureStore(tmp_path).get_features(KEY, "c")
    assert features.frame_indices is not None
    assert features.timestamps_s is not None
    assert features.frame_indices.tolist() == [8, 9, 10, 11]
    assert features.timestamps_s.tolist() == [8 / 3, 9 / 3, 10 / 3, 11 / 3]
    assert features.provenance == {"sources": [], "note": {"é": 2}}


ACTIONS: dict[str, Callable[[FeatureStore], Any]] = {
    "delete": lambda store: store.delete(KEY, ["a"]),
    "overwrite": lambda store: store.put_many(KEY, ["b"], batch(["x"]), recipe=RECIPE, overwrite=True),
    "compact": lambda store: store.compact(KEY),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_is_replaced_by_a_copy_of_damage(tmp_path: Path, action: str) -> None:
    """Also where the damaged row is not the one that is meant, and was read well before."""
    store = fill(tmp_path, IDS, ["e"])
    store.get_many(KEY, IDS)
    flip(segment_dirs(tmp_path)[0] / "c.0.0.0", 2 * 4 * DIM * 4)  # of "c"
    before = names(tmp_path)
    for one in (store, FeatureStore(tmp_path)):
        with pytest.raises(CorruptSegmentError, match=r"; nothing was replaced, repair it first; `.*repair=True"):
            ACTIONS[action](one)
        assert names(tmp_path) == before
    # A reader that knows of the damage does not copy the rest and call it whole.
    store = FeatureStore(tmp_path)
    assert store.missing(KEY, ["c"]) == []
    with pytest.raises(CorruptSegmentError):
        store.get(KEY, "c")
    if action == "compact":
        assert store.compact(KEY) == 0
    else:
        with pytest.raises(CorruptSegmentError, match="nothing was replaced"):
            store.delete(KEY, ["a"])
    assert names(tmp_path) == before


# -- compact -----------------------------------------------------------------------------------------


def test_compact_merges_all_that_fits_and_changes_nothing_that_is_read(tmp_path: Path) -> None:
    units = [[f"s{unit}-{row}" for row in range(3)] for unit in range(10)]
    store = fill(tmp_path, *units)
    store.delete(KEY, ["s3-1"])
    before = stored(tmp_path)
    first = names(tmp_path)[0]
    assert store.compact(KEY) == 10
    feature_set = feature_set_of(tmp_path)
    (segment,) = feature_set.reader.segments
    assert segment.n == 29
    assert int(segment.name[:20]) == int(first[:20]) - 1
    assert stored(tmp_path) == before
    assert store.compact(KEY) == 0
    feature_set.gc(0)
    assert names(tmp_path) == [segment.name]
    assert stored(tmp_path) == before


def test_segments_of_at_most_a_gigabyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row, index = 4 * DIM * 4, 16 + 4  # a segment as it is stored has that too
    monkeypatch.setattr(room, "MAX_BYTES", 5 * row + 3 * index)
    store = fill(tmp_path, ["a", "b"], ["c", "d"], ["e"], ["f", "g", "h"], ["i"], list("jklmnopqrst"))
    # A batch that is larger than a segment may be is split as it is put.
    assert [segment.n for segment in feature_set_of(tmp_path).reader.segments][5:] == [5, 5, 1]
    store.compact(KEY)
    assert [segment.n for segment in feature_set_of(tmp_path).reader.segments] == [5, 4, 5, 5, 1]
    assert store.compact(KEY) == 0
    assert stored(tmp_path) == expected(**{id: id for id in "abcdefghijklmnopqrst"})


def test_lexically_first_answers_the_same_before_and_after(tmp_path: Path) -> None:
    """Also against a copy that another process commits meanwhile, with a time between those that are merged."""
    feature_set = None
    for time_ns, value in ((10, "first"), (20, "second"), (30, "third")):
        rows = rows_of({"x": values_of(value), value: values_of(value)})
        layout = Layout(tmp_path, KEY, Recipe(RECIPE).fingerprint)
        segment_room.commit(layout, Recipe(RECIPE), rows, time_ns=time_ns)
        feature_set = feature_set_of(tmp_path)
    before = stored(tmp_path)
    assert before["x"] == values_of("first").tobytes()
    assert feature_set is not None
    feature_set.compact()
    segment_room.commit(feature_set.layout, Recipe(RECIPE), rows_of({"x": values_of("late")}), time_ns=15)
    assert stored(tmp_path) == before


def test_a_sample_above_the_size_of_a_segment_has_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_BYTES", 6 * DIM * 4 + 40)
    lengths = {"a": 2, "b": 3, "large": 9, "c": 1, "d": 5}
    store = FeatureStore(tmp_path)
    store.put_many(ALL, list(lengths), [values_of(id, n) for id, n in lengths.items()], recipe=RECIPE)

    def segments() -> list[list[str]]:
        return [[line["id"] for _, line in one.lines()] for one in feature_set_of(tmp_path, ALL).reader.segments]

    assert segments() == [["a", "b"], ["large"], ["c", "d"]]
    for merged in (0, 0):
        assert store.compact(ALL) == merged
    store.delete(ALL, ["c"])
    store.put_many(ALL, ["large"], [values_of("larger", 11)], recipe=RECIPE, overwrite=True)
    assert sorted(segments()) == [["a", "b"], ["d"], ["large"]]
    lengths["large"] = 11
    del lengths["c"]
    values = {id: values_of("larger" if id == "large" else id, n) for id, n in lengths.items()}
    assert stored(tmp_path, ALL) == {id: one.tobytes() for id, one in values.items()}


def test_samples_of_all_lengths_are_merged_into_one_segment(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    lengths = {f"s{number}": 1 + number % 3 for number in range(9)}
    for id, n in lengths.items():
        store.put_many(ALL, [id], [values_of(id, n)], recipe=RECIPE)
    assert store.compact(ALL) == 9
    (segment,) = feature_set_of(tmp_path, ALL).reader.segments
    assert segment.array_shape == (18, DIM)
    for id, n in lengths.items():
        np.testing.assert_array_equal(FeatureStore(tmp_path).get(ALL, id), values_of(id, n))


def test_a_merge_reads_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fill(tmp_path, [f"s{number}" for number in range(300)], ["x"])
    monkeypatch.setattr(room, "_BLOCK_BYTES", 10 * 4 * DIM * 4)
    before, sizes = stored(tmp_path), []
    commit = segment_room.commit

    def counting(layout: Layout, recipe: Recipe, rows: Any, **options: Any) -> str:
        blocks = (sizes.append(len(block)) or block for block in rows.blocks)
        return commit(layout, recipe, replace(rows, blocks=blocks), **options)

    monkeypatch.setattr(room, "commit", counting)
    assert store.compact(KEY) == 2
    assert (max(sizes), sum(sizes)) == (40, 301 * 4)
    assert stored(tmp_path) == before


# -- gc ----------------------------------------------------------------------------------------------


def test_replaced_segments_stay_for_a_grace_and_then_go(tmp_path: Path) -> None:
    store = fill(tmp_path, ["a"], ["b"])
    store.compact(KEY)
    feature_set = feature_set_of(tmp_path)
    assert (feature_set.gc(), len(names(tmp_path))) == (0, 3)
    grow_old(tmp_path, room.GRACE_S + 1)
    assert (feature_set.gc(), len(names(tmp_path))) == (2, 1)
    assert stored(tmp_path) == expected(a="a", b="b")
    assert feature_set.gc(0) == 0


def test_the_oldest_generation_goes_first_and_each_is_durable_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fill(tmp_path, IDS)
    for id in ("a", "b", "c"):
        store.delete(KEY, [id])
    order = sorted(segment_dirs(tmp_path), key=lambda path: len(header_of(path)["replaces"]))
    done: list[str] = []
    rename, fsync_dir = os.rename, room.fsync_dir
    monkeypatch.setattr(room.os, "rename", lambda old, new: done.append(Path(old).name) or rename(old, new))
    monkeypatch.setattr(room, "fsync_dir", lambda path: done.append("fsync") or fsync_dir(path))
    assert feature_set_of(tmp_path).gc(0) == 3
    assert done == [step for path in order[:3] for step in (path.name, "fsync")]
    assert stored(tmp_path) == expected(d="d")


def test_an_empty_segment_goes_when_there_is_nothing_left_that_it_replaces(tmp_path: Path) -> None:
    store = fill(tmp_path, ["a"], ["b"])
    store.delete(KEY, ["a", "b"])
    assert sorted(segment.n for segment in feature_set_of(tmp_path).reader.segments) == [0]
    assert feature_set_of(tmp_path).gc(0) == 3
    assert names(tmp_path) == []
    assert stored(tmp_path) == {}
    fill(tmp_path, ["a"])
    assert stored(tmp_path) == expected(a="a")


def test_what_a_killed_writer_left_goes_and_what_a_live_one_writes_stays(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    feature_set = feature_set_of(tmp_path)
    tmp = feature_set.layout.housekeeping / "tmp"
    for name in ("killed", "live"):
        (tmp / name).mkdir()
        (tmp / name / "c.0.0.0").write_bytes(b"x")
    (tmp / "left.json").write_bytes(b"{}")
    assert feature_set.gc(0) == 0  # young: somebody may be at work
    grow_old(tmp, room.GRACE_S + 1)
    (tmp / "live" / "c.0.0.0").write_bytes(b"xx")  # the directory is as old as before, its file is not
    os.utime(tmp / "live", (1, 1))
    assert feature_set.gc() == 2
    assert [path.name for path in tmp.iterdir()] == ["live"]


def test_gc_does_not_mind_a_writer_that_commits_while_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, ["a"])
    feature_set = feature_set_of(tmp_path)
    staged = feature_set.layout.housekeeping / "tmp" / "just now"
    staged.mkdir()
    real = room.touched

    def late(path: str) -> float:
        staged.rmdir()
        return real(path)

    monkeypatch.setattr(room, "touched", late)
    assert feature_set.gc(0) == 0


# -- quarantine --------------------------------------------------------------------------------------


def test_quarantine_moves_the_damaged_and_keeps_the_sound_rows(tmp_path: Path) -> None:
    fill(tmp_path, IDS, ["e", "f"], ["g"])
    first, second, third = segment_dirs(tmp_path)
    flip(first / "c.0.0.0", 2 * 4 * DIM * 4)  # one row
    flip(second / "zarr.json", 50)  # all of it
    store = FeatureStore(tmp_path)
    with pytest.raises(CorruptSegmentError):
        store.get(KEY, "c")
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    assert feature_set.quarantine() == sorted([first.name, second.name])
    assert stored(tmp_path) == expected(a="a", b="b", d="d", g="g")
    folder = feature_set.layout.housekeeping / "quarantine"
    assert sorted(path.name for path in folder.iterdir()) == sorted([first.name, second.name])
    assert (folder / first.name / "c.0.0.0").is_file()  # never deleted
    assert third.is_dir()
    assert not feature_set.reader.problems
    assert feature_set.quarantine() == []
    fill(tmp_path, ["c"])
    assert stored(tmp_path) == expected(a="a", b="b", c="c", d="d", g="g")


def test_what_a_quarantined_segment_replaced_does_not_come_back(tmp_path: Path) -> None:
    store = fill(tmp_path, IDS)
    store.put_many(KEY, ["a"], batch(["x"]), recipe=RECIPE, overwrite=True)
    (new,) = [path for path in segment_dirs(tmp_path) if header_of(path)["replaces"]]
    flip(new / "rows", 3)
    feature_set = feature_set_of(tmp_path)
    assert len(feature_set.quarantine()) == 2
    assert stored(tmp_path) == {}


def test_removing_a_recipe_leaves_nothing_of_it_but_what_was_quarantined(tmp_path: Path) -> None:
    store = fill(tmp_path, IDS)
    feature_set = feature_set_of(tmp_path)
    feature_set.remove()
    assert FeatureStore(tmp_path).keys() == []
    store.refresh()
    assert store.ids(KEY) == []
    assert store.put_many(KEY, ["a"], batch(["x"]), recipe=RECIPE) == 1
    assert stored(tmp_path) == expected(a="x")

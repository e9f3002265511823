"""The read path: what it returns, what it notices, and what it survives."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import mmap
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray
from store_factories import (
    ALL,
    DIM,
    KEY,
    RECIPE,
    batch,
    fill,
    flip,
    header_of,
    recipe_dir,
    reseal,
    segment_dirs,
    values_of,
)

from featurestore import FeatureStore, Recipe
from featurestore.storage import reader as room
from featurestore.storage.feature_set import FeatureSet
from featurestore.storage.reader import (
    RECORD,
    CorruptRowError,
    Form,
    FramesError,
    Reader,
    Segment,
    SortedTable,
    UnknownFormatError,
    open_key,
)
from featurestore.storage.writer import Rows, commit, row_line

IDS = ["a", "b", "c", "d"]
MODULE = Path(room.__file__)


def open_reader(root: Path) -> Reader:
    return open_key(str(root), str(KEY))


def commit_row(feature_set: FeatureSet, id: str, values: NDArray[Any], time_ns: int) -> None:
    """A segment of one row with a name of its own, past all checks."""
    rows = Rows(
        Form(values.shape[1:], values.dtype, ("feature",)),
        len(values),
        [len(values)],
        [row_line(id, None, None, None)],
        [id],
        [values],
    )
    commit(feature_set.layout, Recipe(RECIPE), rows, time_ns=time_ns)


def places_of(reader: Reader, id: str) -> tuple[Segment, int]:
    place = reader.find(id)
    assert place is not None
    return place


# -- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_come_back_bit_for_bit_in_their_dtype(tmp_path: Path, dtype: Any) -> None:
    fill(tmp_path, IDS, dtype=dtype)
    reader = open_reader(tmp_path)
    for _ in range(3):  # checked, mapped, mapped
        for id in IDS:
            values = reader.get(id)
            assert values.dtype == dtype
            assert values.tobytes() == values_of(id, dtype=dtype).tobytes()
            assert values.flags.c_contiguous
            assert values.flags.writeable
            assert values.flags.owndata
            values[:] = 0  # ours to change: the next read is not touched
    assert reader.get_many(IDS).tobytes() == batch(IDS, dtype).tobytes()
    assert reader.get_many(IDS).flags.c_contiguous
    assert reader.get("nobody") is None


def test_a_batch_keeps_the_order_and_the_duplicates_of_the_request(tmp_path: Path) -> None:
    fill(tmp_path, IDS, ["e", "f"])
    asked = ["f", "a", "a", "d", "e", "a"]
    reader = open_reader(tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(reader.get_many(asked), batch(asked))
    out = np.empty((6, 4, DIM), np.float32)
    assert reader.get_many(asked, out) is out
    np.testing.assert_array_equal(out, batch(asked))


def test_an_out_of_another_form_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    fill(tmp_path, IDS)
    reader = open_reader(tmp_path)
    read_only = np.empty((1, 4, DIM), np.float32)
    read_only.flags.writeable = False
    for out in (
        np.empty((1, 4, DIM)),
        np.empty((2, 4, DIM), np.float32),
        np.empty((1, 4, 2 * DIM), np.float32)[:, :, ::2],
        read_only,
    ):
        with pytest.raises(ValueError, match="stored dtype"):
            reader.get_many(["a"], out)
    assert not reader.problems


def test_a_batch_with_something_absent_names_it(tmp_path: Path) -> None:
    fill(tmp_path, IDS)
    with pytest.raises(LookupError, match=r"2 of 3 ids are not stored, e\.g\. 'x'"):
        open_reader(tmp_path).get_many(["a", "x", "y"])


def test_rows_of_several_lengths_come_as_a_list(tmp_path: Path) -> None:
    rows = [values_of("one", 1), values_of("three", 3), values_of("two", 2)]
    FeatureStore(tmp_path).put_many(ALL, ["one", "three", "two"], rows, recipe=RECIPE)
    reader = open_key(str(tmp_path), str(ALL))
    for _ in range(2):
        found = reader.get_many(["two", "one", "three", "one"])
        assert [values.shape for values in found] == [(2, DIM), (1, DIM), (3, DIM), (1, DIM)]
        np.testing.assert_array_equal(found[2], rows[1])
    assert found[1] is not found[3]


def test_of_two_segments_with_one_id_the_lexically_first_wins_whichever_came_first(tmp_path: Path) -> None:
    store = fill(tmp_path, ["a"])
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    for time_ns in (time.time_ns() + 10**9, 5):  # one sorts after what is there, one before
        commit_row(feature_set, "a", np.full((4, DIM), time_ns, np.float32), time_ns)
    for reader in (feature_set.reader, open_reader(tmp_path)):
        reader.refresh()
        assert reader.get("a")[0, 0] == 5
        assert reader.ids() == ["a"]
        assert len(reader) == 1


# -- any shape, any length, some frames ----------------------------------------------------------

SHAPES: dict[str, tuple[tuple[int, ...], Any]] = {
    "tokens": ((4, 257, 16), np.float16),
    "layers": ((4, 25, 48), np.float32),
    "large frames": ((4, 8, 1024), np.float32),
    "pixels": ((4, 6, 5, 3), np.uint8),
}


def any_values(id: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    return np.random.default_rng(zlib.crc32(id.encode())).integers(0, 256, shape).astype(dtype)


@pytest.mark.parametrize("what", SHAPES)
def test_an_item_may_have_any_shape(tmp_path: Path, what: str) -> None:
    shape, dtype = SHAPES[what]
    values = np.stack([any_values(id, shape, dtype) for id in IDS])
    FeatureStore(tmp_path).put_many(KEY, IDS, values, recipe=RECIPE)
    reader = open_reader(tmp_path)
    for _ in range(3):
        for id, one in zip(IDS, values, strict=True):
            np.testing.assert_array_equal(reader.get(id), one, strict=True)
            np.testing.assert_array_equal(reader.get(id, [1, 3]), one[[1, 3]], strict=True)
    np.testing.assert_array_equal(open_reader(tmp_path).get_many(["c", "a"]), values[[2, 0]], strict=True)


def ragged(root: Path, lengths: Sequence[int] = (5, 1, 300, 2), item: tuple[int, ...] = (6,)) -> list[NDArray[Any]]:
    """A segment of rows of several lengths, with the ids of IDS."""
    values = [any_values(id, (length, *item), np.float32) for id, length in zip(IDS, lengths, strict=True)]
    FeatureStore(root).put_many(ALL, IDS, values, recipe=RECIPE)
    return values


def test_rows_of_any_lengths_are_one_segment(tmp_path: Path) -> None:
    values = ragged(tmp_path)
    assert len(segment_dirs(tmp_path, ALL)) == 1
    reader = open_key(str(tmp_path), str(ALL))
    for _ in range(3):
        for id, one in zip(IDS, values, strict=True):
            found = reader.get(id)
            np.testing.assert_array_equal(found, one, strict=True)
            assert found.flags.owndata
            assert found.flags.writeable
    for found, one in zip(reader.get_many(["c", "a", "c"]), [values[2], values[0], values[2]], strict=True):
        np.testing.assert_array_equal(found, one, strict=True)


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("whole_before", [True, False])
@pytest.mark.parametrize(
    "frames", [[0], [299], [7, 8, 9, 100, 101, 250], slice(None), slice(290, 400), slice(1, 300, 7), [], slice(9, 3)]
)
def test_frames_are_those_of_the_whole_sample(tmp_path: Path, frames: Any, whole_before: bool, mapped: bool) -> None:
    values = ragged(tmp_path)
    reader = open_key(str(tmp_path), str(ALL))
    for segment in reader.segments:
        segment.mapped = mapped
    if whole_before:
        reader.get("c")
    for _ in range(3):
        found = reader.get("c", frames)
        np.testing.assert_array_equal(found, values[2][frames] if frames != [] else values[2][:0], strict=True)
        assert found.flags.c_contiguous
        assert found.flags.writeable
        found[:] = 0


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([5], r"frame 5 is not one of the 5 frames 0 to 4"),
        ([-1], r"frame -1 is not one of the 5 frames 0 to 4"),
        ([3, 1], r"not in ascending order, each once"),
        ([2, 2], r"not in ascending order, each once"),
        (slice(None, None, -1), r"not in ascending order, each once"),
        ([1.5], r"frames=\[1\.5\] is neither a slice nor a list of whole numbers"),
        (3, r"frames=3 is neither a slice nor a list of whole numbers"),
        (["1"], r"neither a slice nor a list"),
        ([1 << 70], r"is not one of the 5 frames"),
    ],
)
def test_frames_that_a_sample_has_not_are_refused(tmp_path: Path, frames: Any, message: str) -> None:
    ragged(tmp_path)
    with pytest.raises(FramesError, match=message):
        open_key(str(tmp_path), str(ALL)).get("a", frames)


def test_of_a_long_sample_only_the_frames_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = ragged(tmp_path, item=(64, 8))
    reader = open_key(str(tmp_path), str(ALL))
    assert reader.segments
    reader.segments[0].mapped = False
    read = 0
    preadv = os.preadv

    def counting(fd: int, buffers: Any, offset: int, *flags: int) -> int:
        nonlocal read
        count = preadv(fd, buffers, offset, *flags)
        read += count
        return count

    monkeypatch.setattr(os, "preadv", counting)
    np.testing.assert_array_equal(reader.get("c", [10, 11, 200]), values[2][[10, 11, 200]])
    assert read == 3 * values[2][0].nbytes


def damage_frame(root: Path, row: int, frame: int) -> None:
    """A bit of the values of one frame of a ragged segment."""
    (segment,) = open_key(str(root), str(ALL)).segments
    flip(Path(segment.path) / segment.shard_file, (segment.span(row)[0] + frame) * segment.frame_bytes + 3)


def test_damage_in_one_frame_is_seen_by_who_reads_it_and_by_who_reads_all(tmp_path: Path) -> None:
    values = ragged(tmp_path)
    damage_frame(tmp_path, 2, 7)
    reader = open_key(str(tmp_path), str(ALL))
    np.testing.assert_array_equal(reader.get("c", [6, 8]), values[2][[6, 8]])
    assert reader.get("c", [7]) is None
    assert "checksum differs" in next(iter(reader.problems.values()))
    assert reader.get("c") is None
    assert open_key(str(tmp_path), str(ALL)).get("c") is None
    np.testing.assert_array_equal(reader.get("d"), values[3])


def test_without_the_checksums_of_frames_damage_would_be_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = ragged(tmp_path)
    damage_frame(tmp_path, 2, 7)
    monkeypatch.setattr(Segment, "_crcs_of_frames", lambda self, row: Anything())  # the mutant
    assert (open_key(str(tmp_path), str(ALL)).get("c", [7]) != values[2][[7]]).any()


class Anything:
    """Checksums that agree with whatever they are compared with."""

    def __getitem__(self, wanted: Any) -> Anything:
        return self

    def tolist(self) -> Any:
        return mock.ANY


@pytest.mark.parametrize("which", ["of a frame", "of the sample"])
def test_where_one_of_two_checksums_is_damaged_the_other_one_decides(tmp_path: Path, which: str) -> None:
    values = ragged(tmp_path)
    (segment,) = segment_dirs(tmp_path, ALL)
    if which == "of a frame":
        flip(segment / "frames", 4 * 10)  # frame 4 of "c", which begins at 6
    else:
        rows = segment / "rows"
        records = np.frombuffer(rows.read_bytes()[: 4 * RECORD.itemsize], RECORD).copy()
        records["crc"][2] ^= 1
        text = rows.read_bytes()[4 * RECORD.itemsize :]
        rows.write_bytes(records.tobytes() + text)
        old = header_of(segment)["rows"]["table_blake2b"].encode()
        new = hashlib.blake2b(records.tobytes(), digest_size=32).hexdigest().encode()
        reseal(segment / "zarr.json", old, new)
    for frames in (None, [4], [4, 5, 200], slice(None)):
        reader = open_key(str(tmp_path), str(ALL))
        expected = values[2] if frames is None else values[2][frames]
        np.testing.assert_array_equal(reader.get("c", frames), expected, strict=True)
        np.testing.assert_array_equal(reader.get("c"), values[2], strict=True)
        assert not reader.problems


def test_a_folder_without_a_zarr_json_is_not_committed_yet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a copy under way leaves it: nothing of it counts, what it replaces neither, and it is looked at again."""
    store = fill(tmp_path, ["a", "b"])
    store.put_many(KEY, ["a"], batch(["x"]), recipe=RECIPE, overwrite=True)
    replacing = segment_dirs(tmp_path)[0]
    assert header_of(replacing)["replaces"]
    document = (replacing / "zarr.json").read_bytes()
    (replacing / "zarr.json").unlink()
    reader = open_reader(tmp_path)
    np.testing.assert_array_equal(reader.get("a"), values_of("a"))
    assert not reader.problems
    assert not caplog.records
    (replacing / "zarr.json").write_bytes(document)
    os.utime(replacing.parent, (1, 1))  # long ago: by its time alone nobody would look
    reader.refresh()
    np.testing.assert_array_equal(reader.get("a"), batch(["x"])[0])


def test_what_is_replaced_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fill(tmp_path, *([id] for id in IDS))
    store.compact(KEY)
    opened: list[str] = []
    real = room.open_segment

    def counting(path: str, *rest: str) -> Any:
        opened.append(path)
        return real(path, *rest)

    monkeypatch.setattr(room, "open_segment", counting)
    reader = open_reader(tmp_path)
    assert reader.ids() == IDS
    assert len(opened) == 1
    assert len(reader.replaced) == len(IDS)


# -- finding many --------------------------------------------------------------------------------


def test_the_sorted_table_finds_what_a_dict_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "DICT_ROWS", 50)
    units = [[f"{unit}-{row}" for row in range(20)] for unit in range(4)]
    store = fill(tmp_path, *units, ["0-3", "new"])  # one of them for the second time
    reader = open_reader(tmp_path)
    ids = [id for unit in units for id in unit] + ["new"]
    assert all(id in reader for id in ids)
    assert isinstance(reader._snapshot.table, SortedTable)  # type: ignore[union-attr]
    assert "nobody" not in reader
    assert len(reader) == 81
    assert reader.ids() == sorted(ids)
    np.testing.assert_array_equal(reader.get_many(ids), batch(ids))
    # It grows: one commit of another process, then more than fits beside the table.
    for more in (["g1"], [f"h{row}" for row in range(20)]):
        store.put_many(KEY, more, batch(more), recipe=RECIPE)
        assert reader.refresh()
        ids += more
        assert len(reader) == len(ids)
        np.testing.assert_array_equal(reader.get_many(ids), batch(ids))


def test_the_sorted_table_tells_digests_apart_whose_first_half_is_equal() -> None:
    hi = np.array([7, 5, 7, 7, 2**64 - 1], np.uint64)
    lo = np.array([1, 1, 9, 1, 0], np.uint64)
    table = SortedTable(hi, lo, np.arange(5))

    def digest(hi: int, lo: int) -> bytes:
        return hi.to_bytes(8, "big") + lo.to_bytes(8, "big")

    assert table.get(digest(7, 1)) == 0  # the earlier of two
    assert table.get(digest(7, 9)) == 2
    assert table.get(digest(2**64 - 1, 0)) == 4
    assert table.get(digest(7, 2)) is None
    assert table.get(digest(2**64 - 1, 5)) is None
    assert table.get(digest(0, 0)) is None


def test_memory_of_places_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MEMO_IDS", 2)
    fill(tmp_path, IDS)
    reader = open_reader(tmp_path)
    for _ in range(2):
        for id in IDS:
            np.testing.assert_array_equal(reader.get(id), values_of(id))
            assert len(reader._snapshot.memo) <= 2  # type: ignore[union-attr]


# -- snapshots -----------------------------------------------------------------------------------


def test_what_others_add_shows_after_a_refresh(tmp_path: Path) -> None:
    store = fill(tmp_path, ["a"])
    reader = open_reader(tmp_path)
    assert len(reader) == 1
    store.put_many(KEY, ["b"], batch(["b"]), recipe=RECIPE)
    assert "b" not in reader
    assert reader.refresh()
    assert "b" in reader
    assert not reader.refresh()


def test_an_old_directory_is_not_listed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, ["a"])
    segments = recipe_dir(tmp_path) / "segments"
    os.utime(segments, ns=(1, 1))
    reader = open_reader(tmp_path)
    assert len(reader) == 1
    listed: list[Any] = []
    scandir = os.scandir
    monkeypatch.setattr(room.os, "scandir", lambda path: listed.append(path) or scandir(path))  # type: ignore[func-returns-value]
    assert not reader.refresh()
    assert listed == []
    os.utime(segments)  # changed, and young: a second change may leave the same mtime
    for count in (1, 2):
        assert not reader.refresh()
        assert len(listed) == count


def test_a_thread_with_an_older_snapshot_is_not_disturbed_by_a_newer_one(tmp_path: Path) -> None:
    """Two threads that add segments to one list would give a row the number of another's segment."""
    store = fill(tmp_path, ["a"])
    reader = open_reader(tmp_path)
    reader.refresh()
    old = reader._snapshot
    assert old is not None
    store.put_many(KEY, ["b"], batch(["b"]), recipe=RECIPE)
    reader.refresh()
    new = reader._snapshot
    assert new is not None
    assert new.table is old.table  # grown, not made anew
    assert [len(snapshot.segments) for snapshot in (old, new)] == [1, 2]
    assert [snapshot.count() for snapshot in (old, new)] == [1, 2]
    assert old.find("b") is None or old.find("b") == new.find("b")


@pytest.mark.parametrize("how", ["refreshes", "commits"])
def test_what_one_thread_saw_is_not_taken_back_by_another_that_looked_earlier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The one that looked earlier is held up between its look at the disk and the end of its refresh or commit."""
    store = fill(tmp_path, ["a"])
    reader = open_reader(tmp_path)
    reader.refresh()
    looked, go_on = threading.Event(), threading.Event()
    held = {"refreshes": "_look", "commits": "_open_all"}[how]
    whole = getattr(Reader, held)

    def hold_up(self: Reader, *arguments: Any) -> Any:
        found = whole(self, *arguments)
        if threading.current_thread() is early and not looked.is_set():
            looked.set()
            assert go_on.wait(60)
        return found

    store.put_many(KEY, ["b"], batch(["b"]), recipe=RECIPE)
    name = segment_dirs(tmp_path)[-1].name
    early = threading.Thread(
        target=(lambda: reader.refresh(force=True)) if how == "refreshes" else lambda: reader.see(name)
    )
    monkeypatch.setattr(Reader, held, hold_up)
    early.start()
    assert looked.wait(60)
    store.put_many(KEY, ["c"], batch(["c"]), recipe=RECIPE)
    reader.refresh(force=True)
    assert len(reader) == 3
    go_on.set()
    early.join()
    assert len(reader) == 3


def test_threads_that_refresh_while_another_writes_never_read_another_samples_row(tmp_path: Path) -> None:
    store = fill(tmp_path, ["0"])
    reader = open_reader(tmp_path)
    wrong: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            reader.refresh(force=True)
            for number in range(40):
                values = reader.get(str(number))
                if values is not None and values.tobytes() != values_of(str(number)).tobytes():
                    wrong.append(str(number))

    threads = [threading.Thread(target=read) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for number in range(1, 40):
            store.put_many(KEY, [str(number)], batch([str(number)]), recipe=RECIPE)
    finally:
        done.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert wrong == []
    reader.refresh()
    assert len(reader) == 40


def test_a_pickled_reader_is_its_path(tmp_path: Path) -> None:
    fill(tmp_path, IDS)
    reader = open_reader(tmp_path)
    reader.get_many(IDS)
    text = pickle.dumps(reader)
    assert len(text) < 500
    np.testing.assert_array_equal(pickle.loads(text).get("c"), values_of("c"))


def test_a_segment_that_vanishes_between_the_listing_and_the_opening_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process compacts and collects at the worst moment: what replaced the segment is found."""
    store = fill(tmp_path, ["a"], ["b"])
    real = room.open_segment

    def late(*args: str) -> Any:
        monkeypatch.setattr(room, "open_segment", real)
        feature_set = store.feature_set(KEY)
        assert feature_set is not None
        feature_set.compact(grace_s=0)
        return real(*args)

    monkeypatch.setattr(room, "open_segment", late)
    reader = open_reader(tmp_path)
    np.testing.assert_array_equal(reader.get_many(["a", "b"]), batch(["a", "b"]))
    assert not reader.problems


def test_a_reader_that_was_left_behind_by_a_compaction_finds_its_rows(tmp_path: Path) -> None:
    store = fill(tmp_path, ["a"], ["b"])
    readers = [open_reader(tmp_path) for _ in range(2)]
    for reader in readers:
        assert len(reader) == 2
    np.testing.assert_array_equal(readers[0].get("a"), values_of("a"))  # has the file open
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    feature_set.compact(grace_s=0)
    assert len(segment_dirs(tmp_path)) == 1
    for reader in readers:
        np.testing.assert_array_equal(reader.get("a"), values_of("a"))
        np.testing.assert_array_equal(reader.get_many(["b", "a"]), batch(["b", "a"]))
        assert reader.line("b") == {"id": "b"}
        assert reader.ids() == ["a", "b"]
        assert not reader.problems


# -- damage --------------------------------------------------------------------------------------


def damage_row(root: Path, row: int = 1) -> None:
    flip(segment_dirs(root)[0] / "c.0.0.0", row * (4 * DIM * 4 + 4) + 10)


def assert_a_flipped_bit_is_noticed(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(root, IDS)
    damage_row(root)
    reader = open_reader(root)
    caplog.clear()
    for _ in range(2):
        assert reader.get("b") is None
        for id in ("a", "c", "d"):
            np.testing.assert_array_equal(reader.get(id), values_of(id))
    assert "b" not in reader
    (record,) = caplog.records  # once
    assert record.levelno == logging.WARNING
    assert "row 1 of segment" in record.getMessage()
    assert "fstore verify --full" in record.getMessage()
    assert list(reader.problems) == [segment_dirs(root)[0].name]


def test_a_row_with_a_flipped_bit_is_a_clean_miss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert_a_flipped_bit_is_noticed(tmp_path, caplog)


def test_a_reader_without_checks_would_return_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Segment, "_check", lambda self, row, stored: None)
    with pytest.raises(AssertionError):
        assert_a_flipped_bit_is_noticed(tmp_path, caplog)


def test_a_batch_notices_a_flipped_bit_too(tmp_path: Path) -> None:
    fill(tmp_path, IDS)
    damage_row(tmp_path)
    reader = open_reader(tmp_path)
    with pytest.raises(LookupError, match=r"1 of 4 ids are not stored, e\.g\. 'b'"):
        reader.get_many(IDS)
    np.testing.assert_array_equal(reader.get_many(["a", "c"]), batch(["a", "c"]))


def test_the_checksum_binds_the_bytes_to_the_sample(tmp_path: Path) -> None:
    """Two rows that change places, are what Zarr itself cannot notice."""
    fill(tmp_path, IDS)
    shard = segment_dirs(tmp_path)[0] / "c.0.0.0"
    size = 4 * DIM * 4
    raw = shard.read_bytes()
    shard.write_bytes(raw[size : 2 * size] + raw[:size] + raw[2 * size :])
    reader = open_reader(tmp_path)
    assert reader.get("a") is None
    assert reader.get("b") is None
    np.testing.assert_array_equal(reader.get("c"), values_of("c"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a bit of zarr.json": ("zarr.json fails its seal", lambda s: flip(s / "zarr.json", 40)),
    "a bit of the seal": ("zarr.json fails its seal", lambda s: flip(s / "zarr.json", -40)),
    "an empty zarr.json": ("zarr.json fails its seal", lambda s: (s / "zarr.json").write_bytes(b"") and None),
    "no shard": ("c.0.0.0 is missing", lambda s: (s / "c.0.0.0").unlink()),
    "no rows": ("rows is missing", lambda s: (s / "rows").unlink()),
    "a shorter shard": ("size of `c.0.0.0` differs", lambda s: cut(s / "c.0.0.0")),
    "shorter rows": ("size of `rows` differs", lambda s: cut(s / "rows")),
    "a bit of the table": ("the table in `rows` fails its digest", lambda s: flip(s / "rows", 5)),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_segment_is_reported_once_and_its_rows_are_clean_misses(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, ["a", "b"], ["c", "d"])
    message, damage = DAMAGE[what]
    damaged = segment_dirs(tmp_path)[0]
    damage(damaged)
    reader = open_reader(tmp_path)
    for _ in range(2):
        assert reader.get("a") is None
        assert "b" not in reader
        np.testing.assert_array_equal(reader.get_many(["d", "c"]), batch(["d", "c"]))
        reader.refresh(force=True)
    assert reader.ids() == ["c", "d"]
    (record,) = caplog.records
    assert message in record.getMessage()
    assert damaged.name in record.getMessage()
    assert message in reader.problems[damaged.name]
    shutil.rmtree(damaged)
    reader.refresh(force=True)
    assert not reader.problems


def test_a_file_that_goes_after_it_was_listed_is_damage_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, ["a"], ["b"])
    reader = open_reader(tmp_path)
    assert len(reader) == 2
    (segment_dirs(tmp_path)[0] / "c.0.0.0").unlink()
    assert reader.get("a") is None
    np.testing.assert_array_equal(reader.get("b"), values_of("b"))
    assert reader.line("b") == {"id": "b"}
    (segment_dirs(tmp_path)[1] / "rows").unlink()
    assert reader.line("b") is None
    assert len(caplog.records) == 2


def test_what_a_damaged_segment_replaced_does_not_come_back(tmp_path: Path) -> None:
    """An overwritten value, or a deleted row, would be wrong without saying so."""
    store = fill(tmp_path, IDS)
    store.put_many(KEY, ["a"], batch(["x"]), recipe=RECIPE, overwrite=True)
    store.delete(KEY, ["b"])
    last = max(segment_dirs(tmp_path), key=lambda path: len(header_of(path)["replaces"]))
    assert len(header_of(last)["replaces"]) == 2
    flip(last / "zarr.json", 60)
    reader = open_reader(tmp_path)
    for id in IDS:
        assert reader.get(id) is None


def test_a_later_format_is_refused_with_the_words_to_upgrade(tmp_path: Path) -> None:
    fill(tmp_path, IDS)
    reseal(segment_dirs(tmp_path)[0] / "zarr.json", b'"format":2', b'"format":3')
    with pytest.raises(UnknownFormatError, match="is format 3, this version reads up to 2: upgrade featurestore"):
        open_reader(tmp_path).get("a")


@pytest.mark.parametrize("what", ["another name", "another key", "another recipe"])
def test_a_segment_that_was_moved_is_not_read_as_something_else(tmp_path: Path, what: str) -> None:
    fill(tmp_path, IDS)
    segment = segment_dirs(tmp_path)[0]
    reader = open_reader(tmp_path)
    if what == "another name":
        moved = segment.with_name("0" * 20 + segment.name[20:])
        segment.rename(moved)
    elif what == "another key":
        reader = Reader(reader.path, "mer2023/frame/CLIP_VIT_LARGE/headtail/4")
    else:
        other = recipe_dir(tmp_path).with_name("0123456789abcdef")
        shutil.copytree(recipe_dir(tmp_path), other)
        reader = Reader(str(other), str(KEY))
    assert reader.get("a") is None
    (why,) = reader.problems.values()
    assert "the segment was moved here from elsewhere" in why


def test_a_segment_of_another_dtype_is_skipped_in_whatever_order_the_two_are_seen(tmp_path: Path) -> None:
    """Two first writers that disagree: the lexically first decides, also for who saw only the other one."""
    store = fill(tmp_path, ["a"])
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    seen_before = open_reader(tmp_path)
    assert len(seen_before) == 1
    commit_row(feature_set, "b", np.ones((4, DIM), np.float16), 5)
    for reader in (seen_before, open_reader(tmp_path)):
        reader.refresh(force=True)
        assert reader.get("b").dtype == np.float16
        assert reader.get("a") is None
        assert "first segment float16 (feature 6)" in next(iter(reader.problems.values()))


def test_too_many_open_files_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, IDS)
    reader = open_reader(tmp_path)

    def fail(*args: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(room, "open_segment", fail)
        with pytest.raises(OSError, match="Too many open files"):
            reader.get("a")
    assert not reader.problems
    np.testing.assert_array_equal(reader.get("a"), values_of("a"))


# -- lines ---------------------------------------------------------------------------------------


def test_a_line_is_read_with_its_row_and_checked(tmp_path: Path) -> None:
    fill(tmp_path, IDS)
    rows = segment_dirs(tmp_path)[0] / "rows"
    reader = open_reader(tmp_path)
    assert [reader.line(id) for id in IDS] == [{"id": id} for id in IDS]
    assert reader.line("nobody") is None
    flip(rows, -3)  # in the last line: its table is sound, so that the segment opens
    reader = open_reader(tmp_path)
    assert reader.line("a") == {"id": "a"}
    assert reader.line("d") is None
    assert reader.ids() == ["a", "b", "c"]
    assert reader.get("d") is None  # whose row this is cannot be proven any more


def test_ids_are_read_without_the_rest_of_their_lines_and_are_the_same(tmp_path: Path) -> None:
    """Listing a million ids must not parse a million lines; quotes, backslashes and escapes take the long way."""
    ids = ["plain", 'a "quoted" one', "back\\slash", "end\\", "样本", "é", "a,b", '{"id":"x"}']
    store = FeatureStore(tmp_path)
    store.put_many(KEY, ids, batch(ids), recipe=RECIPE)
    reader = Reader(str(recipe_dir(tmp_path)), str(KEY))
    assert reader.ids() == sorted(ids) == sorted(line["id"] for line, _, _ in reader.rows())


def test_a_listing_leaves_out_a_row_whose_line_is_damaged(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b", "c"])
    rows = segment_dirs(tmp_path)[0] / "rows"
    content = rows.read_bytes()
    for damaged in (content.replace(b'"id":"b"', b'"id":"B"'), content.replace(b'"id":"b"', b'"Id":"b"')):
        assert damaged != content
        rows.write_bytes(damaged)
        reader = Reader(str(recipe_dir(tmp_path)), str(KEY))
        assert reader.ids() == ["a", "c"]


def test_lines_that_change_places_are_noticed(tmp_path: Path) -> None:
    fill(tmp_path, IDS)
    rows = segment_dirs(tmp_path)[0] / "rows"
    raw = rows.read_bytes()
    rows.write_bytes(raw.replace(b'{"id":"a"}\n{"id":"b"}\n', b'{"id":"b"}\n{"id":"a"}\n'))
    assert open_reader(tmp_path).ids() == ["c", "d"]


def test_a_line_out_of_the_file_is_noticed_also_when_the_table_changes_after_it_was_opened(tmp_path: Path) -> None:
    fill(tmp_path, IDS)
    rows = segment_dirs(tmp_path)[0] / "rows"
    reader = open_reader(tmp_path)
    segment, row = places_of(reader, "b")
    table = np.frombuffer(rows.read_bytes()[: 4 * RECORD.itemsize], RECORD).copy()
    table["line"][row] = 2**62
    rows.write_bytes(table.tobytes() + rows.read_bytes()[4 * RECORD.itemsize :])
    with pytest.raises(CorruptRowError, match="not where the table says"):
        segment.line(row)


# -- compressed ----------------------------------------------------------------------------------


def test_a_row_is_never_read_from_another_file_that_took_over_the_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread lets go of the segment between taking the descriptor's number and using it."""
    fill(tmp_path / "mine", IDS)
    fill(tmp_path / "other", ["w", "x", "y", "z"])
    other = segment_dirs(tmp_path / "other")[0] / "c.0.0.0"
    reader = open_reader(tmp_path / "mine")
    segment, _ = places_of(reader, "a")
    taken: list[int] = []

    def at_the_worst_moment(call: Callable[..., Any]) -> Callable[..., Any]:
        def late(number: int, *args: Any, **kwargs: Any) -> Any:
            segment.close()
            taken.append(os.open(other, os.O_RDONLY))
            return call(number, *args, **kwargs)

        return late

    monkeypatch.setattr(room.os, "preadv", at_the_worst_moment(os.preadv))
    monkeypatch.setattr(room.mmap, "mmap", at_the_worst_moment(mmap.mmap))
    try:
        for _ in range(2):
            for id in IDS:
                np.testing.assert_array_equal(reader.get(id), values_of(id))
        assert not reader.problems
        assert taken
    finally:
        for number in taken:
            os.close(number)


def test_where_nothing_can_be_mapped_rows_are_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, IDS)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(room.mmap, "mmap", refuse)
    reader = open_reader(tmp_path)
    for _ in range(3):
        np.testing.assert_array_equal(reader.get("a"), values_of("a"))
        np.testing.assert_array_equal(reader.get_many(IDS), batch(IDS))


def test_on_a_network_file_system_nothing_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, IDS)
    monkeypatch.setattr(room, "_on_network", lambda path: True)
    monkeypatch.setattr(room.mmap, "mmap", lambda *args, **kwargs: pytest.fail("mapped"))
    reader = open_reader(tmp_path)
    for _ in range(3):
        np.testing.assert_array_equal(reader.get("a"), values_of("a"))
        np.testing.assert_array_equal(reader.get_many(IDS), batch(IDS))


@pytest.mark.parametrize(("kind", "network"), [("nfs4", True), ("fuse.sshfs", True), ("ext4", False), ("xfs", False)])
def test_the_kind_of_file_system_is_read_from_the_mounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, network: bool
) -> None:
    device = os.stat(tmp_path).st_dev
    mounts = (
        "22 1 0:0 / / rw,relatime shared:1 - nfs4 server:/ rw\n"
        f"23 22 {os.major(device)}:{os.minor(device)} / /here rw shared:1 master:2 - {kind} /dev/x rw\n"
    )
    monkeypatch.setattr(room, "open", lambda *args, **options: io.StringIO(mounts), raising=False)
    assert room._on_network(str(tmp_path)) is network


def test_a_stale_handle_is_dropped_and_tried_again_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, IDS)
    reader = open_reader(tmp_path)
    preadv = os.preadv
    stale = iter([True, False])

    def sometimes(*args: Any) -> int:
        if next(stale, True):
            raise OSError(errno.ESTALE, "Stale file handle")
        return preadv(*args)

    monkeypatch.setattr(room.os, "preadv", sometimes)
    np.testing.assert_array_equal(reader.get("a"), values_of("a"))
    with pytest.raises(OSError, match="Stale file handle"):
        reader.get("b")
    assert not reader.problems


def test_thousands_of_segments_need_a_bounded_number_of_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # only for speed
    monkeypatch.setattr(room, "OPEN_FILES", 100)
    ids = [f"s{number}" for number in range(300)]
    store = fill(tmp_path, *([id] for id in ids))
    before = len(os.listdir("/proc/self/fd"))
    reader = open_reader(tmp_path)
    for _ in range(2):
        for id in ids:
            np.testing.assert_array_equal(reader.get(id), values_of(id))
    np.testing.assert_array_equal(reader.get_many(ids), batch(ids))
    assert len(os.listdir("/proc/self/fd")) - before <= room.OPEN_FILES
    del store


def test_where_a_process_may_open_few_files_fewer_segments_are_kept_open(tmp_path: Path) -> None:
    ids = [f"s{number}" for number in range(80)]
    fill(tmp_path, *([id] for id in ids))
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "from featurestore import FeatureStore\n"
        f"store, ids = FeatureStore(sys.argv[1]), {ids!r}\n"
        f"assert [len(store.get({str(KEY)!r}, id)) for id in ids * 2] == [4] * 160\n"
        f"assert len(store.get_many({str(KEY)!r}, ids)) == 80\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Reader]:
    """A reader that four threads are reading from."""
    fill(tmp_path, IDS, ["e", "f"])
    reader = open_reader(tmp_path)
    done = threading.Event()

    def read() -> None:
        while not done.wait(0.001):  # without a pause four of them leave a loaded machine no time to fork
            reader.get_many(IDS)
            reader.get("e")
            for segment in reader.segments:
                segment.close()

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    yield reader
    done.set()
    for thread in threads:
        thread.join()


def test_a_fork_under_reading_threads_can_read(busy: Reader) -> None:
    for _ in range(20):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: that is the point
            child = os.fork()
        if child == 0:
            good = all(np.array_equal(busy.get(id), values_of(id)) for id in ["a", "f"])
            os._exit(0 if good and busy.refresh(force=True) is False else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- alone ---------------------------------------------------------------------------------------

ALONE = """
import sys
sys.path.insert(0, {folder!r})
sys.modules["featurestore"] = None  # importing it would fail
{block}
import reader
features = reader.open_key({root!r}, {key!r})
assert reader.__file__.startswith({folder!r})
import numpy as np
values = [features.get(id) for id in "abcd"] + [features.get("e")]
assert values[4] is None
np.save({out!r}, np.stack(values[:4]))
features.get_many(list("abcd"))
print(sorted(set(sys.modules) & {{"zarr", "torch", "numcodecs", "filelock", "google_crc32c"}}))
"""


@pytest.mark.parametrize("checked", [True, False])
def test_the_file_alone_reads_a_store(tmp_path: Path, checked: bool) -> None:
    fill(tmp_path / "store", IDS)
    folder = tmp_path / "old environment"
    folder.mkdir()
    shutil.copy(MODULE, folder)
    block = "" if checked else "sys.modules['google_crc32c'] = None"
    code = ALONE.format(
        folder=str(folder), block=block, root=str(tmp_path / "store"), key=str(KEY), out=str(tmp_path / "out.npy")
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert run.returncode == 0, run.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), batch(IDS))
    assert run.stdout.strip() == "['google_crc32c']"  # None is still a name in sys.modules
    assert run.stderr.count("values are returned unchecked") == (0 if checked else 1)


def test_a_key_is_opened_by_a_prefix_of_its_recipe_where_there_are_several(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=f"nothing is stored under {KEY} in .*no folder"):
        open_reader(tmp_path)
    store = fill(tmp_path, ["a"])
    other = Recipe({"weights": "other"})
    store.put_many(KEY, ["a"], batch(["x"]), recipe=other)
    with pytest.raises(LookupError, match=f"has 2 recipes.*{other.fingerprint}.*pass fingerprint="):
        open_reader(tmp_path)
    np.testing.assert_array_equal(open_key(str(tmp_path), str(KEY), other.fingerprint[:6]).get("a"), values_of("x"))
    with pytest.raises(LookupError, match=f"has no recipe 'zz' in .*{other.fingerprint}.*pass fingerprint="):
        open_key(str(tmp_path), str(KEY), "zz")


def test_a_reader_touches_no_disk_until_it_is_used(tmp_path: Path) -> None:
    reader = Reader(str(tmp_path / "not there"), str(KEY))
    assert reader.get("a") is None
    assert reader.ids() == []
    assert len(reader) == 0
    assert reader.form is None
    assert reader.get_many([]).shape == (0, 0, 0)
    assert not reader.refresh()
    assert list(tmp_path.iterdir()) == []

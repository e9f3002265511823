"""A miss: computed once, kept, counted; what fails costs only itself and is recorded only where it would fail again."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_factories import ALL, DIM, KEY, Making, batch, header_of, segment_dirs, values_of
from store_factories import fill as fill_store

from featurestore import Failure, FeatureKey, Features, FeatureStore, Recipe, fill
from featurestore.errors import (
    FailedSampleError,
    FailedSamplesError,
    MissingFeatureError,
    RecipeMismatchError,
)
from featurestore.storage import locks, writer
from featurestore.storage.claims import UNIT
from featurestore.storage.locks import Locks
from featurestore.storage.reader import Reader, _Snapshot

SPAWN = multiprocessing.get_context("spawn")


def counts(store: FeatureStore) -> dict[str, int]:
    return {name: value for name, value in store.stats.as_dict().items() if value and name != "bytes_read"}


# -- computed once, kept ---------------------------------------------------------------------------


def test_a_miss_is_computed_once_and_kept(tmp_path: Path) -> None:
    making = Making()
    store = FeatureStore(tmp_path, compute=making)
    for _ in range(3):
        np.testing.assert_array_equal(store.get(KEY, "a"), values_of("a"))
    assert making.asked == [["a"]]
    assert making.recipes_asked == 1
    assert counts(store) == {"misses": 1, "computed": 1, "disk_hits": 2}
    again = FeatureStore(tmp_path)  # no compute: it is stored
    np.testing.assert_array_equal(again.get(KEY, "a"), values_of("a"))
    assert again.recipes(KEY) == {Recipe(making.settings).fingerprint: Recipe(making.settings)}


def one_miss(root: Path, way: str) -> dict[str, int]:
    """How often each step is taken by one miss, in a store that has another sample."""
    seen = dict.fromkeys(["look-ups", "listings", "checks", "encodings", "locks"], 0)
    source = {"path": "/a.mp4", "size": 1, "mtime_ns": 1, "sha256": "00"}
    made = Features(values_of("a"), np.arange(4), np.linspace(0, 1, 4), {"sources": [source]})
    store = FeatureStore(root, compute=Making(a=made))
    store.get(KEY, "other")

    def counted(name: str, function: Any) -> Any:
        def call(*given: Any, **more: Any) -> Any:
            seen[name] += 1
            return function(*given, **more)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name, room, part in (
            ("look-ups", _Snapshot, "find"),
            ("look-ups", _Snapshot, "find_all"),
            ("listings", Reader, "_look"),
            ("checks", fill, "check_form"),
            ("encodings", writer, "_encode"),
            ("locks", locks, "BucketLock"),
        ):
            patch.setattr(room, part, counted(name, getattr(room, part)))
        if way == "get":
            store.get(KEY, "a")
        elif way == "get_features":
            store.get_features(KEY, "a")
        else:
            store.get_many(KEY, ["a"])
    assert counts(store)["computed"] == 2
    return seen


@pytest.mark.parametrize("way", ["get", "get_features", "get_many"])
def test_a_miss_takes_each_step_once(tmp_path: Path, way: str) -> None:
    """It looks for the sample, and where that is not there lists the directory under the lock, and so on."""
    assert one_miss(tmp_path, way) == dict.fromkeys(["look-ups", "listings", "checks", "encodings", "locks"], 1)


def test_a_step_that_is_taken_twice_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Reader.refresh
    monkeypatch.setattr(Reader, "refresh", lambda self, force=False, briefly=False: real(self, force))
    assert one_miss(tmp_path, "get")["listings"] > 1


def test_misses_of_one_sample_each_do_not_pile_up_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.lookup.MAX_SEGMENTS", 8)
    store = FeatureStore(tmp_path, compute=Making())
    ids = [f"s{number}" for number in range(40)]
    for id in ids:
        np.testing.assert_array_equal(store.get(KEY, id), values_of(id))
        feature_set = store.feature_set(KEY)
        assert feature_set is not None
        assert len(feature_set.reader.segments) <= 8
    np.testing.assert_array_equal(FeatureStore(tmp_path).get_many(KEY, ids), batch(ids))
    assert counts(store)["computed"] == 40


def test_what_was_merged_before_is_not_written_again_each_time(tmp_path: Path) -> None:
    ids = [f"s{number}" for number in range(200)]
    store = fill_store(tmp_path, ids, *([f"t{number}"] for number in range(9)))
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    large = feature_set.reader.segments[0]
    assert feature_set.merge_small() == 9
    assert [segment.n for segment in feature_set.reader.segments] == [200, 9]
    assert feature_set.reader.segments[0] is large


def test_a_merge_that_cannot_be_done_now_is_left_to_a_later_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featurestore.lookup.MAX_SEGMENTS", 2)
    store = FeatureStore(tmp_path, compute=Making())
    store.get(KEY, "a")
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    with FeatureStore(tmp_path, compute=Making()).feature_set(KEY).locks.recipe():  # type: ignore[union-attr]
        for id in "bcd":
            np.testing.assert_array_equal(store.get(KEY, id), values_of(id))
        assert len(feature_set.reader.segments) == 4
    store.get(KEY, "e")
    assert len(feature_set.reader.segments) == 1


def test_a_batch_computes_only_what_is_missing_in_one_call_and_one_segment(tmp_path: Path) -> None:
    making = Making()
    store = FeatureStore(tmp_path, compute=making)
    store.get_many(KEY, ["b", "d"])
    asked = ["a", "b", "c", "a", "d", "e"]
    np.testing.assert_array_equal(store.get_many(KEY, asked), batch(asked))
    assert making.asked == [["b", "d"], ["a", "c", "e"]]
    assert len(segment_dirs(tmp_path)) == 2
    assert counts(store) == {"misses": 5, "computed": 5, "disk_hits": 2}


def test_units_of_64_are_committed_as_they_are_made(tmp_path: Path) -> None:
    making = Making()
    ids = [f"s{number:03d}" for number in range(150)]
    np.testing.assert_array_equal(FeatureStore(tmp_path, compute=making).get_many(KEY, ids), batch(ids))
    assert [len(unit) for unit in making.asked] == [64, 64, 22]
    assert len(segment_dirs(tmp_path)) == 3


def test_what_the_compute_says_of_a_row_is_kept_with_it(tmp_path: Path) -> None:
    made = Features(
        values_of("a"), np.arange(4, dtype=np.int64), np.linspace(0, 1, 4), {"sources": [], "note": {"peak": 3}}
    )
    store = FeatureStore(tmp_path, compute=Making(a=made))
    first = store.get_features(KEY, "a")
    second = store.get_features(KEY, "a")
    assert (first.served_from, second.served_from) == ("computed", "disk")
    for features in (first, second, FeatureStore(tmp_path).get_features(KEY, "a")):
        np.testing.assert_array_equal(features.values, made.values)
        np.testing.assert_array_equal(features.frame_indices, made.frame_indices)
        np.testing.assert_array_equal(features.timestamps_s, made.timestamps_s)
        assert features.provenance == made.provenance
        assert features.recipe == Recipe({"made_by": "Making"})


def test_what_is_returned_is_not_what_the_compute_holds(tmp_path: Path) -> None:
    made = Features(np.ones((4, DIM), np.float32))
    for read_only in (True, False):
        store = FeatureStore(tmp_path, compute=Making(a=made), read_only=read_only)
        store.get(KEY, "a")[:] = 5
        assert made.values.max() == 1
        assert store.get(KEY, "a").max() == 1


def test_answers_come_in_any_order(tmp_path: Path) -> None:
    class Backwards(Making):
        def __call__(self, key: FeatureKey, ids: Sequence[str]) -> Iterator[tuple[str, Features | Failure]]:
            return reversed(list(super().__call__(key, ids)))  # type: ignore[return-value]

    ids = ["c", "a", "b"]
    np.testing.assert_array_equal(FeatureStore(tmp_path, compute=Backwards()).get_many(KEY, ids), batch(ids))


def test_rows_of_several_lengths_are_kept_too(tmp_path: Path) -> None:
    rows = {"one": values_of("one", 1), "three": values_of("three", 3)}
    making = Making(**{id: Features(values) for id, values in rows.items()})
    found = FeatureStore(tmp_path, compute=making).get_ragged(ALL, ["three", "one", "three"])
    for values, id in zip(found, ["three", "one", "three"], strict=True):
        np.testing.assert_array_equal(values, rows[id])
    assert FeatureStore(tmp_path).ids(ALL) == ["one", "three"]


def test_an_out_is_filled_with_what_was_just_computed(tmp_path: Path) -> None:
    out = np.zeros((2, 4, DIM), np.float32)
    store = FeatureStore(tmp_path, compute=Making())
    assert store.get_many(KEY, ["a", "b"], out) is out
    np.testing.assert_array_equal(out, batch(["a", "b"]))


def test_a_process_of_hits_never_calls_the_compute(tmp_path: Path) -> None:
    FeatureStore(tmp_path, compute=Making()).get(KEY, "a")
    making = Making()
    store = FeatureStore(tmp_path, compute=making)
    store.get(KEY, "a")
    store.get_many(KEY, ["a"])
    store.get_features(KEY, "a")
    assert store.missing(KEY, ["a", "b"]) == ["b"]
    assert making.asked == []


# -- failures --------------------------------------------------------------------------------------


def test_a_deterministic_failure_is_recorded_and_not_tried_again(tmp_path: Path) -> None:
    making = Making(a=Failure("media", "a.mp4 is truncated"))
    store = FeatureStore(tmp_path, compute=making)
    for _ in range(2):
        with pytest.raises(FailedSampleError, match=r"sample 'a' of .* is truncated; `featurestore\.extract") as caught:
            store.get(KEY, "a")
    assert making.asked == [["a"]]
    record = caught.value.failure
    assert (record.id, record.reason, record.message, record.attempts) == ("a", "media", "a.mp4 is truncated", 1)
    assert record.recipe == Recipe(making.settings).fingerprint
    assert store.failures(KEY) == {"a": record}
    assert counts(store) == {"misses": 2, "failed": 2}


def test_a_record_answers_without_a_compute_and_keeps_its_recipe(tmp_path: Path) -> None:
    """Also where nothing could be made under the recipe."""
    making = Making(a=Failure("media", "a.mp4 is truncated"))
    with pytest.raises(FailedSampleError):
        FeatureStore(tmp_path, compute=making).get(KEY, "a")
    store = FeatureStore(tmp_path)
    with pytest.raises(FailedSampleError, match="truncated"):
        store.get(KEY, "a")
    with pytest.raises(MissingFeatureError, match="sample 'b' is not stored"):
        store.get_many(KEY, ["a", "b"])
    assert list(store.failures(KEY)) == ["a"]
    assert store.recipes(KEY) == {Recipe(making.settings).fingerprint: Recipe(making.settings)}


def test_a_failure_that_may_not_come_back_is_not_recorded(tmp_path: Path) -> None:
    making = Making(a=Failure("timeout", "took longer than 60 s", deterministic=False))
    store = FeatureStore(tmp_path, compute=making)
    for _ in range(2):
        with pytest.raises(FailedSampleError, match="took longer than 60 s; it may work when tried again"):
            store.get(KEY, "a")
    assert making.asked == [["a"], ["a"]]
    assert store.failures(KEY) == {}


def test_a_record_is_void_when_a_source_changes(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"broken")
    status = video.stat()
    source = {"path": str(video), "size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": "00"}
    making = Making(a=Failure("media", "broken", sources=[source]))
    store = FeatureStore(tmp_path / "store", compute=making)
    for _ in range(2):
        with pytest.raises(FailedSampleError):
            store.get(KEY, "a")
    assert len(making.asked) == 1
    video.write_bytes(b"mended!")
    with pytest.raises(FailedSampleError) as caught:
        store.get(KEY, "a")
    assert len(making.asked) == 2
    assert caught.value.failure.attempts == 2
    video.write_bytes(b"mended at last")
    del making.answers["a"]
    np.testing.assert_array_equal(store.get(KEY, "a"), values_of("a"))
    assert store.failures(KEY) == {}


def test_a_batch_stores_what_can_be_made_and_then_says_what_cannot(tmp_path: Path) -> None:
    making = Making(b=Failure("media", "b.mp4 is truncated"), d=Failure("timeout", "slow", deterministic=False))
    store = FeatureStore(tmp_path, compute=making)
    with pytest.raises(
        FailedSamplesError, match=r"2 of 5 samples .* the others are stored; e\.g\. 'b': b\.mp4"
    ) as caught:
        store.get_many(KEY, ["a", "b", "c", "d", "e"])
    assert {id: failure.reason for id, failure in caught.value.failures.items()} == {"b": "media", "d": "timeout"}
    assert FeatureStore(tmp_path).ids(KEY) == ["a", "c", "e"]
    assert list(store.failures(KEY)) == ["b"]
    assert counts(store) == {"misses": 5, "computed": 3, "failed": 2}


def test_a_batch_with_one_missing_sample_is_still_a_batch(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, compute=Making(b=Failure("media", "bad")))
    for ids in (["b"], ["a", "b"]):
        with pytest.raises(FailedSamplesError) as caught:
            store.get_many(KEY, ids)
        assert list(caught.value.failures) == ["b"]


def test_a_failure_in_one_unit_does_not_keep_the_next_from_being_made(tmp_path: Path) -> None:
    ids = [f"s{number:03d}" for number in range(130)]
    making = Making(s003=Failure("media", "bad"), s070=Failure("media", "bad"))
    store = FeatureStore(tmp_path, compute=making)
    with pytest.raises(FailedSamplesError, match="2 of 130 samples"):
        store.get_many(KEY, ids)
    assert len(store.ids(KEY)) == 128


def test_a_compute_that_raises_midway_keeps_what_was_ready(tmp_path: Path) -> None:
    error = RuntimeError("CUDA out of memory")
    store = FeatureStore(tmp_path, compute=Making(c=error))
    with pytest.raises(RuntimeError) as caught:
        store.get_many(KEY, ["a", "b", "c", "d"])
    assert caught.value is error
    assert FeatureStore(tmp_path).ids(KEY) == ["a", "b"]
    assert store.failures(KEY) == {}
    assert counts(store) == {"misses": 4, "computed": 2, "failed": 2}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("mine"), KeyboardInterrupt()])
def test_what_a_compute_raises_is_not_taken_for_an_error_of_the_store(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        FeatureStore(tmp_path, compute=Making(a=error)).get(KEY, "a")
    assert caught.value is error


# -- what an encoder or compute may get wrong -------------------------------------------------------

WRONG: dict[str, tuple[Any, str]] = {
    "n_frames": (values_of("b", 3), r"values are \(3, 6\), not \(4, \.\.\.\) as mer2023/"),
    "dim": (values_of("b", dim=5), "has frames of float32 .feature 5., but those of .* are float32 .feature 6."),
    "dtype of a float": (values_of("b").astype(np.float64), "values are float64, not an array of float16, "),
    "other dtype": (values_of("b").astype(np.float16), "frames of float16 .*, but those of .* are float32"),
    "no array": ([[1.0]], "values are list, not an array"),
    "one row": (values_of("b")[0], r"values are \(6,\), not \(4, \.\.\.\)"),
    "nothing": (np.empty((4, 0), np.float32), r"values are \(4, 0\)"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_one_sample_of_the_wrong_form_fails_alone_and_is_not_recorded(tmp_path: Path, what: str) -> None:
    """A bug of the encoder, which mending cures."""
    values, message = WRONG[what]
    store = FeatureStore(tmp_path, compute=Making(b=Features(values)))
    with pytest.raises(FailedSamplesError, match=message) as caught:
        store.get_many(KEY, ["a", "b", "c"])
    assert list(caught.value.failures) == ["b"]
    assert caught.value.failures["b"].reason == "encoding"
    assert FeatureStore(tmp_path).ids(KEY) == ["a", "c"]
    assert store.failures(KEY) == {}
    assert counts(store) == {"misses": 3, "computed": 2, "failed": 1}


def test_nan_is_a_failure_that_is_recorded(tmp_path: Path) -> None:
    values = values_of("NaN is in the name")
    values[1, 2] = np.nan
    values[0, 0] = np.inf
    source = {"path": "/videos/a.mp4", "size": 1, "mtime_ns": 1, "sha256": "00"}
    made = Features(values, provenance={"sources": [source]})
    store = FeatureStore(tmp_path, compute=Making(a=made))
    with pytest.raises(FailedSampleError, match="sample 'a': 2 of 24 values are NaN or infinite"):
        store.get(KEY, "a")
    assert store.failures(KEY)["a"].sources == [source]
    assert store.ids(KEY) == []


def test_an_id_that_says_nan_does_not_make_a_wrong_shape_deterministic(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, compute=Making(NaN=Features(values_of("a", 3))))
    with pytest.raises(FailedSampleError):
        store.get(KEY, "NaN")
    assert store.failures(KEY) == {}


def test_other_numbers_under_one_recipe_are_refused(tmp_path: Path) -> None:
    settings = {"made_by": "Making"}
    FeatureStore(tmp_path, compute=Making(settings)).get(KEY, "a")
    store = FeatureStore(tmp_path, compute=Making(settings, b=Features(values_of("b").astype(np.float16))))
    with pytest.raises(FailedSampleError, match="put what differs into the recipe"):
        store.get(KEY, "b")
    with pytest.raises(RecipeMismatchError):
        store.put_many(KEY, ["b"], batch(["b"], np.float16), recipe=settings)


# -- read-only -------------------------------------------------------------------------------------


def test_a_read_only_store_computes_returns_and_keeps_nothing(tmp_path: Path) -> None:
    root = tmp_path / "store"
    making = Making(bad=Failure("media", "bad"))
    store = FeatureStore(root, compute=making, read_only=True)
    for _ in range(2):
        np.testing.assert_array_equal(store.get(KEY, "a"), values_of("a"))
        features = store.get_features(KEY, "a")
        assert features.served_from == "computed"
        assert features.recipe == Recipe(making.settings)
        np.testing.assert_array_equal(store.get_many(KEY, ["a", "b"]), batch(["a", "b"]))
        with pytest.raises(FailedSampleError, match="it may work when tried again"):
            store.get(KEY, "bad")
    assert not root.exists()
    assert counts(store) == {"misses": 10, "computed": 8, "not_kept": 8, "failed": 2}


def test_a_read_only_store_returns_records(tmp_path: Path) -> None:
    making = Making(bad=Failure("media", "bad"))
    with pytest.raises(FailedSampleError):
        FeatureStore(tmp_path, compute=making).get(KEY, "bad")
    before = sorted(path for path in tmp_path.rglob("*"))
    store = FeatureStore(tmp_path, compute=making, read_only=True)
    with pytest.raises(FailedSampleError) as caught:
        store.get(KEY, "bad")
    assert caught.value.advice == f"`featurestore.extract(store, '{KEY}', retry=True)` tries again"
    assert str(caught.value) == f"sample 'bad' of {KEY} cannot be made: bad; {caught.value.advice}"
    assert (caught.value.key, caught.value.ids, caught.value.root) == (KEY, ("bad",), tmp_path)
    assert making.asked == [["bad"]]
    assert sorted(path for path in tmp_path.rglob("*")) == before


# -- single flight ---------------------------------------------------------------------------------


def test_of_several_threads_that_miss_one_sample_one_computes(tmp_path: Path) -> None:
    class Slow(Making):
        def __call__(self, key: FeatureKey, ids: Sequence[str]) -> Iterator[tuple[str, Features | Failure]]:
            time.sleep(0.2)
            return super().__call__(key, ids)

    making = Slow()
    store = FeatureStore(tmp_path, compute=making)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(store.get(KEY, "a"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert making.asked == [["a"]]
    assert all(np.array_equal(values, values_of("a")) for values in found)
    assert counts(store) == {"misses": 4, "computed": 1, "waited": 3}


class Noting:
    """A compute of another process: writes a line for every sample it makes."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def recipe(self, key: FeatureKey) -> dict[str, Any]:
        return {"made_by": "Noting"}

    def __call__(self, key: FeatureKey, ids: Sequence[str]) -> Iterator[tuple[str, Features]]:
        for id in ids:
            with self.notes.open("a") as file:
                file.write(f"{id}\n")
            time.sleep(0.002)
            yield id, Features(values_of(id))


def read_all(root: Path, notes: Path, out: Path, ids: list[str]) -> None:
    store = FeatureStore(root, compute=Noting(notes))
    for start in range(0, len(ids), 7):
        unit = ids[start : start + 7]
        assert np.array_equal(store.get_many(KEY, unit), batch(unit))
    out.write_text(json.dumps(store.stats.as_dict()), encoding="utf-8")


def test_several_processes_compute_each_sample_once(tmp_path: Path) -> None:
    ids = [f"s{number}" for number in range(60)]
    processes = []
    for number in range(4):
        mine = ids[number * 15 :] + ids[: number * 15]
        args = (tmp_path / "store", tmp_path / "notes", tmp_path / f"out{number}", mine)
        processes.append(SPAWN.Process(target=read_all, args=args))
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    made = (tmp_path / "notes").read_text().split()
    assert sorted(made) == sorted(ids)
    stats = [json.loads((tmp_path / f"out{number}").read_text()) for number in range(4)]
    for one in stats:
        assert one["disk_hits"] + one["misses"] == 60
        assert one["computed"] + one["waited"] == one["misses"]
    assert sum(one["computed"] for one in stats) == 60


def test_without_locks_the_work_is_done_twice_and_nothing_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A lock that is not one, as flock on some cluster file systems: the first to store is the one that is read."""
    caplog.set_level(logging.ERROR)

    def refuse(self: Locks, name: str, wait_s: float) -> Any:
        raise OSError(37, "No locks available", name)

    class Interrupted(Making):
        """While it computes, another process stores the same sample with other last bits."""

        def __call__(self, key: FeatureKey, ids: Sequence[str]) -> Iterator[tuple[str, Features | Failure]]:
            if "b" in ids:
                other = Making(self.settings, b=Features(values_of("first")))
                FeatureStore(tmp_path, compute=other).get(KEY, "b")
            return super().__call__(key, ids)

    monkeypatch.setattr(Locks, "_acquire", refuse)
    store = FeatureStore(tmp_path, compute=Interrupted())
    found = store.get_many(KEY, ["a", "b", "c"])
    np.testing.assert_array_equal(found, np.stack([values_of("a"), values_of("first"), values_of("c")]))
    for reader in (store, FeatureStore(tmp_path)):
        np.testing.assert_array_equal(reader.get(KEY, "b"), values_of("first"))
    assert counts(store) == {"misses": 3, "computed": 3, "disk_hits": 1}


def test_a_miss_finds_what_another_process_stored_meanwhile(tmp_path: Path) -> None:
    making = Making()
    mine, other = (FeatureStore(tmp_path, compute=making) for _ in range(2))
    mine.get(KEY, "a")
    other.get(KEY, "b")
    mine.get(KEY, "b")
    assert making.asked == [["a"], ["b"]]
    assert counts(mine) == {"misses": 1, "computed": 1, "disk_hits": 1}


def test_locks_are_free_after_a_failure(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, compute=Making(a=RuntimeError("no")))
    with pytest.raises(RuntimeError):
        store.get(KEY, "a")
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    with feature_set.locks.hold(["a"], 0), feature_set.locks.recipe(0):
        pass


def test_a_unit_is_small_enough_to_lose() -> None:
    """What a kill costs at most; the number is in the documents."""
    assert UNIT == 64


def test_made_with_says_where_a_row_was_made(tmp_path: Path) -> None:
    FeatureStore(tmp_path, compute=Making()).get(KEY, "a")
    made_with = header_of(segment_dirs(tmp_path)[0])["made_with"]
    assert made_with["numpy"] == np.__version__
    assert made_with["host"] == os.uname().nodename
    assert set(made_with) >= {"featurestore", "python", "time"}

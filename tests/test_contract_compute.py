"""The contract of a Compute, kept and broken in every way, through every way of asking: one outcome for each sample."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_factories import DIM, KEY, batch, segment_dirs, values_of

from featurestore import Failure, FeatureKey, Features, FeatureStore
from featurestore.compute.extraction import extract
from featurestore.errors import FailedSampleError, FailedSamplesError, FeatureStoreError, ValuesError
from featurestore.storage.locks import bucket_of

IDS = ["a", "b", "c", "d"]
BAD = "b"
Answers = Iterable[Any]


def sound(ids: Iterable[str]) -> Iterator[tuple[str, Features]]:
    for id in ids:
        yield id, Features(values_of(id))


class Computing:
    """A compute that answers as a function of the ids does."""

    def __init__(self, answers: Callable[[Any], Any]) -> None:
        self.answers = answers
        self.calls = 0

    def recipe(self, key: FeatureKey) -> dict[str, Any]:
        return {"made_by": "Computing"}

    def __call__(self, key: FeatureKey, ids: Sequence[str]) -> Any:
        self.calls += 1
        return self.answers(ids)


@dataclass
class Asked:
    """What became of a request: the samples that were handed out, those that failed, or what was raised."""

    rows: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    raised: BaseException | None = None


def asked_with_get(store: FeatureStore, ids: list[str]) -> Asked:
    """One by one, to the end: what is wrong with one must not show in the others."""
    found = Asked()
    for id in ids:
        try:
            np.testing.assert_array_equal(store.get(KEY, id), values_of(id))
            found.rows.append(id)
        except FailedSampleError as error:
            found.failed[id] = error.failure.message
        except (ValuesError, ZeroDivisionError) as error:
            found.raised = error
    return found


def asked_with_get_many(store: FeatureStore, ids: list[str]) -> Asked:
    try:
        np.testing.assert_array_equal(store.get_many(KEY, ids), batch(ids))
        return Asked(list(dict.fromkeys(ids)))
    except FailedSamplesError as error:
        failed = {id: failure.message for id, failure in error.failures.items()}
        for id, values in error.values.items():
            np.testing.assert_array_equal(values, values_of(id))
        return Asked(list(error.values), failed)
    except (ValuesError, ZeroDivisionError) as error:
        return Asked(raised=error)


def asked_with_fetch(store: FeatureStore, ids: list[str]) -> Asked:
    try:
        outcomes = store.fetch(KEY, ids)
    except (ValuesError, ZeroDivisionError) as error:
        return Asked(raised=error)
    assert list(outcomes) == list(dict.fromkeys(ids))
    rows = {id: outcome for id, outcome in outcomes.items() if isinstance(outcome, Features)}
    for id, features in rows.items():
        np.testing.assert_array_equal(features.values, values_of(id))
    return Asked(list(rows), {id: outcome.message for id, outcome in outcomes.items() if isinstance(outcome, Failure)})


def asked_with_extract(store: FeatureStore, ids: list[str]) -> Asked:
    counts: list[int] = []
    try:
        report = extract(store, KEY, ids, progress=counts.append)
    except (ValuesError, ZeroDivisionError) as error:
        return Asked(raised=error)
    assert report.ok == (not report.failed)
    assert (report.asked, report.computed) == (len(set(ids)), len(set(ids)) - len(report.failed))
    assert sum(counts) == len(set(ids))
    return Asked(
        [id for id in dict.fromkeys(ids) if id not in report.failed],
        {id: failure.message for id, failure in report.failed.items()},
    )


TOGETHER = {"get_many": asked_with_get_many, "fetch": asked_with_fetch, "extract": asked_with_extract}
WAYS = {"get": asked_with_get, **TOGETHER}
every_way = pytest.mark.parametrize("way", WAYS)
together = pytest.mark.parametrize("way", TOGETHER)


def stored(root: Path) -> list[str]:
    """Ids that a fresh store has, with the values that are theirs."""
    store = FeatureStore(root)
    ids = store.ids(KEY)
    for id in ids:
        np.testing.assert_array_equal(store.get(KEY, id), values_of(id))
    return ids


# -- kept -------------------------------------------------------------------------------------------

KEPT: dict[str, Callable[[Any], Answers]] = {
    "a generator": sound,
    "a list": lambda ids: list(sound(ids)),
    "pairs that are lists": lambda ids: ([id, features] for id, features in sound(ids)),
    "items of a mapping": lambda ids: dict(sound(ids)).items(),
    "late, in another order": lambda ids: reversed(list(sound(ids))),
}


@every_way
@pytest.mark.parametrize("how", KEPT)
def test_every_answer_is_stored_however_it_comes(tmp_path: Path, way: str, how: str) -> None:
    store = FeatureStore(tmp_path, compute=Computing(KEPT[how]))
    assert WAYS[way](store, IDS) == Asked(IDS)
    assert stored(tmp_path) == IDS
    assert store.failures(KEY) == {}


@every_way
def test_repeated_ids_have_one_outcome(tmp_path: Path, way: str) -> None:
    given: list[str] = []

    def noting(ids: Iterable[str]) -> Iterator[tuple[str, Features]]:
        for id, features in sound(ids):
            given.append(id)
            yield id, features

    store = FeatureStore(tmp_path, compute=Computing(noting))
    found = WAYS[way](store, ["b", "a", "b", "b"])
    assert set(found.rows) == {"a", "b"}
    assert sorted(given) == stored(tmp_path) == ["a", "b"]
    assert store.stats.misses in (0, 2)  # extract does not count as reading


@every_way
@pytest.mark.parametrize("note", ["a word", 5, {"cut_off": "yes"}, {"cut_off": {"missing_s": 2.0}}, None])
def test_a_note_may_be_anything_that_json_can_hold(tmp_path: Path, way: str, note: Any) -> None:
    store = FeatureStore(tmp_path, compute=Computing(instead(Features(values_of(BAD), provenance={"note": note}))))
    assert WAYS[way](store, IDS) == Asked(IDS)
    assert store.get_features(KEY, BAD).provenance == {"note": note}


# -- never answered ---------------------------------------------------------------------------------


def forgetting(ids: Iterable[str]) -> Answers:
    return (answer for answer in sound(ids) if answer[0] != BAD)


@every_way
def test_what_is_never_answered_is_a_failure_that_is_tried_again(tmp_path: Path, way: str) -> None:
    compute = Computing(forgetting)
    store = FeatureStore(tmp_path, compute=compute)
    found = WAYS[way](store, IDS)
    assert found.rows == stored(tmp_path) == ["a", "c", "d"]
    assert found.failed == {BAD: f"compute Computing of {KEY} did not answer for 'b'"}
    assert store.failures(KEY) == {}
    compute.answers = sound
    assert WAYS[way](store, IDS) == Asked(IDS) if way != "extract" else extract(store, KEY, IDS).ok
    assert stored(tmp_path) == IDS


@together
def test_a_compute_that_stops_early_has_not_answered_for_the_rest(tmp_path: Path, way: str) -> None:
    def stopping(ids: Iterable[str]) -> Answers:
        for id, features in sound(ids):
            yield id, features
            if id == BAD:
                return

    found = WAYS[way](FeatureStore(tmp_path, compute=Computing(stopping)), IDS)
    assert found.rows == stored(tmp_path) == ["a", "b"]
    assert list(found.failed) == ["c", "d"] or set(found.failed) == {"c", "d"}


@together
def test_a_compute_that_answers_nothing_at_all_has_failed_for_each(tmp_path: Path, way: str) -> None:
    found = WAYS[way](FeatureStore(tmp_path, compute=Computing(lambda ids: [])), IDS)
    assert set(found.failed) == set(IDS)
    assert stored(tmp_path) == []


# -- broken: an error that names the compute and the id ---------------------------------------------


def answering(more: Callable[[], Any]) -> Callable[[Any], Answers]:
    """Sound answers; after that of BAD one more."""

    def answers(ids: Iterable[str]) -> Answers:
        for id, features in sound(ids):
            yield id, features
            if id == BAD:
                yield more()

    return answers


def instead(result: Any) -> Callable[[Any], Answers]:
    """Sound answers, but one for BAD."""
    return lambda ids: ((id, result if id == BAD else features) for id, features in sound(ids))


TWICE = answering(lambda: (BAD, Features(values_of("other"))))
BROKEN: dict[str, tuple[Callable[[Any], Answers], str, list[str]]] = {
    "unasked": (answering(lambda: ("z", Features(values_of("z")))), "answered 'z', which was not asked", ["a", "b"]),
    "unasked failure": (answering(lambda: ("z", Failure("media", "bad"))), "answered 'z', which was not", ["a", "b"]),
    "no id": (answering(lambda: (["b"], Features(values_of("b")))), r"answered \['b'\], which was not", ["a", "b"]),
    "twice": (TWICE, "answered 'b' twice; nothing is stored for it", ["a"]),
    "twice, failed then": (answering(lambda: (BAD, Failure("media", "bad"))), "answered 'b' twice", ["a"]),
    "array": (instead(values_of(BAD)), "answered 'b' with a ndarray, not with Features or Failure", ["a"]),
    "nothing": (instead(None), "answered 'b' with a NoneType, not with Features or Failure", ["a"]),
    "exception": (instead(OSError("no")), "answered 'b' with a OSError, not with Features or Failure", ["a"]),
    "no pair": (answering(lambda: Features(values_of("c"))), r"answered with a Features, not with \(id,", ["a", "b"]),
    "three": (answering(lambda: ("c", 1, 2)), r"answered with a tuple, not with \(id, features\)", ["a", "b"]),
}  # fmt: skip


@every_way
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_contract_is_an_error_after_the_sound_rows_are_stored(tmp_path: Path, way: str, how: str) -> None:
    answers, words, kept = BROKEN[how]
    store = FeatureStore(tmp_path, compute=Computing(answers))
    found = WAYS[way](store, IDS)
    assert isinstance(found.raised, ValuesError)
    assert re.search(f"^compute Computing of {KEY} {words}", str(found.raised))
    assert store.failures(KEY) == {}
    # One by one, the samples after it are asked for too.
    assert stored(tmp_path) == (sorted({*kept, "c", "d"}) if way == "get" else kept)
    if way != "extract":
        stats = store.stats
        assert stats.computed + stats.waited + stats.failed == stats.misses == len(IDS)


@pytest.mark.parametrize("returned", [None, 5, {"a": Features(values_of("a"))}], ids=["None", "number", "mapping"])
@every_way
def test_what_is_no_iterable_of_pairs_is_an_error(tmp_path: Path, way: str, returned: Any) -> None:
    found = WAYS[way](FeatureStore(tmp_path, compute=Computing(lambda ids: returned)), ["a"])
    words = rf"^compute Computing of {KEY} returned a {type(returned).__name__}, not an iterable of \(id, features\)"
    assert re.search(words, str(found.raised))
    assert stored(tmp_path) == []


@pytest.mark.parametrize("first", [Features(values_of(BAD)), Failure("media", "bad")], ids=["row", "record"])
def test_a_second_answer_takes_back_what_was_stored_of_the_first(tmp_path: Path, first: Any) -> None:
    """Nobody knows which of them is right, also where a unit was committed in between."""
    ids = [f"s{number:03d}" for number in range(130)]

    def answers(ids: Iterable[str]) -> Answers:
        for number, id in enumerate(ids):
            yield id, first if number == 3 else Features(values_of(id))
            if number == 100:
                yield "s003", Features(values_of("other"))

    store = FeatureStore(tmp_path, compute=Computing(answers))
    with pytest.raises(ValuesError, match="answered 's003' twice; nothing is stored for it"):
        extract(store, KEY, ids)
    assert len(segment_dirs(tmp_path)) >= 2
    assert stored(tmp_path) == [id for id in ids[:101] if id != "s003"]
    assert store.failures(KEY) == {}


def test_a_second_answer_leaves_what_another_process_stored(tmp_path: Path) -> None:
    def answers(ids: Iterable[str]) -> Answers:
        yield "a", Features(values_of("a"))
        FeatureStore(tmp_path).put_many(KEY, ["a"], batch(["a"]), recipe={"made_by": "Computing"})
        for number in range(64):
            yield f"s{number}", Features(values_of(f"s{number}"))
        yield "a", Features(values_of("a"))

    ids = ["a", *(f"s{number}" for number in range(64))]

    def asking(given: Iterable[str]) -> Answers:
        list(given)
        return answers(given)

    with pytest.raises(ValuesError, match="answered 'a' twice"):
        extract(FeatureStore(tmp_path, compute=Computing(asking)), KEY, ids)
    assert "a" in stored(tmp_path)


# -- broken by one sample: it fails alone -----------------------------------------------------------

WRONG: dict[str, tuple[Any, str]] = {
    "rows": (values_of(BAD, 3), r"values are \(3, 6\), not \(4, \.\.\.\)"),
    "dim": (values_of(BAD, dim=DIM + 1), "has frames of float32 .feature 7., but those of .* are float32 .feature 6."),
    "dtype": (
        values_of(BAD).astype(np.float64),
        "values are float64, not an array of float16, float32, uint8 or bfloat16",
    ),
    "other dtype": (values_of(BAD).astype(np.float16), "frames of float16 .feature 6., but those of .* are float32"),
    "no array": ([[1.0]], "values are list, not an array"),
}


@every_way
@pytest.mark.parametrize("what", WRONG)
def test_features_of_the_wrong_form_fail_alone_and_are_tried_again(tmp_path: Path, way: str, what: str) -> None:
    values, words = WRONG[what]
    store = FeatureStore(tmp_path, compute=Computing(instead(Features(values))))
    found = WAYS[way](store, IDS)
    assert found.rows == stored(tmp_path) == ["a", "c", "d"]
    assert list(found.failed) == [BAD]
    assert re.search(words, found.failed[BAD])
    assert store.failures(KEY) == {}


@every_way
@pytest.mark.parametrize("provenance", [["sources"], {"sources": 5}, {"note": object()}, {"note": float("nan")}])
def test_provenance_that_cannot_be_kept_fails_alone(tmp_path: Path, way: str, provenance: Any) -> None:
    store = FeatureStore(tmp_path, compute=Computing(instead(Features(values_of(BAD), provenance=provenance))))
    found = WAYS[way](store, IDS)
    assert found.rows == stored(tmp_path) == ["a", "c", "d"]
    assert "provenance" in found.failed[BAD]
    assert store.failures(KEY) == {}


@every_way
def test_numbers_that_are_none_are_recorded(tmp_path: Path, way: str) -> None:
    store = FeatureStore(tmp_path, compute=Computing(instead(Features(values_of(BAD) * np.nan))))
    found = WAYS[way](store, IDS)
    assert found.failed == {BAD: "sample 'b': 24 of 24 values are NaN or infinite"}
    assert list(store.failures(KEY)) == [BAD]
    assert stored(tmp_path) == ["a", "c", "d"]


# -- raising in the middle --------------------------------------------------------------------------


@every_way
def test_what_a_compute_raises_is_passed_on_after_the_sound_rows_are_stored(tmp_path: Path, way: str) -> None:
    error = ZeroDivisionError("in the middle")

    def raising(ids: Iterable[str]) -> Answers:
        for id, features in sound(ids):
            if id == "c":
                raise error
            yield id, features

    store = FeatureStore(tmp_path, compute=Computing(raising))
    found = WAYS[way](store, IDS)
    assert found.raised is error
    assert stored(tmp_path) == (["a", "b", "d"] if way == "get" else ["a", "b"])
    assert store.failures(KEY) == {}


@every_way
def test_a_compute_that_raises_before_it_answers_is_passed_on(tmp_path: Path, way: str) -> None:
    compute = Computing(lambda ids: 1 / 0)
    found = WAYS[way](FeatureStore(tmp_path, compute=compute), ["a"])
    assert isinstance(found.raised, ZeroDivisionError)
    assert not isinstance(found.raised, FeatureStoreError)
    assert compute.calls == 1


# -- and nothing is held any more -------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("how", ["unasked", "twice", "array"])
def test_after_a_broken_contract_the_locks_are_free(tmp_path: Path, way: str, how: str) -> None:
    store = FeatureStore(tmp_path, compute=Computing(BROKEN[how][0]))
    WAYS[way](store, IDS)
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    with feature_set.locks.recipe(0):
        for id in IDS:
            lock = feature_set.locks.try_hold(bucket_of(id))
            assert lock is not None
            lock.release()
    store.compute.answers = sound  # type: ignore[union-attr]
    np.testing.assert_array_equal(store.get_many(KEY, IDS), batch(IDS))

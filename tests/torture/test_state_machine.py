"""Any sequence of operations, against a dict: hypothesis looks for one after which they differ."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figures import Figures
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from mutants import mutant
from oracle import ALL, AXES, KEY, RECIPE, SECOND_RECIPE, value

from featurestore import Failure, Features, FeatureStore, Recipe
from featurestore.errors import ExistsError, FailedSampleError, FailedSamplesError, MissingFeatureError
from featurestore.key import FeatureKey
from featurestore.quality import check_store
from featurestore.storage import maintenance
from featurestore.storage.rows import as_rows, checked
from featurestore.storage.writer import commit

Place = tuple[FeatureKey, Recipe]
PLACES: list[Place] = [(KEY, RECIPE), (KEY, SECOND_RECIPE), (ALL, RECIPE)]
IDS = ["a", "b", "-rf", "../../etc/passwd", "a/b", "é", "e\u0301", "x" * 512]

places = st.sampled_from(PLACES)
ids = st.lists(st.sampled_from(IDS), min_size=1, max_size=5)
unique_ids = st.lists(st.sampled_from(IDS), min_size=1, max_size=5, unique=True)
handles = st.sampled_from([0, 1])


class Making:
    """A compute of one recipe.  Ids in `broken` fail for good."""

    def __init__(self, recipe: Recipe) -> None:
        self.own = recipe
        self.broken: set[str] = set()
        self.version = 0

    def recipe(self, key: FeatureKey) -> Recipe:
        return self.own

    def __call__(self, key: FeatureKey, ids: Sequence[str]) -> Iterator[tuple[str, Features | Failure]]:
        for id in reversed(ids):
            if id in self.broken:
                yield id, Failure("media", "made to fail")
            else:
                yield (
                    id,
                    Features(value(id, self.version, key), provenance={"version": self.version}, axes=AXES.get(key)),
                )


class StoreMachine(RuleBasedStateMachine):
    """Two store objects on one directory; `model` is what they must answer.

    What one does the other sees after refresh, or at the listing of a miss: until then it may answer
    as things were at any time since it last looked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="torture-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.model: dict[Place, dict[str, int]] = {place: {} for place in PLACES}
        self.failed: dict[Place, set[str]] = {place: set() for place in PLACES}
        self.stores = [FeatureStore(self.root), FeatureStore(self.root, memory_bytes=1_000)]
        self.history: list[dict[tuple[Place, str], set[int]]] = [{}, {}]
        self.version = 0
        self.started_ns: dict[Place, tuple[int, set[str]]] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def became(self, by: int, place: Place, changes: dict[str, int]) -> None:
        for handle, seen in enumerate(self.history):
            for id, version in changes.items():
                if handle != by:
                    seen.setdefault((place, id), {self.model[place].get(id, 0)}).add(version)
                else:
                    seen.pop((place, id), None)
        self.model[place].update(changes)
        if place in self.started_ns:
            self.started_ns[place][1].difference_update(id for id, version in changes.items() if not version)
        self.failed[place] -= {id for id, version in changes.items() if version}

    def may_answer(self, handle: int, place: Place, id: str) -> set[int]:
        return self.history[handle].get((place, id), set()) | {self.model[place].get(id, 0)}

    # -- changing ------------------------------------------------------------------------------

    @rule(handle=handles, place=places, ids=unique_ids, overwrite=st.booleans())
    def put(self, handle: int, place: Place, ids: list[str], overwrite: bool) -> None:
        key, recipe = place
        self.version += 1
        values = [value(id, self.version, key) for id in ids]
        notes = [{"version": self.version} for _ in ids]
        put = lambda: self.stores[handle].put_many(  # noqa: E731
            key, ids, values, recipe=recipe, provenance=notes, axes=AXES.get(key), overwrite=overwrite
        )
        stored = [id for id in ids if self.model[place].get(id)]
        if stored and not overwrite:
            with pytest.raises(ExistsError, match="overwrite=True"):
                put()
            return
        assert put() == len(ids) - len(stored)
        self.became(handle, place, dict.fromkeys(ids, self.version))

    @rule(handle=handles, place=places, id=st.sampled_from(IDS))
    def put_the_same_again(self, handle: int, place: Place, id: str) -> None:
        key, recipe = place
        version = self.model[place].get(id)
        if version:
            put = self.stores[handle].put_many
            values, notes = [value(id, version, key)], [{"version": 0}]
            assert put(key, [id], values, recipe=recipe, provenance=notes, axes=AXES.get(key)) == 0

    @rule(handle=handles, place=places, ids=ids)
    def delete(self, handle: int, place: Place, ids: list[str]) -> None:
        if not self.model[place]:
            return
        stored = {id for id in ids if self.model[place].get(id)}
        assert self.stores[handle].delete(place[0], ids, fingerprint=place[1].fingerprint) == len(stored)
        self.became(handle, place, dict.fromkeys(stored, 0))

    @rule(handle=handles, place=places, grace_s=st.sampled_from([0, 900]))
    def compact(self, handle: int, place: Place, grace_s: float) -> None:
        if self.model[place]:
            self.feature_set(handle, place).compact(grace_s)

    @rule(place=places, id=st.sampled_from(IDS))
    def race(self, place: Place, id: str) -> None:
        """Two processes store one id at the same moment: the segment that is first by name counts, for everybody."""
        if self.model[place] and not self.model[place].get(id):
            self.version += 2
            now_ns = time.time_ns()
            self.commit(place, id, self.version, now_ns + 1)
            self.commit(place, id, self.version - 1, now_ns)
            self.became(-1, place, {id: self.version - 1})
            self.failed[place].discard(id)
            self.feature_set(0, place).failures.clear([id])

    @rule(place=places, id=st.sampled_from(IDS))
    def late_writer(self, place: Place, id: str) -> None:
        """A process that looked before another one stored the id, and commits long after, is too late."""
        if self.model[place].get(id) and place in self.started_ns:
            self.version += 1
            started_ns, stored = self.started_ns[place]
            if id in stored:
                self.commit(place, id, self.version, started_ns)

    @rule(place=places)
    def a_writer_starts(self, place: Place) -> None:
        self.started_ns[place] = time.time_ns(), {id for id, version in self.model[place].items() if version}

    def commit(self, place: Place, id: str, version: int, time_ns: int) -> None:
        features = Features(value(id, version, place[0]), provenance={"version": version}, axes=AXES.get(place[0]))
        where = self.feature_set(0, place).layout
        for rows in as_rows(place[0], {id: checked(place[0], id, features)}):
            commit(where, place[1], rows, time_ns=time_ns)

    @rule(place=places, days=st.lists(st.integers(-2, 2), min_size=1, max_size=4))
    def clocks_differ(self, place: Place, days: list[int]) -> None:
        """Segments were written by hosts whose clocks are days apart."""
        if self.model[place]:
            for number, path in enumerate(sorted(self.feature_set(0, place).layout.segments.glob("*/zarr.json"))):
                time_s = time.time() + 86_400 * days[number % len(days)]
                os.utime(path, (time_s, time_s))

    @rule(handle=handles, place=places, grace_s=st.sampled_from([0, 900]))
    def gc(self, handle: int, place: Place, grace_s: float) -> None:
        if self.model[place]:
            self.feature_set(handle, place).gc(grace_s)

    @rule(place=places, ids=unique_ids, broken=st.sets(st.sampled_from(IDS), max_size=2))
    def compute(self, place: Place, ids: list[str], broken: set[str]) -> None:
        """Misses are made and kept, and failures recorded; what is stored is not made again."""
        key, recipe = place
        self.version += 1
        making = Making(recipe)
        making.broken, making.version = broken, self.version
        store = FeatureStore(self.root, compute=making)
        for id in ids:
            version = self.model[place].get(id, 0)
            if not version and (id in broken or id in self.failed[place]):
                with pytest.raises(FailedSampleError, match="made to fail"):
                    store.get(key, id)
                self.failed[place].add(id)
                self.model[place].setdefault(id, 0)
                continue
            np.testing.assert_array_equal(store.get(key, id), value(id, version or self.version, key))
            if not version:
                self.became(-1, place, {id: self.version})

    @rule(place=places, ids=ids)
    def retry(self, place: Place, ids: list[str]) -> None:
        if self.model[place]:
            cleared = self.feature_set(0, place).failures.clear(ids)
            assert cleared == len(self.failed[place] & set(ids))
            self.failed[place] -= set(ids)

    @rule(handle=handles)
    def refresh(self, handle: int) -> None:
        self.stores[handle].refresh()
        self.history[handle].clear()

    @rule(handle=handles)
    def reopen(self, handle: int) -> None:
        self.stores[handle] = FeatureStore(self.root, memory_bytes=1_000 * handle)
        self.history[handle].clear()

    @rule(handle=handles)
    def pickle(self, handle: int) -> None:
        self.stores[handle] = pickle.loads(pickle.dumps(self.stores[handle]))
        self.history[handle].clear()

    # -- asking --------------------------------------------------------------------------------

    @rule(handle=handles, place=places, id=st.sampled_from(IDS))
    def get(self, handle: int, place: Place, id: str) -> None:
        key, recipe = place
        allowed = self.may_answer(handle, place, id)
        if not self.model[place]:
            return
        try:
            features = self.stores[handle].get_features(key, id, fingerprint=recipe.fingerprint)
            values = self.stores[handle].get(key, id, fingerprint=recipe.fingerprint)
        except MissingFeatureError:
            assert 0 in allowed
            return
        except FailedSampleError:
            assert 0 in allowed
            assert id in self.failed[place]
            return
        assert features.provenance is not None
        assert features.provenance["version"] in allowed
        assert any(np.array_equal(values, value(id, version, key)) for version in allowed if version)
        assert np.array_equal(features.values, value(id, features.provenance["version"], key))
        values[:] = np.nan  # ours: nobody else sees it

    @rule(handle=handles, place=places, id=st.sampled_from(IDS), step=st.sampled_from([1, 2]))
    def get_frames(self, handle: int, place: Place, id: str, step: int) -> None:
        key, recipe = place
        allowed = self.may_answer(handle, place, id)
        if not self.model[place]:
            return
        try:
            features = self.stores[handle].get_features(key, id, slice(0, 2, step), fingerprint=recipe.fingerprint)
        except MissingFeatureError:
            assert 0 in allowed
            return
        except FailedSampleError:
            assert 0 in allowed
            assert id in self.failed[place]
            return
        assert features.provenance is not None
        assert features.provenance["version"] in allowed
        assert np.array_equal(features.values, value(id, features.provenance["version"], key)[:2:step])

    @rule(handle=handles, place=places, ids=ids)
    def get_many(self, handle: int, place: Place, ids: list[str]) -> None:
        key, recipe = place
        if not self.model[place]:
            return
        allowed = [self.may_answer(handle, place, id) for id in ids]
        try:
            read = self.stores[handle].get_ragged if key.n_frames == "all" else self.stores[handle].get_many
            batch: Any = read(key, ids, fingerprint=recipe.fingerprint)
        except MissingFeatureError:
            assert any(0 in versions for versions in allowed)
            return
        except FailedSamplesError as error:
            failures = error.failures
            batch = None
        if batch is None:
            assert set(failures) <= self.failed[place] & set(ids)
            return
        for values, id, versions in zip(batch, ids, allowed, strict=True):
            assert any(np.array_equal(values, value(id, version, key)) for version in versions if version)

    @rule(place=places)
    def look(self, place: Place) -> None:
        """Everything, by a new object."""
        key, recipe = place
        store = FeatureStore(self.root)
        stored = {id: version for id, version in self.model[place].items() if version}
        if self.model[place]:
            assert store.ids(key, fingerprint=recipe.fingerprint) == sorted(stored)
            assert store.missing(key, IDS, fingerprint=recipe.fingerprint) == [id for id in IDS if id not in stored]
            assert set(self.feature_set(0, place).failures.all()) == self.failed[place]
        for id, version in stored.items():
            np.testing.assert_array_equal(store.get(key, id, fingerprint=recipe.fingerprint), value(id, version, key))

    @rule()
    def verify(self) -> None:
        assert [str(finding) for finding in check_store(self.root, full=True).findings] == []

    @invariant()
    def nothing_is_damaged(self) -> None:
        for handle in range(len(self.stores)):
            for place in PLACES:
                if self.model[place]:
                    assert self.feature_set(handle, place).reader.problems == {}

    def feature_set(self, handle: int, place: Place) -> Any:
        return self.stores[handle].feature_set(place[0], fingerprint=place[1].fingerprint)


def search(examples: int, steps: int) -> None:
    how = settings(
        report_multiple_bugs=False,
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(StoreMachine, settings=how)


@pytest.mark.timeout(0)
def test_a_store_is_a_dict(long_run: bool, rounds: Any, figures: Figures) -> None:
    examples, steps = rounds(500, 20_000), 40
    search(examples, steps)  # raises at the first difference
    beside = {"operations in each, at most": steps}
    figures.record("any operations against a dict", examples, "sequences", {"different": 0}, beside)


# Sequences that a random search finds once in a lifetime: what to break, and where that shows.


def store_too_late(machine: StoreMachine) -> None:
    machine.put(0, PLACES[0], ["a", "b"], False)
    machine.a_writer_starts(PLACES[0])
    machine.put(0, PLACES[0], ["a"], True)
    machine.late_writer(PLACES[0], "a")


def remove_by_odd_clocks(machine: StoreMachine) -> None:
    made = []
    for step in (
        lambda: machine.put(0, PLACES[0], ["a", "b"], False),
        lambda: machine.put(0, PLACES[0], ["a"], True),
        lambda: machine.delete(0, PLACES[0], ["a"]),
    ):
        step()
        made.append(machine.feature_set(0, PLACES[0]).reader.segments[0].name)
    # The clock that wrote the second one is ahead: what it replaced is due long after itself.
    days = dict(zip(made, (0, 2, -2), strict=True))
    machine.clocks_differ(PLACES[0], [days[name] for name in sorted(made)])
    machine.gc(0, PLACES[0], 900)


def delete_what_two_stored(machine: StoreMachine) -> None:
    machine.put(0, PLACES[0], ["b"], False)
    machine.race(PLACES[0], "a")
    machine.delete(0, PLACES[0], ["a"])


SEQUENCES = [store_too_late, remove_by_odd_clocks, delete_what_two_stored]
MUTANTS = {
    store_too_late: lambda: mutant(
        maintenance._replace,
        "time_ns = int(min(segment.name for segment in old)[:20]) - 1",
        "time_ns = None",
    ),
    remove_by_odd_clocks: lambda: mutant(
        maintenance._replace, "for name in segment.replaces if name in on_disk", "for name in ()"
    ),
    delete_what_two_stored: lambda: mutant(maintenance.rewrite, "(segment, wanted)]", "(segment, wanted)][:1]"),
}


def run_sequence(sequence: Callable[[StoreMachine], None]) -> None:
    machine = StoreMachine()
    try:
        sequence(machine)
        for place in PLACES:
            machine.look(place)
    finally:
        machine.teardown()


def run_often(sequence: Callable[[StoreMachine], None]) -> None:
    """Names of one time sort by chance, and some orders hide what is broken."""
    for _ in range(30):
        run_sequence(sequence)


@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda sequence: sequence.__name__)
def test_a_store_that_is_not_a_dict_is_caught(sequence: Callable[[StoreMachine], None], figures: Figures) -> None:
    run_sequence(sequence)
    with MUTANTS[sequence](), pytest.raises(AssertionError):
        run_often(sequence)
    figures.caught("any operations against a dict", sequence.__name__.replace("_", " "))

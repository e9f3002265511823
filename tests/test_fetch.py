"""fetch: one outcome for each sample, and an error only for what concerns all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store_factories import ALL, KEY, RECIPE, Making, fill, flip, segment_dirs, values_of

from featurestore import Failure, FeatureKey, Features, FeatureStore, Recipe
from featurestore.errors import (
    AmbiguousRecipeError,
    CorruptSegmentError,
    FailedSampleError,
    FailedSamplesError,
    InvalidIdError,
    MissingFeatureError,
    SampleError,
    WeightsNotFoundError,
)

BAD = Failure("media", "b.mp4 is truncated")


def rows(outcomes: dict[str, Features | Failure]) -> dict[str, Features]:
    return {id: outcome for id, outcome in outcomes.items() if isinstance(outcome, Features)}


def why(outcomes: dict[str, Features | Failure]) -> dict[str, tuple[str, bool]]:
    found = {id: outcome for id, outcome in outcomes.items() if isinstance(outcome, Failure)}
    return {id: (failure.reason, failure.deterministic) for id, failure in found.items()}


def test_each_sample_has_its_outcome_in_the_order_of_the_request(tmp_path: Path) -> None:
    made = Features(values_of("a"), np.arange(4), np.linspace(0, 1, 4), {"note": {"pair": (1, 2)}})
    making = Making(a=made, b=BAD, slow=Failure("timeout", "slow", deterministic=False))
    store = FeatureStore(tmp_path, compute=making)
    store.get(KEY, "stored")
    outcomes = store.fetch(KEY, ["b", "stored", "a", "slow", "b", "c", "a"])
    assert list(outcomes) == ["b", "stored", "a", "slow", "c"]
    assert making.asked == [["stored"], ["b", "a", "slow", "c"]]
    assert why(outcomes) == {"b": ("media", True), "slow": ("timeout", False)}
    found = rows(outcomes)
    assert {id: features.served_from for id, features in found.items()} == {
        "stored": "disk",
        "a": "computed",
        "c": "computed",
    }
    for id, features in found.items():
        np.testing.assert_array_equal(features.values, values_of(id))
        assert features.recipe == Recipe({"made_by": "Making"})
    np.testing.assert_array_equal(found["a"].frame_indices, np.arange(4))
    np.testing.assert_array_equal(found["a"].timestamps_s, np.linspace(0, 1, 4))
    assert found["a"].provenance == {"note": {"pair": [1, 2]}}
    again = rows(FeatureStore(tmp_path).fetch(KEY, ["a"]))["a"]
    assert (again.provenance, again.served_from) == (found["a"].provenance, "disk")
    stats = store.stats
    assert (stats.misses, stats.computed, stats.failed, stats.disk_hits) == (5, 3, 2, 1)
    assert store.fetch(KEY, []) == {}


def test_a_record_is_an_outcome_with_its_sources(tmp_path: Path) -> None:
    source = {"path": "/b.mp4", "size": 1, "mtime_ns": 1, "sha256": "00"}
    FeatureStore(tmp_path, compute=Making(b=Failure("media", "cut", sources=[source]))).fetch(KEY, ["b"])
    for store in (FeatureStore(tmp_path), FeatureStore(tmp_path, compute=Making())):
        assert store.fetch(KEY, ["b"]) == {"b": Failure("media", "cut", sources=[source])}


def test_without_a_compute_what_is_not_stored_is_missing(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    for store in (FeatureStore(tmp_path), FeatureStore(tmp_path, read_only=True)):
        outcomes = store.fetch(KEY, ["a", "x", "y"])
        assert list(rows(outcomes)) == ["a"]
        assert why(outcomes) == {"x": ("missing", False), "y": ("missing", False)}
        missing = outcomes["x"]
        assert isinstance(missing, Failure)
        assert missing.message.startswith(f"sample 'x' is not stored under {KEY}@")
        assert "; open it with one: `FeatureStore(" in missing.message
    assert why(FeatureStore(tmp_path / "nothing").fetch(KEY, ["a"])) == {"a": ("missing", False)}
    other = FeatureKey(KEY.dataset, KEY.modality, KEY.encoder, "unifrom", KEY.n_frames)
    unknown = FeatureStore(tmp_path).fetch(other, ["a"])["a"]
    assert isinstance(unknown, Failure)
    assert f"did you mean {KEY}" in unknown.message


def test_a_read_only_store_makes_what_it_does_not_keep(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store", compute=Making(b=BAD), read_only=True)
    outcomes = store.fetch(KEY, ["a", "b"])
    assert rows(outcomes)["a"].served_from == "computed"
    assert why(outcomes) == {"b": ("media", True)}
    assert store.stats.not_kept == 1
    assert not (tmp_path / "store").exists()


def test_samples_of_several_lengths(tmp_path: Path) -> None:
    made = {id: Features(values_of(id, n)) for id, n in (("one", 1), ("three", 3))}
    outcomes = FeatureStore(tmp_path, compute=Making(**made)).fetch(ALL, ["three", "one"])
    assert [len(features.values) for features in rows(outcomes).values()] == [3, 1]


@pytest.mark.parametrize("memory_bytes", [0, 10**6])
def test_a_damaged_row_is_made_again_or_the_disk_is_told(tmp_path: Path, memory_bytes: int) -> None:
    making = Making()
    FeatureStore(tmp_path, compute=making).get_many(KEY, ["a", "b"])
    flip(segment_dirs(tmp_path)[0] / "c.0.0.0", 5)
    reading = FeatureStore(tmp_path, memory_bytes=memory_bytes)
    with pytest.raises(CorruptSegmentError, match="repair=True\\)` moves what is damaged aside"):
        reading.fetch(KEY, ["a", "b"])
    outcomes = FeatureStore(tmp_path, compute=making, memory_bytes=memory_bytes).fetch(KEY, ["a", "b"])
    assert {id: features.served_from for id, features in rows(outcomes).items()} == {"a": "computed", "b": "disk"}


def test_what_concerns_all_samples_raises(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    for id in ("", 5, None, ["a"]):
        for root in (tmp_path, tmp_path / "nothing"):
            with pytest.raises(InvalidIdError):
                FeatureStore(root).fetch(KEY, [id])  # type: ignore[list-item]
    with pytest.raises(WeightsNotFoundError):
        FeatureStore(tmp_path, compute=Making(x=WeightsNotFoundError("no weights"))).fetch(KEY, ["x"])
    FeatureStore(tmp_path).put_many(KEY, ["b"], values_of("b")[None], recipe={**RECIPE, "other": 1})
    with pytest.raises(AmbiguousRecipeError):
        FeatureStore(tmp_path).fetch(KEY, ["a"])
    assert list(rows(FeatureStore(tmp_path).fetch(KEY, ["a"], fingerprint=Recipe(RECIPE).fingerprint))) == ["a"]


def test_what_concerns_a_sample_is_one_family_of_errors(tmp_path: Path) -> None:
    """A loop over samples catches SampleError, and a store that is the wrong one still ends it."""
    store = FeatureStore(tmp_path, compute=Making(b=BAD, slow=Failure("timeout", "slow", deterministic=False)))
    for id, deterministic in (("b", True), ("slow", False)):
        with pytest.raises(SampleError) as one:
            store.get(KEY, id)
        assert isinstance(one.value, FailedSampleError)
        assert one.value.deterministic is deterministic
        assert one.value.reason == one.value.failure.reason
    with pytest.raises(SampleError) as batch:
        store.get_many(KEY, ["a", "b", "c"])
    assert isinstance(batch.value, FailedSamplesError)
    assert list(batch.value.failures) == ["b"]
    assert list(batch.value.values) == ["a", "c"]
    for id, values in batch.value.values.items():
        np.testing.assert_array_equal(values, values_of(id))
    with pytest.raises(MissingFeatureError) as missing:
        FeatureStore(tmp_path).get(KEY, "never")
    assert not isinstance(missing.value, SampleError)

"""Features and Failure: what a compute answers with."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys

import numpy as np
import pytest

from featurestore import Failure, Features, Recipe


def test_features_show_their_shape_and_not_their_numbers() -> None:
    features = Features(np.zeros((8, 768), np.float16))
    assert repr(features) == "Features((8, 768) float16, recipe=None, served_from=None)"
    features = Features(np.zeros((1, 2), np.float32), recipe=Recipe({"weights": "bar"}), served_from="disk")
    assert repr(features) == "Features((1, 2) float32, recipe='9756228ba4896123', served_from='disk')"


def test_what_a_compute_does_not_know_is_none() -> None:
    features = Features(np.zeros((1, 2), np.float32))
    rest = [getattr(features, field.name) for field in dataclasses.fields(features) if field.name != "values"]
    assert rest == [None] * 6


def test_features_have_no_other_attributes() -> None:
    with pytest.raises(AttributeError):
        Features(np.zeros((1, 2), np.float32)).vaules = 1  # type: ignore[attr-defined]


def test_features_can_be_compared_without_numpys_ambiguous_truth() -> None:
    values = np.zeros((2, 3), np.float32)
    one = Features(values)
    assert one == one
    assert one != Features(values)


def test_features_and_failures_can_be_sent_to_another_process() -> None:
    features = Features(np.ones((2, 3), np.float32), np.arange(2), np.arange(2.0), {"a": 1}, Recipe({"x": 1}), "disk")
    again = pickle.loads(pickle.dumps(features))
    np.testing.assert_array_equal(again.values, features.values)
    assert (again.provenance, again.recipe, again.served_from) == ({"a": 1}, Recipe({"x": 1}), "disk")
    failure = Failure("media", "x", sources=({"path": "a"},))
    assert pickle.loads(pickle.dumps(failure)) == failure


def test_a_failure_is_deterministic_unless_it_says_otherwise_and_does_not_change() -> None:
    failure = Failure("media", "x")
    assert failure.deterministic
    with pytest.raises(dataclasses.FrozenInstanceError):
        failure.reason = "y"  # type: ignore[misc]


def test_the_room_needs_no_numpy() -> None:
    code = "import sys; from featurestore.features import Failure, Features; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

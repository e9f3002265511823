"""Recipe: one canonical text, one fingerprint, nothing that JSON would bend."""

from __future__ import annotations

import enum
import hashlib
import json
import pickle
from collections import OrderedDict
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore import Recipe
from featurestore.errors import RecipeError

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))
recipes = st.dictionaries(names, values, max_size=4)


@pytest.mark.parametrize(
    ("data", "canonical", "fingerprint"),
    [
        ({"weights": "bar"}, '{"weights":"bar"}', "9756228ba4896123"),
        (
            {"b": 1, "a": {"y": [1, 2.5, True, None], "x": "é"}},
            '{"a":{"x":"é","y":[1,2.5,true,null]},"b":1}',
            "37a1c94cdb54c56f",
        ),
    ],
)
def test_vectors_of_the_format(data: dict[str, Any], canonical: str, fingerprint: str) -> None:
    recipe = Recipe(data)
    assert recipe.canonical == canonical
    assert recipe.fingerprint == fingerprint
    assert recipe.fingerprint == hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:16]


def test_order_and_container_types_do_not_matter() -> None:
    plain = Recipe({"a": 1, "b": [1, 2], "c": {"d": None}})
    assert Recipe({"c": {"d": None}, "b": (1, 2), "a": 1}) == plain
    assert Recipe(OrderedDict(b=[1, 2], a=1, c=MappingProxyType({"d": None}))) == plain
    assert hash(Recipe(MappingProxyType({"a": 1, "b": [1, 2], "c": {"d": None}}))) == hash(plain)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"a": True}),
        ({"a": 0}, {"a": False}),
        ({"a": 0.0}, {"a": -0.0}),
        ({"a": "1"}, {"a": 1}),
        ({"a": None}, {}),
        ({"a": []}, {"a": {}}),
        ({"a": "é"}, {"a": "e\u0301"}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": {"b": 1}}, {"a.b": 1}),
        ({"a": 0.1}, {"a": 0.1 + 2**-56}),
    ],
)
def test_whatever_differs_is_another_recipe(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert Recipe(one) != Recipe(other)
    assert Recipe(one).fingerprint != Recipe(other).fingerprint


@given(recipes)
def test_data_comes_back_and_means_the_same_recipe(data: dict[str, Any]) -> None:
    recipe = Recipe(data)
    assert recipe.data == json.loads(json.dumps(data))
    assert Recipe(recipe.data) == recipe
    assert Recipe(recipe.data).fingerprint == recipe.fingerprint
    assert recipe.canonical == json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert pickle.loads(pickle.dumps(recipe)) == recipe


class Layer(enum.IntEnum):
    LAST = 4


class Text(str):
    pass


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({1: "a"}, "key 1"),
        ({Text("a"): 1}, "key 'a'"),
        ({"a": float("nan")}, r"recipe\['a'\] is nan"),
        ({"a": [0, float("inf")]}, r"recipe\['a'\]\[1\] is inf"),
        ({"a": {"b": -float("inf")}}, r"recipe\['a'\]\['b'\] is -inf"),
        ({"a": {1, 2}}, "is a set"),
        ({"a": b"x"}, "is a bytes"),
        ({"a": np.float32(1)}, "is a float32"),
        ({"a": np.int64(1)}, "is a int64"),
        ({"a": np.zeros(2)}, "is a ndarray"),
        ({"a": Layer.LAST}, "is a Layer"),
        ({"a": Text("x")}, "is a Text"),
        ({"a": 1j}, "is a complex"),
        ([("a", 1)], "recipe is a list"),
        ("text", "recipe is a str"),
        ({"a": "\ud800"}, "not valid UTF-8"),
    ],
)
def test_what_json_would_change_is_refused(data: Any, where: str) -> None:
    with pytest.raises(RecipeError, match=where):
        Recipe(data)


def test_a_recipe_cannot_be_changed() -> None:
    data: dict[str, Any] = {"layers": [1, 2]}
    recipe = Recipe(data)
    data["layers"].append(3)
    recipe.data["layers"].append(4)
    assert recipe.data == {"layers": [1, 2]}
    with pytest.raises(AttributeError, match="immutable"):
        recipe.fingerprint = "0" * 16


def test_of_takes_a_recipe_or_a_dict() -> None:
    recipe = Recipe({"a": 1})
    assert Recipe.of(recipe) is recipe
    assert Recipe.of({"a": 1}) == recipe
    assert recipe != {"a": 1}
    assert repr(recipe) == "Recipe({'a': 1})"


def test_a_recipe_that_is_nested_too_deeply_is_refused() -> None:
    data: dict[str, Any] = {}
    for _ in range(100_000):
        data = {"a": data}
    with pytest.raises(RecipeError, match="nested 64 deep at most"):
        Recipe(data)

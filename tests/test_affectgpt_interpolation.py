"""Interpolations are what OmegaConf makes of them, or an error that names the key."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
from omegaconf import OmegaConf

from featurestore.affectgpt.interpolation import resolve
from featurestore.errors import ConfigError

DATA: dict[str, Any] = {
    "a": {"x": "${oc.env:DATA}/f", "y": "${a.x}/g", "z": ["${.1}", "k"], "w": "${oc.env:NOPE,zz}", "v": "${.y}"},
    "n": 3, "m": "${n}", "plain": "$5 and ~", "none": None,
}  # fmt: skip


def test_values_are_those_of_omegaconf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "/d")
    found = resolve(DATA, "f.yaml")
    assert found == OmegaConf.to_container(OmegaConf.create(DATA), resolve=True)
    assert found["a"]["v"] == "/d/f/g"
    assert DATA["a"]["y"] == "${a.x}/g", "what was given stays as it is"
    plain = {"a": {"b": "c"}}
    assert resolve(plain, "f.yaml") is plain


BOMB = {f"k{i}": f"${{k{i - 1}}}" * 10 if i else "x" * 10 for i in range(30)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a": {"b": "${oc.env:NOPE_1}"}}, r"a\.b is '\$\{oc\.env:NOPE_1\}', which has no value here: .*NOPE_1"),
        ({"a": "${env:HOME}"}, "a is .* which has no value here: Unsupported interpolation type env"),
        ({"a": "${q}"}, "Interpolation key 'q' not found"),
        ({"a": "${"}, "a is .* which has no value here"),
        ({"a": "${b}", "b": "${a}"}, "a is '\\$\\{b\\}', which leads back to itself"),
        ({"a": "${c}", "c": {"d": 1}}, "a whole section, not a value"),
        (BOMB, "k3 has more than 4096 characters"),
    ],
)
def test_what_has_no_value_is_refused_by_its_key(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^f\.yaml: .*{message}"):
        resolve(data, "f.yaml")


def test_without_omegaconf_an_interpolation_is_refused_and_all_else_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "omegaconf":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert resolve({"a": "b"}, "f.yaml") == {"a": "b"}
    with pytest.raises(ConfigError, match=r"f\.yaml: a\.x is .* needs omegaconf .*; or write the value"):
        resolve(DATA, "f.yaml")

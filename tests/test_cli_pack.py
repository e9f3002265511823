"""`fstore pack`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray
from click.testing import CliRunner, Result

from featurestore import FeatureKey, FeatureStore
from featurestore.cli import fstore

KEY = FeatureKey("mine", "frame", "E", "uniform", 8)


def run(*words: object) -> Result:
    return CliRunner().invoke(fstore, [str(word) for word in words])


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = FeatureStore(tmp_path / "store")
    store.put_many(KEY, ["a", "b"], np.ones((2, 8, 4), np.float32), recipe={"weights": "x"})
    return store


def test_a_line_or_json_says_what_was_packed(store: FeatureStore, tmp_path: Path) -> None:
    name = next(iter(store.recipes(KEY)))
    result = run("pack", KEY, "-o", tmp_path / "packed", "--store", store.root)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"2 samples of {KEY}@{name[:8]} in {tmp_path}/packed, ")
    result = run("pack", f"{KEY}@{name[:8]}", "--output", tmp_path / "packed.zip", "--store", store.root, "--json")
    told = json.loads(result.stdout)
    assert (told["key"], told["recipe"], told["samples"]) == (str(KEY), name, 2)
    assert told["bytes"] == (tmp_path / "packed.zip").stat().st_size
    assert xarray.open_zarr(tmp_path / "packed", chunks=None)["values"].shape == (2, 8, 4)


def test_what_goes_wrong_is_a_line_and_an_exit_code(store: FeatureStore, tmp_path: Path) -> None:
    assert "--output" in run("pack", KEY, "--store", store.root).stderr
    result = run("pack", KEY, "-o", tmp_path, "--store", store.root)
    assert result.exit_code == 1
    assert "exists, and a pack is written as a whole" in result.stderr
    result = run("pack", "mine/frame/E/unifrom/8", "-o", tmp_path / "packed", "--store", store.root)
    assert result.exit_code == 1
    assert f"did you mean {KEY}?" in result.stderr
    store.put_many(KEY, ["a"], np.ones((1, 8, 4), np.float32), recipe={"weights": "y"})
    result = run("pack", KEY, "-o", tmp_path / "packed", "--store", store.root)
    assert result.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["store"]

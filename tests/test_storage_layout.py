"""The levels of a store above its segments."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from store_factories import KEY, RECIPE

from featurestore import FeatureKey, Recipe
from featurestore.errors import InvalidKeyError
from featurestore.storage import layout as room
from featurestore.storage.layout import Layout, ensure_group, ensure_levels

FINGERPRINT = Recipe(RECIPE).fingerprint
LEVELS = ["data", *KEY.parts, FINGERPRINT, "segments"]


@pytest.fixture(autouse=True)
def _as_another_process() -> None:
    room._durable.clear()


def test_a_place_is_the_key_and_the_fingerprint_as_directories(tmp_path: Path) -> None:
    layout = Layout(tmp_path, KEY, FINGERPRINT)
    assert layout.recipe_dir == tmp_path / "data" / "mer2023/frame/CLIP_VIT_LARGE/uniform/4" / FINGERPRINT
    assert layout.segments == layout.recipe_dir / "segments"
    assert layout.housekeeping == tmp_path / ".fstore" / "mer2023/frame/CLIP_VIT_LARGE/uniform/4" / FINGERPRINT
    assert list(tmp_path.iterdir()) == []


def test_levels_are_made_from_the_top_each_durable_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "new" / "root"
    done: list[tuple[str, str]] = []
    mkdir, rename, fsync_dir = os.mkdir, os.rename, room.fsync_dir
    monkeypatch.setattr(os, "mkdir", lambda path, *args: done.append(("mkdir", str(path))) or mkdir(path, *args))
    monkeypatch.setattr(os, "rename", lambda old, new: done.append(("rename", str(new))) or rename(old, new))
    monkeypatch.setattr(room, "fsync_dir", lambda path: done.append(("fsync", str(path))) or fsync_dir(path))
    ensure_levels(Layout(root, KEY, FINGERPRINT), Recipe(RECIPE))
    in_data = [(verb, path) for verb, path in done if path.startswith(f"{root}/data")]
    expected, level = [], root
    for part in LEVELS:
        level = level / part
        expected += [("mkdir", str(level)), ("rename", f"{level}/zarr.json")]
        if level.parent != root:
            expected.append(("fsync", str(level.parent)))  # of the name that was just made in it
    assert in_data == expected
    # The root itself, and what is above it.
    fsynced = [path for verb, path in done if verb == "fsync"]
    assert fsynced.index(str(tmp_path)) < fsynced.index(str(root))
    assert {str(tmp_path / "new"), str(tmp_path), "/"} <= set(fsynced)


def test_a_second_time_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path, KEY, FINGERPRINT)
    ensure_levels(layout, Recipe(RECIPE))
    with monkeypatch.context() as patch:
        patch.setattr(room, "fsync_dir", lambda path: pytest.fail("fsync"))
        ensure_levels(layout, Recipe(RECIPE))
    # Unless somebody removed it since.
    layout.segments.joinpath("zarr.json").unlink()
    layout.segments.rmdir()
    ensure_levels(layout, Recipe(RECIPE))
    assert layout.segments.joinpath("zarr.json").is_file()


def test_the_document_of_a_level_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    level, tmp = tmp_path / "level", tmp_path / "tmp"
    level.mkdir()
    tmp.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(OSError, match="Input/output error"):
            ensure_group(level, {"a": 1}, tmp)
    assert [*level.iterdir(), *tmp.iterdir()] == []
    ensure_group(level, {"a": "é"}, tmp)
    ensure_group(level, {"a": "another"}, tmp)  # written once
    assert json.loads((level / "zarr.json").read_bytes()) == {
        "zarr_format": 3, "node_type": "group", "attributes": {"a": "é"}
    }  # fmt: skip
    assert list(tmp.iterdir()) == []


def test_names_that_differ_only_in_case_are_refused_at_every_level(tmp_path: Path) -> None:
    ensure_levels(Layout(tmp_path, KEY, FINGERPRINT), Recipe(RECIPE))
    for number, name in ((0, "Mer2023"), (2, "Clip_Vit_Large"), (3, "UNIFORM")):
        parts = [*KEY.parts[:number], name, *KEY.parts[number + 1 :]]
        layout = Layout(tmp_path, FeatureKey(*parts[:4], 4), FINGERPRINT)
        with pytest.raises(InvalidKeyError, match=f"'{name}' differs only in case from '{KEY.parts[number]}'"):
            ensure_levels(layout, Recipe(RECIPE))
        assert not layout.recipe_dir.exists()

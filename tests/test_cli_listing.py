"""fstore ls, info and explain: what is stored, and where it comes from."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from cli_factories import IDS, KEY, OTHER, feature_set_of, first_recipe, make_store, run, second_recipe, values

from featurestore import Failure, Features, FeatureStore
from featurestore.cli.inventory import take_inventory
from featurestore.cli.listing import _info, _row
from featurestore.errors import FormatVersionError
from featurestore.storage.rows import as_rows, checked
from featurestore.storage.writer import commit


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_store(tmp_path)


def test_ls_lists_every_recipe_of_every_key(root: Path) -> None:
    feature_set_of(root).failures.add("bad", Failure("media", "no such file"))
    rows = [line.split() for line in run("ls", "--store", root).stdout.splitlines()]
    assert rows[0] == ["KEY", "RECIPE", "ORIGIN", "SAMPLES", "DTYPE", "BYTES", "SEGMENTS", "FAILED"]
    assert [row[0] for row in rows[1:]] == [OTHER, KEY]
    assert rows[2][1:5] == [feature_set_of(root).fingerprint[:8], "computed", "3", "float32"]
    assert rows[2][-2:] == ["2", "1"]
    assert rows[1][2:5] == ["imported", "1", "float16"]
    documents = json.loads(run("ls", "--store", root, "--json").stdout)
    assert [document["key"] for document in documents] == [OTHER, KEY]
    assert documents[1]["samples"] == 3
    assert documents[1]["shapes"] == [[8, 4]]
    on_disk = sum(path.stat().st_size for path in feature_set_of(root).layout.segments.glob("*/*"))
    assert documents[1]["bytes"] == on_disk


def test_ls_counts_a_sample_once_and_what_was_replaced_apart(root: Path) -> None:
    store = FeatureStore(root)
    store.put_many(KEY, IDS[:1], values(1, 9), recipe={"weights": "a", "dtype": "float32"}, overwrite=True)
    feature_set = feature_set_of(root)
    for seed in (1, 2):  # two writers that did not know of each other
        features = Features(values(1, seed)[0])
        (rows,) = as_rows(feature_set.key, {"twice": checked(feature_set.key, "twice", features)})
        commit(feature_set.layout, feature_set.recipe, rows)
    (document,) = [d for d in json.loads(run("ls", "--store", root, "--json").stdout) if d["key"] == KEY]
    assert document["samples"] == 4 == len(FeatureStore(root).ids(KEY))
    assert document["replaced"] == 1
    assert document["replaced_bytes"] > 0


def test_ls_of_a_key_lists_its_ids_sorted(root: Path) -> None:
    assert run("ls", KEY, "--store", root).stdout.splitlines() == sorted(IDS)
    assert json.loads(run("ls", KEY, "--store", root, "--json").stdout) == sorted(IDS)
    _, second = second_recipe(root)
    assert "2 recipes" in run("ls", KEY, "--store", root, exit_code=2).stderr
    assert run("ls", f"{KEY}@{second}", "--store", root).stdout == "only here\n"
    assert "no recipe begins with 'ffffff'" in run("ls", f"{KEY}@ffffff", "--store", root, exit_code=1).stderr


@pytest.mark.parametrize("line", [["ls"], ["info"], ["rm", "--yes"], ["compact"], ["gc"], ["explain"]])
def test_a_key_with_nothing_stored_is_an_error_with_a_hint(root: Path, line: list[str]) -> None:
    key = KEY.replace("uniform", "unifrom")
    more = ["x"] if line == ["explain"] else []
    result = run(*line, key, *more, "--store", root, exit_code=1)
    assert result.stderr == f"Error: nothing is stored under {key} in {root}; did you mean {KEY}?\n"


@pytest.mark.parametrize("line", [["info"], ["rm", "--yes"], ["gc"], ["ls", "--failures"]])
def test_a_wrong_prefix_lists_the_right_ones_and_not_the_key_again(root: Path, line: list[str]) -> None:
    said = run(*line, f"{KEY}@ffffff", "--store", root, exit_code=1).stderr
    right = first_recipe(root)[:8]
    assert said == f"Error: no recipe of {KEY} in {root} begins with 'ffffff'; there is {right}\n"


def test_ls_says_what_is_damaged_and_what_to_run(root: Path) -> None:
    segment = next(feature_set_of(root).layout.segments.glob("*/zarr.json"))
    segment.write_text("{")
    (feature_set_of(root, OTHER).layout.recipe_dir / "zarr.json").unlink()
    result = run("ls", "--store", root)
    command = shlex.join(["fstore", "verify", str(KEY), "--store", str(root)])
    assert f"{KEY}@{first_recipe(root)[:8]} has 1 damaged segment: run `{command}`" in result.stderr
    assert "has a recipe that cannot be read" in result.stderr
    assert "unreadable" in result.stdout


def test_a_document_with_any_bit_flipped_is_listed_all_the_same(root: Path) -> None:
    """What is wrong is for verify to say; listing must not break on it."""
    feature_set = feature_set_of(root)
    for path in (feature_set.layout.recipe_dir / "zarr.json", next(feature_set.layout.segments.glob("*/zarr.json"))):
        original = path.read_bytes()
        for at in range(len(original)):
            damaged = bytearray(original)
            damaged[at] ^= 1 << at % 8
            path.write_bytes(damaged)
            try:
                holdings = take_inventory(root)
            except FormatVersionError:
                assert original[at - 9 : at] == b'"format":'  # another number is that of another version
                continue
            for holding in holdings:
                json.dumps(_info(holding))
                _row(holding)
        path.write_bytes(original)


def test_info_shows_recipes_in_full(root: Path) -> None:
    _, second = second_recipe(root)
    text = run("info", KEY, "--store", root).stdout
    assert f"{KEY}@{first_recipe(root)}" in text
    assert '"weights": "b"' in text
    assert "samples   3 x (8, 4) float32" in text
    assert f"numpy {np.__version__}" in text
    (document,) = json.loads(run("info", f"{KEY}@{second}", "--store", root, "--json").stdout)
    assert document["recipe_document"] == {"weights": "b"}
    (made,) = document["made_with"]
    assert made["segments"] == 1
    assert made["first"] == made["last"]


def test_explain_tells_everything_about_a_sample(root: Path) -> None:
    document = json.loads(run("explain", KEY, IDS[0], "--store", root, "--json").stdout)
    assert document["frame_indices"] == [0, 5, 10, 15, 20, 25, 30, 35]
    assert document["timestamps_s"] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4]
    assert document["note"] == {"peak": 10}
    assert document["checksum_ok"] is True
    assert document["sources"][0]["now"] == "unchanged"
    assert document["row"] == 0
    assert document["recipe_document"] == {"weights": "a", "dtype": "float32"}
    assert document["failure"] is None
    text = run("explain", KEY, IDS[0], "--store", root).stdout
    assert "frames    0 (0.000 s), 5 (0.200 s), " in text
    assert 'note      {"peak": 10}' in text
    assert "(8, 4) float32, checksum ok" in text


def test_explain_takes_an_id_that_begins_with_a_dash(root: Path) -> None:
    text = run("explain", KEY, "--store", root, "--", IDS[2]).stdout
    assert text.startswith(IDS[2])
    assert "frames    not recorded" in text


def test_explain_exits_1_for_what_cannot_be_trusted(root: Path, tmp_path: Path) -> None:
    assert "not stored" in run("explain", KEY, "nobody", "--store", root, exit_code=1).stdout
    feature_set_of(root).failures.add("bad", Failure("media", "an HTML page"))
    said = run("explain", KEY, "bad", "--store", root, exit_code=1).stdout
    assert "failed    media, 1 attempt, last " in said
    assert f"`fstore retry {KEY} --store '{root}' --manifest FILE` tries again" in said
    video = tmp_path / "a video.mp4"
    video.write_bytes(b"FRAMES")
    assert "CHANGED since" in run("explain", KEY, IDS[0], "--store", root, exit_code=1).stdout
    video.unlink()
    assert "not there any more" in run("explain", KEY, IDS[0], "--store", root).stdout
    place = feature_set_of(root).reader.find(IDS[0])
    assert place is not None
    shard = Path(place[0].path) / "c.0.0.0"
    shard.write_bytes(b"\xff" + shard.read_bytes()[1:])
    assert "DAMAGED: row 0" in run("explain", KEY, IDS[0], "--store", root, exit_code=1).stdout

"""fstore compact, rm and gc: nothing goes that was not meant to."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from cli_factories import IDS, KEY, OTHER, feature_set_of, files, first_recipe, make_store, run, second_recipe, values
from permissions import rights_by_mode

from featurestore import Failure, FeatureStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_store(tmp_path)


def test_compact_merges(root: Path) -> None:
    before = FeatureStore(root).get_many(KEY, IDS)
    assert "2 of 2 segments merged, 1 now." in run("compact", KEY, "--store", root).stdout
    assert "nothing to merge, 1 segment." in run("compact", KEY, "--store", root).stdout
    document = json.loads(run("compact", KEY, "--store", root, "--json").stdout)
    assert (document["merged"], document["segments"]) == (0, 1)
    np.testing.assert_array_equal(np.stack(before), FeatureStore(root).get_many(KEY, IDS))


def test_who_asks_compact_to_compress_is_told_of_packs(root: Path) -> None:
    before = files(root)
    said = run("compact", KEY, "--codec", "zstd", "--store", root, exit_code=2).stderr
    assert f"`fstore pack {KEY} -o DIR` writes a compressed copy" in said
    assert files(root) == before


def test_rm_asks_before_it_removes_samples(root: Path, tmp_path: Path) -> None:
    line = ["rm", KEY, "--store", root, "--", IDS[2], IDS[0]]
    before = files(root)
    result = run(*line, input="n\n", exit_code=1)
    assert f"{KEY}@{first_recipe(root)[:8]}: {IDS[2]}\n" in result.stderr
    assert "Remove 2 samples?" in result.stderr
    assert files(root) == before
    assert "pass --yes" in run(*line, exit_code=2).stderr
    assert files(root) == before
    assert "2 samples removed; `fstore gc` frees their space." in run(*line, input="y\n").stdout
    assert FeatureStore(root).ids(KEY) == [IDS[1]]


def test_rm_takes_ids_from_a_file_and_says_which_were_not_stored(root: Path, tmp_path: Path) -> None:
    listed = tmp_path / "ids.txt"
    listed.write_text(f"{IDS[2]}\r\n\nnobody\n{IDS[2]}\n")
    document = json.loads(run("rm", KEY, "--ids-from", listed, "--yes", "--store", root, "--json", exit_code=1).stdout)
    assert document["removed"] == [IDS[2]]
    assert document["not_stored"] == ["nobody"]
    piped = run("rm", KEY, "--ids-from", "-", "--yes", "--store", root, input=f"{IDS[0]}\n")
    assert "1 sample removed; `fstore gc` frees its space." in piped.stdout
    again = run("rm", KEY, "--yes", "--store", root, "--", IDS[0], exit_code=1)
    assert "0 samples removed." in again.stdout
    assert FeatureStore(root).ids(KEY) == [IDS[1]]
    listed.write_bytes(b"\xff\n")
    assert "not valid UTF-8" in run("rm", KEY, "--ids-from", listed, "--yes", "--store", root, exit_code=2).stderr


def test_rm_of_a_key_removes_all_its_recipes_after_listing_them(root: Path) -> None:
    first, second = second_recipe(root)
    feature_set_of_second = FeatureStore(root).feature_set(KEY, fingerprint=second)
    assert feature_set_of_second is not None
    feature_set_of_second.failures.add("bad", Failure("media", "x"))
    before = files(root)
    result = run("rm", KEY, "--store", root, input="n\n", exit_code=1)
    assert f"{KEY}@{first}: 3 samples, computed, " in result.stderr
    assert f"{KEY}@{second}: 1 sample, computed, " in result.stderr
    assert files(root) == before
    assert "4 samples removed" in run("rm", KEY, "--store", root, "--yes").stdout
    assert [str(key) for key in FeatureStore(root).keys()] == [OTHER]
    left = [path for path in root.rglob("*") if first in str(path) or second in str(path)]
    assert all(path.is_dir() or path.suffix == ".lock" for path in left)
    FeatureStore(root).put_many(KEY, IDS[:1], values(1), recipe={"weights": "a", "dtype": "float32"})
    assert FeatureStore(root).ids(KEY) == IDS[:1]


def test_rm_of_one_recipe_leaves_the_other(root: Path) -> None:
    first, _ = second_recipe(root)
    run("rm", f"{KEY}@{first}", "--store", root, "--yes")
    assert FeatureStore(root).ids(KEY) == ["only here"]


def test_gc_frees_what_was_replaced_after_the_grace(root: Path) -> None:
    run("compact", KEY, "--store", root)
    said, last = run("gc", "--store", root).stdout.splitlines()
    assert last == "Nothing to remove yet."
    assert re.search(r"2 replaced segments \(\S+ K?B\) kept until \S+Z for readers", said)
    (document,) = json.loads(run("gc", "--store", root, "--json").stdout)
    assert (document["key"], document["removed"], document["waiting"]) == (KEY, 0, 2)
    until = datetime.fromisoformat(document["until"]).timestamp()
    assert abs(until - time.time() - 900) < 60
    assert document["waiting_bytes"] > 2 * 8 * 4 * 4
    assert "2 replaced segments removed" in run("gc", KEY, "--grace", "0", "--store", root).stdout
    assert len(list(feature_set_of(root).layout.segments.iterdir())) == 2  # the merged one, and the group's document
    assert json.loads(run("gc", "--grace", "0", "--store", root, "--json").stdout) == []
    assert run("gc", "--store", root).stdout == "Nothing to remove.\n"


def test_gc_frees_what_a_killed_rm_left(root: Path) -> None:
    layout = feature_set_of(root).layout
    (layout.housekeeping / "tmp").mkdir(exist_ok=True)
    os.rename(layout.recipe_dir, layout.housekeeping / "tmp" / "gc-half-removed")
    assert KEY not in run("ls", "--store", root).stdout
    run("gc", "--grace", "0", "--store", root)
    assert not (layout.housekeeping / "tmp" / "gc-half-removed").exists()


@pytest.fixture
def of_somebody_else() -> Iterator[Path]:
    """A store of another user's, whose files may be read and not written."""
    with tempfile.TemporaryDirectory() as folder:
        root = make_store(Path(folder))
        for path in (Path(folder), *Path(folder).rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        with rights_by_mode():
            yield root
        for path in (Path(folder), *Path(folder).rglob("*")):
            path.chmod(0o755)


def test_a_store_that_cannot_be_written_can_be_read_and_says_so(of_somebody_else: Path) -> None:
    root = of_somebody_else
    before = files(root)
    for line in (["rm", KEY, "--yes"], ["rm", KEY, "--yes", IDS[0]], ["compact", KEY]):
        said = run(*line, "--store", root, exit_code=1).stderr
        assert "Permission denied" in said
        assert said.count("\n") == 1 + (line[0] == "rm")  # what would go, and why it did not
    assert files(root) == before
    assert len(run("ls", KEY, "--store", root).stdout.splitlines()) == 3

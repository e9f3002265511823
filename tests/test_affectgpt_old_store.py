"""A store of format 1: refused with one sentence by everything, and copied bit for bit by `fstore import`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_factories import files
from click.testing import CliRunner, Result
from store_factories import Making, flip, reseal

from featurestore import FeatureStore, extract
from featurestore.affectgpt import old_store as room
from featurestore.affectgpt.old_store import copy_store
from featurestore.cli import fstore
from featurestore.errors import FailedSampleError, FormatVersionError
from featurestore.quality import check_store

GOLDEN = Path(__file__).parent / "golden" / "format1"
EXPECTED: list[dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_bytes())
FRAME = "mer2023/frame/CLIP_VIT_LARGE/uniform/2"
TEXT = "iemocap/au/CLIP_TEXT/au_summary/all"
AUDIO = "mer2023/audio/HUBERT_LARGE/const_clips/1"
PLAIN, HALF = "232794e82c2420a4", "1a91b0cbb5bc9eeb"
REFUSED = "is format 1, and 2 is read", "import the old store into a new one"


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "store", tmp_path / "old"))


def run(*words: object) -> Result:
    return CliRunner().invoke(fstore, [str(word) for word in words])


def assert_copied(root: Path, without: tuple[tuple[str, str], ...] = ()) -> None:
    """Every row that the first version wrote is there as it wrote it, but for some."""
    store = FeatureStore(root, read_only=True)
    for row in EXPECTED:
        key, recipe, id = row["key"], row["recipe"], row["id"]
        if (key, id) in without:
            assert store.missing(key, [id], fingerprint=recipe) == [id]
            continue
        features = store.get_features(key, id, fingerprint=recipe)
        expected = np.array(row["values"], row["dtype"])
        np.testing.assert_array_equal(features.values, expected, strict=True)
        assert features.values.tobytes() == expected.tobytes()
        frames, seconds = features.frame_indices, features.timestamps_s
        assert (frames if frames is None else frames.tolist()) == row["frame_indices"]
        assert (seconds if seconds is None else seconds.tolist()) == row["timestamps_s"]
        assert features.provenance == row["provenance"]
    count = sum(len(store.ids(key, fingerprint=name)) for key in store.keys() for name in store.recipes(key))
    assert count == len(EXPECTED) - len(without)


# -- refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["ls"],
        ["ls", f"{FRAME}@{PLAIN}"],
        ["info", FRAME],
        ["explain", f"{FRAME}@{PLAIN}", "plain"],
        ["verify"],
        ["verify", "--full"],
        ["verify", "--full", "--repair"],
        ["compact", f"{FRAME}@{PLAIN}"],
        ["gc", f"{FRAME}@{PLAIN}"],
        ["rm", f"{FRAME}@{PLAIN}", "--yes"],
        ["rm", f"{FRAME}@{PLAIN}", "plain"],
        ["pack", f"{FRAME}@{PLAIN}", "-o", "out"],
        ["export", f"{FRAME}@{PLAIN}", "--layout", "affectgpt", "out"],
    ],
    ids=" ".join,
)
def test_every_command_refuses_an_old_store_and_leaves_it_alone(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = files(golden / "data")
    result = run(*words, "--store", golden)
    assert result.exit_code in (1, 2)
    assert REFUSED[0] in result.output
    assert "import" in result.output.partition(REFUSED[0])[2]
    assert files(golden / "data") == before


def test_every_call_refuses_an_old_store_and_leaves_it_alone(golden: Path) -> None:
    store = FeatureStore(golden)
    recipe = json.loads((golden / "data" / FRAME / HALF / "zarr.json").read_bytes())["attributes"]["featurestore"]
    reads: list[Any] = [
        lambda: store.get(FRAME, "plain", fingerprint=HALF),
        lambda: store.get(FRAME, "plain", [0], fingerprint=HALF),
        lambda: store.get_many(FRAME, ["plain"], fingerprint=HALF),
        lambda: store.get_ragged(TEXT, ["one"], fingerprint=PLAIN),
        lambda: store.get_features(FRAME, "plain", fingerprint=HALF),
        lambda: store.fetch(FRAME, ["plain"], fingerprint=HALF),
        lambda: store.ids(FRAME, fingerprint=HALF),
        lambda: store.missing(FRAME, ["plain"], fingerprint=HALF),
        lambda: store.info(FRAME, fingerprint=HALF),
        lambda: store.recipes(FRAME),
        lambda: store.delete(FRAME, ["plain"], fingerprint=HALF),
        lambda: store.compact(FRAME, fingerprint=HALF),
        lambda: store.gc(FRAME, fingerprint=HALF),
        lambda: store.put(FRAME, "new", np.ones((2, 3), np.float16), recipe=recipe["recipe"]),
    ]
    before = files(golden / "data")
    for read in reads:
        with pytest.raises(FormatVersionError) as caught:
            read()
        assert "; ".join(REFUSED) in str(caught.value)
    assert files(golden / "data") == before


def test_extract_refuses_an_old_store_before_anything_is_made(golden: Path) -> None:
    for recipe in (PLAIN, HALF):
        document = json.loads((golden / "data" / FRAME / recipe / "zarr.json").read_bytes())
        making = Making(document["attributes"]["featurestore"]["recipe"])
        before = files(golden / "data")
        with pytest.raises(FormatVersionError) as caught:
            extract(FeatureStore(golden, making), [FRAME], ["new"])
        assert "; ".join(REFUSED) in str(caught.value)
        with pytest.raises(FormatVersionError):
            FeatureStore(golden, making).get(FRAME, "new")
        assert making.made == []
        assert files(golden / "data") == before


# -- copied --------------------------------------------------------------------------------------------


def test_a_store_of_format_1_is_copied_bit_for_bit(golden: Path, tmp_path: Path) -> None:
    before = files(golden)
    result = run("import", golden, "--store", tmp_path / "new")
    assert result.exit_code == 0, result.output
    assert "10 samples and 1 record of failures of" in result.output
    assert files(golden) == before
    assert_copied(tmp_path / "new")
    store = FeatureStore(tmp_path / "new")
    assert [str(key) for key in store.keys()] == [TEXT, AUDIO, FRAME]
    for key in (TEXT, AUDIO, FRAME):
        recipes = store.recipes(key)
        assert {name: recipe.fingerprint for name, recipe in recipes.items()} == {name: name for name in recipes}
        for name, recipe in recipes.items():
            old = json.loads((golden / "data" / key / name / "zarr.json").read_bytes())
            assert recipe.data == old["attributes"]["featurestore"]["recipe"]
    assert sorted(store.recipes(FRAME)) == [HALF, PLAIN]
    assert check_store(tmp_path / "new", full=True).findings == []


def test_records_of_failures_are_copied_as_they_are(golden: Path, tmp_path: Path) -> None:
    copy_store(golden, tmp_path / "new")
    (old,), (new,) = ([*root.rglob("failed/*.json")] for root in (golden, tmp_path / "new"))
    assert old.name == new.name
    assert json.loads(old.read_bytes()) == json.loads(new.read_bytes())
    with pytest.raises(FailedSampleError, match="no summary_description"):
        FeatureStore(tmp_path / "new").get(TEXT, "broken")


def test_a_second_copy_stores_nothing(golden: Path, tmp_path: Path) -> None:
    first = copy_store(golden, tmp_path / "new")
    assert sum(one.stored for one in first.sets) == 10
    before = files(tmp_path / "new")
    second = copy_store(golden, tmp_path / "new")
    assert [(one.samples, one.stored, one.present, one.failures) for one in second.sets] == [
        (4, 0, 4, 0), (0, 0, 0, 0), (2, 0, 2, 0), (4, 0, 4, 0)
    ]  # fmt: skip
    assert second.findings == []
    assert files(tmp_path / "new") == before


def test_a_dry_run_says_what_would_be_stored_and_makes_nothing(golden: Path, tmp_path: Path) -> None:
    result = run("import", golden, "--store", tmp_path / "new", "--dry-run")
    assert result.exit_code == 0
    assert "Nothing was stored (--dry-run): 10 samples and 1 record of failures of" in result.output
    assert not (tmp_path / "new").exists()
    copy_store(golden, tmp_path / "new")
    before = files(tmp_path / "new")
    result = run("import", golden, "--store", tmp_path / "new", "--dry-run", "--json")
    document = json.loads(result.stdout)
    assert [one["present"] for one in document["sets"]] == [4, 0, 2, 4]
    assert sum(one["stored"] + one["failures"] for one in document["sets"]) == 0
    assert document["store"] is None
    assert files(tmp_path / "new") == before


def test_damaged_rows_are_named_and_left_out(golden: Path, tmp_path: Path) -> None:
    """Of a compressed segment too; a second try after the store was mended takes what was left out."""
    (compressed,) = [
        path
        for path in (golden / "data" / FRAME / HALF / "segments").glob("*-*")
        if (path / "replaces").exists()
    ]  # fmt: skip
    flip(compressed / "c.0.0.0", 10)
    (record,) = golden.rglob("failed/*.json")
    flip(record, 30)
    result = run("import", golden, "--store", tmp_path / "new")
    assert result.exit_code == 1
    assert "its values fail their checksum (1: sample 'half')" in result.output
    assert f"a record of a failure cannot be read: it fails its checksum (1: {record.name})" in result.output
    assert_copied(tmp_path / "new", without=((FRAME, "half"),))
    flip(compressed / "c.0.0.0", 10)
    flip(record, 30)
    result = run("import", golden, "--store", tmp_path / "new")
    assert result.exit_code == 0
    assert "1 sample and 1 record of failures of" in result.output
    assert_copied(tmp_path / "new")


def test_a_set_whose_recipe_is_damaged_is_named_and_left_out(golden: Path, tmp_path: Path) -> None:
    document = golden / "data" / FRAME / HALF / "zarr.json"
    document.write_bytes(document.read_bytes().replace(b'"import"', b'"xmport"'))
    report = copy_store(golden, tmp_path / "new")
    (finding,) = report.findings
    assert (finding.kind, finding.where) == ("recipe", f"{FRAME}@{HALF[:8]}")
    assert finding.named == "its recipe is that of another place; nothing of it was copied"
    assert list(FeatureStore(tmp_path / "new").recipes(FRAME)) == [PLAIN]
    assert sum(one.stored for one in report.sets) == len(EXPECTED) - 2


def test_what_the_new_store_has_with_other_values_stays(golden: Path, tmp_path: Path) -> None:
    recipe = json.loads((golden / "data" / FRAME / PLAIN / "zarr.json").read_bytes())["attributes"]["featurestore"]
    values = np.ones((2, 3), np.float32)
    FeatureStore(tmp_path / "new").put(FRAME, "plain", values, recipe=recipe["recipe"])
    report = copy_store(golden, tmp_path / "new")
    assert [finding.named for finding in report.findings] == [
        "stored with other values in the new store, and left so (1: plain)"
    ]
    frame = report.sets[-1]
    assert (frame.samples, frame.stored, frame.present) == (4, 3, 0)
    np.testing.assert_array_equal(FeatureStore(tmp_path / "new").get(FRAME, "plain", fingerprint=PLAIN), values)


def test_large_stores_are_copied_some_rows_at_a_time(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "BATCH_ROWS", 3)
    told: list[tuple[int, int]] = []
    copy_store(golden, tmp_path / "new", progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 10), (4, 10), (6, 10), (9, 10), (10, 10)]
    assert_copied(tmp_path / "new")


def test_versions_that_made_the_values_are_said_of_the_copy_too(golden: Path, tmp_path: Path) -> None:
    for document in golden.glob(f"data/{FRAME}/{PLAIN}/segments/*-*/zarr.json"):
        reseal(document, b'"made_with":{', b'"made_with":{"torch":"2.9.1",')
    copy_store(golden, tmp_path / "new")
    (made_with,) = FeatureStore(tmp_path / "new").info(FRAME, fingerprint=PLAIN).made_with
    assert made_with["torch"] == "2.9.1"
    assert made_with["numpy"] == np.__version__  # of the copy itself


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "mer2023"], "Error: --dataset is for folders of .npy files: "),
        (["--audit"], "Error: --audit is for folders of .npy files: "),
    ],
)
def test_options_for_trees_are_refused(golden: Path, tmp_path: Path, words: list[str], message: str) -> None:
    result = run("import", golden, "--store", tmp_path / "new", *words)
    assert result.exit_code == 2
    assert f"{message}{golden} is a store, which is copied whole" in result.output


def test_a_store_is_not_copied_into_an_old_one(golden: Path) -> None:
    result = run("import", golden, "--store", golden)
    assert result.exit_code == 2
    assert "is a store of format 1 itself: name the folder of a new one" in result.output

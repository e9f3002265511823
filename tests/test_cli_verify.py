"""fstore verify: findings on stdout, their number in the exit code, and samples made again from media."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
from pathlib import Path

import pytest
from cli_factories import IDS, KEY, OTHER, feature_set_of, files, first_recipe, make_store, run, values
from encoder_factories import NAMES
from media_factories import write_clip

from featurestore import FeatureStore, register_encoder
from featurestore.quality import KINDS

for name, target in NAMES.items():
    register_encoder(name, target)
MADE = "my/frame/MeanColour/uniform/4"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_store(tmp_path)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "samples.csv"
    path.write_text("id,video\n" + "".join(f"{id},a video.mp4\n" for id in IDS))
    return path


def damage(root: Path) -> None:
    place = feature_set_of(root).reader.find(IDS[0])
    assert place is not None
    shard = Path(place[0].path) / "c.0.0.0"
    shard.write_bytes(b"\xff" + shard.read_bytes()[1:])


def test_a_clean_store_exits_0_and_says_what_was_not_checked(root: Path) -> None:
    text = run("verify", "--store", root).stdout
    assert f"{root}: 2 recipes, 4 samples, 3 segments: nothing wrong (fast; --full reads every byte).\n" in text
    assert f"Coverage was not checked of {OTHER}@" in text


def test_with_a_manifest_coverage_is_checked(root: Path, manifest: Path) -> None:
    text = run("verify", KEY, "--store", root, "--manifest", manifest).stdout
    assert "Coverage was not checked" not in text
    manifest.write_text(manifest.read_text(encoding="utf-8") + "new,b.mp4\n", encoding="utf-8")
    text = run("verify", KEY, "--store", root, "--manifest", manifest, exit_code=1).stdout
    where = f"{KEY}@{first_recipe(root)[:8]}"
    given = shlex.join(["--store", str(root), "--manifest", str(manifest)])
    assert f"missing: {where}: 1 of 4 samples are not stored (1: new); run `fstore extract {KEY} {given}`\n" in text
    assert ": 1 finding (fast" in text


def test_damage_is_a_line_and_a_json_document(root: Path) -> None:
    damage(root)
    assert "nothing wrong" in run("verify", "--store", root).stdout
    result = run("verify", "--store", root, "--full", exit_code=1)
    assert result.stdout.startswith(f"row: {KEY}@{first_recipe(root)[:8]}: row 0 of segment ")
    assert f"(1: {IDS[0]}); repair keeps the intact rows" in result.stdout
    assert f"To repair: `fstore verify --store '{root}' --full --repair`. What is intact stays, " in result.stdout
    one = run("verify", KEY, "--store", root, "--full", exit_code=1).stdout
    assert f"`fstore verify --store '{root}' {KEY} --full --repair`" in one
    document = json.loads(run("verify", "--store", root, "--full", "--json", exit_code=1).stdout)
    assert document["clean"] is False
    assert document["full"] is True
    (finding,) = document["findings"]
    assert finding.keys() == {"kind", "where", "what", "advice", "ids", "repaired"}
    assert (finding["kind"], finding["ids"], finding["repaired"]) == ("row", [IDS[0]], False)


def test_repair_says_what_it_did_and_the_next_run_is_clean(root: Path) -> None:
    damage(root)
    before = set(files(root).values())
    text = run("verify", "--store", root, "--full", "--repair", exit_code=1).stdout
    assert "repaired: moved to " in text
    assert "1 finding, 1 of them repaired" in text
    assert "To repair" not in text
    assert before <= set(files(root).values())
    run("verify", "--store", root, "--full")
    assert FeatureStore(root).ids(KEY) == sorted(IDS[1:])


def test_readers_do_not_repeat_what_is_reported(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    next(feature_set_of(root).layout.segments.glob("*/zarr.json")).write_text("{}")
    result = run("verify", "--store", root, exit_code=1)
    assert result.stderr == ""
    assert caplog.text == ""
    assert logging.getLogger("featurestore").level == logging.NOTSET


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--store", "nowhere"], "there is no store nowhere"),
        (["mer2023/frame"], "has 2 parts, not 5"),
        (["--recompute", "3"], "one KEY: say which"),
        ([KEY, "--recompute", "3"], "--recompute needs samples"),
        (["--recompute", "0"], "0 is not in the range"),
        (["--root", "."], "name it"),
        (["--manifest", "nothing.csv"], "does not exist"),
        (["--dataset", "mer2032", "--root", "."], "did you mean 'mer20"),
    ],
)
def test_usage_errors_exit_2(root: Path, line: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATURESTORE_ROOT", str(root))
    assert said in run("verify", *line, exit_code=2).stderr


def test_a_manifest_is_of_one_dataset(root: Path, manifest: Path) -> None:
    FeatureStore(root).put_many("meld/frame/e/s/8", ["x"], values(1), recipe={})
    result = run("verify", "--store", root, "--manifest", manifest, exit_code=2)
    assert "but there is meld, mer2023: say which KEY to verify" in result.stderr
    run("verify", KEY, "--store", root, "--manifest", manifest)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips and their features, made by the command line."""
    folder = tmp_path_factory.mktemp("made")
    rows = ["id,video"]
    for number in range(3):
        write_clip(folder / f"{number}.mp4", 8 + number)
        rows.append(f"clip{number},{number}.mp4")
    (folder / "samples.csv").write_text("\n".join(rows) + "\n")
    run("extract", MADE, "--manifest", folder / "samples.csv", "--store", folder / "store", "--dtype", "float16")
    return folder


def test_samples_are_made_again_with_the_settings_of_what_is_stored(made: Path) -> None:
    text = run("verify", "--store", made / "store", "--manifest", made / "samples.csv", "--recompute", 2).stdout
    assert "nothing wrong" in text
    assert "2 samples made again and compared." in text


def test_a_row_of_other_frames_is_told_by_making_it_again(made: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(made / "store", root)
    store = FeatureStore(root)
    (recipe,) = store.recipes(MADE).values()
    wrong = store.get(MADE, "clip1") + 1
    store.put_many(MADE, ["clip1"], wrong[None], recipe=recipe, overwrite=True)
    line = ["verify", MADE, "--store", root, "--manifest", made / "samples.csv"]
    assert "nothing wrong" in run(*line, "--full").stdout
    text = run(*line, "--recompute", 3, exit_code=1).stdout
    assert "differs: " in text
    assert "(1: clip1)" in text


def test_settings_that_make_another_recipe_are_named(made: Path) -> None:
    line = ["verify", MADE, "--store", made / "store", "--manifest", made / "samples.csv", "--recompute", 1]
    said = run(*line, "--dtype", "float32", exit_code=2).stderr
    assert "dtype is 'float16' in the store and 'float32' here" in said


def test_a_lost_recipe_is_written_anew_with_the_options_of_extract(made: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(made / "store", root)
    (fingerprint,) = FeatureStore(root).recipes(MADE)
    document = root.joinpath("data", *MADE.split("/"), fingerprint, "zarr.json")
    content = document.read_bytes()
    document.write_bytes(b"{}")
    line = ["verify", MADE, "--store", root, "--repair"]
    assert "repaired" not in run(*line, exit_code=1).stdout
    assert "repaired: written anew" in run(*line, "--dtype", "float16", exit_code=1).stdout
    assert document.read_bytes() == content


def test_every_kind_of_finding_is_in_the_documentation() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "commands.md").read_text()
    for kind, meaning in KINDS.items():
        assert f"| `{kind}` | {meaning} |" in page

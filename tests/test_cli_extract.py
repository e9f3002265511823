"""fstore extract and retry: what is made, what is told, and what an end at any moment leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli_made import run
from encoders_made import NAMES
from media_made import write_clip

from featurestore import FeatureStore, read_manifest, register_encoder
from featurestore.cli.extracting import _duration
from featurestore.cli.making import _sampler_option

for name, target in NAMES.items():
    register_encoder(name, target)
KEY = "my/frame/MeanColour/uniform/4"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips, one of whose ids begins with a dash, and a manifest."""
    folder = tmp_path_factory.mktemp("clips")
    rows = ["id,video"]
    for number, id in enumerate(["a", "b", "c", "d", "e", "-f"]):
        write_clip(folder / f"{number}.mp4", 6 + number)
        rows.append(f"{id},{number}.mp4")
    (folder / "samples.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def line(clips: Path, tmp_path: Path) -> list[object]:
    """The options that every line here has."""
    return ["--manifest", clips / "samples.csv", "--store", tmp_path / "store", "--workers", 1]


@pytest.fixture
def mixed(clips: Path, tmp_path: Path) -> list[object]:
    """The same with a clip that is an HTML page."""
    shutil.copytree(clips, tmp_path / "mixed")
    (tmp_path / "mixed" / "2.mp4").write_text("<html>not found</html>")
    return ["--manifest", tmp_path / "mixed" / "samples.csv", "--store", tmp_path / "store", "--workers", 1]


def test_extract_makes_all_and_then_finds_all(line: list[object], tmp_path: Path) -> None:
    result = run("extract", KEY, *line)
    assert f"{KEY}@" in result.stdout
    assert "6 samples: 6 computed, 0 stored before, 0 failed.\n" in result.stdout
    assert "of which encode " in result.stdout
    assert "MeanColour: 100%" in result.stderr
    assert "sample/s" in result.stderr or "s/sample" in result.stderr
    again = run("extract", KEY, *line)
    assert "6 samples: 0 computed, 6 stored before, 0 failed.\n" in again.stdout
    assert again.stderr == ""
    assert FeatureStore(tmp_path / "store").ids(KEY) == ["-f", "a", "b", "c", "d", "e"]


def test_only_the_named_ids_are_made(line: list[object], tmp_path: Path) -> None:
    run("extract", KEY, *line, "--", "-f", "b")
    listed = tmp_path / "ids.txt"
    listed.write_text("a\n-f\n")
    document = json.loads(run("extract", KEY, *line, "--ids-from", listed, "--json").stdout)
    assert (document["asked"], document["computed"], document["stored_before"]) == (2, 1, 1)
    assert FeatureStore(tmp_path / "store").ids(KEY) == ["-f", "a", "b"]
    document = json.loads(run("extract", KEY, *line, "--json", "--", "nobody", exit_code=1).stdout)
    assert "is not in the source" in document["failed"]["nobody"]["message"]


def test_a_failure_is_a_line_and_exit_code_1_until_it_is_mended(
    mixed: list[object], tmp_path: Path, clips: Path
) -> None:
    result = run("extract", KEY, *mixed, exit_code=1)
    assert "6 samples: 5 computed, 0 stored before, 1 failed.\n" in result.stdout
    (told,) = [text for text in result.stdout.splitlines() if text.startswith("  failed: ")]
    assert told.startswith("  failed: c: media: ")
    assert "2.mp4" in told
    result = run("extract", KEY, *mixed, exit_code=1)
    assert "  failed before: c: " in result.stdout
    assert f"`fstore retry {KEY}` tries" in result.stdout
    assert "5 stored before" in result.stdout

    # The page is still there: tried, counted, failed again.
    document = json.loads(run("retry", KEY, *mixed, "--json", exit_code=1).stdout)
    assert (document["asked"], document["computed"], list(document["failed"])) == (1, 0, ["c"])
    explained = json.loads(run("explain", KEY, "c", "--store", tmp_path / "store", "--json", exit_code=1).stdout)
    assert explained["failure"]["attempts"] == 2

    # A record names the state of the file; with that restored only `retry` can know that the cause is mended.
    shutil.copy(clips / "2.mp4", tmp_path / "mixed" / "2.mp4")
    assert "1 sample: 1 computed, 0 stored before, 0 failed." in run("retry", KEY, *mixed, "--", "c").stdout
    assert FeatureStore(tmp_path / "store").failures(KEY) == {}
    assert "0 samples: 0 computed" in run("retry", KEY, *mixed).stdout
    assert "a: no record of a failure" in run("retry", KEY, *mixed, "--", "a").stderr


def test_retry_takes_the_settings_of_what_is_stored(mixed: list[object], tmp_path: Path, clips: Path) -> None:
    run("extract", KEY, *mixed, "--dtype", "float16", exit_code=1)
    shutil.copy(clips / "2.mp4", tmp_path / "mixed" / "2.mp4")
    run("retry", KEY, *mixed)
    store = FeatureStore(tmp_path / "store")
    assert len(store.recipes(KEY)) == 1
    assert store.get(KEY, "c").dtype == np.float16


def test_other_settings_are_another_recipe(line: list[object], tmp_path: Path) -> None:
    first = json.loads(run("extract", KEY, *line, "--json").stdout)["recipe"]
    second = json.loads(run("extract", KEY, *line, "--json", "--dtype", "float16").stdout)["recipe"]
    assert sorted([first, second]) == sorted(FeatureStore(tmp_path / "store").recipes(KEY))
    run("extract", f"{KEY}@{first[:6]}", *line)
    said = run("extract", f"{KEY}@{second[:6]}", *line, exit_code=2).stderr
    assert f"with these settings the recipe of {KEY} is {first[:8]}, not {second[:6]}" in said


def test_dry_run_measures_and_stores_nothing(mixed: list[object], tmp_path: Path) -> None:
    text = run("extract", KEY, *mixed, "--dry-run").stdout
    assert "0 stored, 0 failed before, 6 to do" in text
    assert "going by 5 samples made just now and not stored" in text
    assert "would fail: c: " in text
    assert not (tmp_path / "store").exists()
    run("extract", KEY, *mixed, exit_code=1)
    document = json.loads(run("extract", KEY, *mixed, "--dry-run", "--json").stdout)
    assert (document["stored"], document["failed_before"], document["to_do"]) == (5, 1, 0)
    assert document["seconds"] is None


def test_media_that_changed_are_made_again(clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "mine")
    line = ["--manifest", tmp_path / "mine" / "samples.csv", "--store", tmp_path / "store"]
    run("extract", KEY, *line)
    shutil.copy(clips / "5.mp4", tmp_path / "mine" / "0.mp4")
    assert "stale: " in run("verify", KEY, *line, exit_code=1).stdout
    assert "1 sample made again, because the media changed." in run("extract", KEY, *line).stdout
    store = FeatureStore(tmp_path / "store")
    np.testing.assert_array_equal(store.get(KEY, "a"), store.get(KEY, "-f"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([KEY], "say which samples"),
        ([], "give either a KEY or --config"),
        (["my/frame/uniform/4"], "has 4 parts, not 5"),
        (["my/frame/MeanColor/uniform/4", "M"], "no encoder is called 'MeanColor'; did you mean 'MeanColour'?"),
        (["my/frame/MeanColour/unifrom/4", "M"], "sampler 'unifrom' is not known"),
        (["my/audio/MeanColour/uniform/4", "M"], "encodes modality 'frame', not 'audio'"),
        ([KEY, "M", "--sampler-option", "index_space"], "is not NAME=VALUE"),
        ([KEY, "M", "--sampler-option", "speed=3"], "sampler 'uniform' has no option 'speed'"),
        ([KEY, "M", "--dataset", "mer2023"], "not both"),
        ([KEY, "--dataset", "mer2023"], "the key is one of my"),
        ([KEY, "M", "--ids-from", "nothing"], "does not exist"),
        ([KEY, "M", "--batch-size", "0"], "0 is not in the range"),
        (["frame/MeanColour/uniform/4", "--all-datasets"], "needs --root DIR"),
        ([KEY, "--all-datasets", "--root", "."], "MODALITY/ENCODER/SAMPLING/N_FRAMES"),
    ],
)
def test_usage_errors_exit_2(clips: Path, tmp_path: Path, words: list[str], said: str) -> None:
    manifest = ["--manifest", str(clips / "samples.csv")]
    line = [part for word in words for part in (manifest if word == "M" else [word])]
    assert said in run("extract", *line, "--store", tmp_path / "store", exit_code=2).stderr
    assert not (tmp_path / "store").exists()


def test_weights_that_are_not_here_are_told_at_once(clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    start = time.perf_counter()
    line = ["my/frame/CLIP_VIT_LARGE/uniform/4", "--manifest", clips / "samples.csv", "--store", tmp_path / "store"]
    said = run("extract", *line, "--weights", "openai/not-here", exit_code=1).stderr
    assert "hf download openai/not-here" in said
    assert said.count("\n") == 1
    assert time.perf_counter() - start < 5


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from encoders_made import NAMES
from featurestore import register_encoder
from featurestore.cli import main
for name, target in NAMES.items():
    register_encoder(name, target)
if __name__ == "__main__":
    main()
"""


def program(folder: Path) -> list[str]:
    """`fstore` with the encoders of these tests, as a process of its own."""
    script = folder / "fstore_with_encoders.py"
    script.write_text(PROGRAM.format(tests=str(Path(__file__).parent)))
    return [sys.executable, str(script)]


def test_ctrl_c_keeps_what_was_made_and_exits_130(clips: Path, tmp_path: Path) -> None:
    rows = [f"{id}-{copy},{clips / path}" for copy in range(40) for id, path in [("a", "0.mp4"), ("b", "1.mp4")]]
    manifest = tmp_path / "many.csv"
    manifest.write_text("id,video\n" + "\n".join(rows) + "\n")
    key = "my/frame/Sleepy/uniform/4"
    log = tmp_path / "log"
    log.touch()
    words = [
        "extract",
        key,
        "--manifest",
        manifest,
        "--store",
        tmp_path / "store",
        "--batch-size",
        "4",
        "--workers",
        "1",
    ]
    child = subprocess.Popen(
        [*program(tmp_path), *map(str, words)],
        env={**os.environ, "ENCODE_LOG": str(log)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(log.read_text().splitlines()) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert said.endswith("Interrupted; what was committed stays.\n")
    assert "Traceback" not in said
    kept = FeatureStore(tmp_path / "store").ids(key)
    assert 4 <= len(kept) < 80
    assert "nothing wrong" in run("verify", key, "--store", tmp_path / "store").stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    run("demo", folder)
    return folder


def test_a_settings_file_says_what_is_to_be_stored(demo: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    text = (demo / "mer2023.yaml").read_text().replace("ViT-S-32.none", "MeanColour")
    config.write_text(text.replace(str(demo / "features"), str(tmp_path / "features" / "mer2023")))
    (document,) = json.loads(run("extract", "--config", config, "--json").stdout)
    assert document["key"] == "mer2023/frame/MeanColour/emotion_peak/8"
    assert document["computed"] == len(read_manifest(demo / "manifest.csv"))
    assert len(FeatureStore(tmp_path / "features").ids(document["key"])) == document["computed"]
    (elsewhere,) = json.loads(run("extract", "--config", config, "--store", tmp_path / "other", "--json").stdout)
    assert elsewhere["computed"] == document["computed"]
    for more in (["--manifest", demo / "manifest.csv"], [KEY], ["--ids-from", config]):
        run("extract", *more, "--config", config, exit_code=2)
    config.write_text(text.replace("skip_encoders: False", "skip_encoders: True"))
    assert "contradicts itself" in run("extract", "--config", config, exit_code=2).stderr


def test_all_test_sets_in_one_go_names_those_that_are_not_there(demo: Path, tmp_path: Path) -> None:
    line = [
        "extract",
        "frame/MeanColour/emotion_peak/8",
        "--all-datasets",
        "--root",
        demo,
        "--store",
        tmp_path / "store",
    ]
    more = ["--mer-factory", demo / "MER-Factory" / "output"]
    documents = json.loads(run(*line, *more, "--json", exit_code=1).stdout)
    assert len(documents) == 9
    (done,) = [document for document in documents if "key" in document]
    assert done["key"] == "mer2023/frame/MeanColour/emotion_peak/8"
    assert done["computed"] == 12
    assert {document["dataset"] for document in documents if "error" in document} >= {"meld", "simsv2"}
    again = run(*line, *more, exit_code=1)
    assert "12 samples: 0 computed, 12 stored before" in again.stdout
    assert "meld: root " in again.stderr


def test_mer_factory_output_goes_with_a_manifest(demo: Path, tmp_path: Path) -> None:
    source = read_manifest(demo / "manifest.csv")
    manifest = tmp_path / "plain.csv"
    manifest.write_text("id,video\n" + "".join(f"{id},{sample.video}\n" for id, sample in source.items()))
    line = ["extract", "mer2023/frame/MeanColour/emotion_peak/8", "--manifest", manifest, "--store", tmp_path / "store"]
    assert "12 failed" in run(*line, exit_code=1).stdout
    shutil.rmtree(tmp_path / "store")
    assert "12 computed" in run(*line, "--mer-factory", demo / "MER-Factory" / "output").stdout


def test_small_words() -> None:
    assert [_duration(s) for s in (3.4, 99, 130, 5400, 12_000)] == ["3 s", "99 s", "2 min", "90 min", "3 h 20 min"]
    assert [_sampler_option(text) for text in ("a=by_ratio", "b=3", "c=0.5", "d=true", "e=", "f=1=2")] == [
        ("a", "by_ratio"), ("b", 3), ("c", 0.5), ("d", True), ("e", ""), ("f", "1=2"),
    ]  # fmt: skip

"""fstore extract and retry: what is made, what is told, and what an end at any moment leaves."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli_factories import program, run
from encoder_factories import NAMES
from media_factories import remux, write_clip
from permissions import rights_by_mode

from featurestore import Extractor, FeatureKey, FeatureStore, read_manifest, register_encoder
from featurestore.cli.extract import _duration
from featurestore.cli.extractor_options import _sampler_option
from featurestore.compute.extraction import extract
from featurestore.errors import ReadOnlyError
from featurestore.sample import Sample

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
    assert "of which load " in result.stdout
    assert "loading MeanColour of my:   0%" in result.stderr
    assert "MeanColour of my: 100%" in result.stderr
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
    heading, told, numbers, times = result.stdout.splitlines()
    assert heading == "failed: media: 1 sample"
    assert told.startswith("  c: ")
    assert "2.mp4 is not media" in told
    assert numbers.startswith(f"{KEY}@")
    assert " s, of which load " in times
    result = run("extract", KEY, *mixed, exit_code=1)
    heading, told, hint, numbers = result.stdout.splitlines()
    assert heading == "failed before: media: 1 sample"
    assert told.startswith("  c: ")
    assert hint == f"Those that failed before were not tried: `{pasted('retry', KEY, mixed)}` does."
    assert "5 stored before" in numbers

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


def pasted(command: str, key: str, line: list[object]) -> str:
    """`line` in the order in which a command lists its options, as a hint quotes it."""
    given = dict(zip(line[::2], line[1::2], strict=True))
    order = ["--store", "--manifest", "--weights", "--workers"]
    return shlex.join(
        ["fstore", command, key, *(str(w) for name in order if name in given for w in (name, given[name]))]
    )


BREAKING = "my/frame/Breaking/uniform/4"
ENCODER_BREAKS = {
    "a row too few": "made (3, 3) float32, not (4, 3)",
    "a row too many": "made (5, 3) float32, not (4, 3)",
    "no rows": "made (0, 3) float32, not (4, 3)",
    "one mean of all": "made (3,) float32, not (4, 3)",
    "nothing": "made NoneType , not (4, 3)",
    "a list": "made list , not (4, 3)",
    "whole numbers": "made (4, 3) int64, not (4, 3)",
    "no numbers": "12 of 12 values of sample 'e'",
    "raises": "KeyError: 'a name that is not there'",
}


@pytest.mark.parametrize("how", ENCODER_BREAKS)
def test_an_encoder_that_breaks_its_contract_for_one_sample_costs_that_sample(
    line: list[object], tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("extract", KEY, *line)
    good = FeatureStore(tmp_path / "store")
    monkeypatch.setenv("BREAK", how)
    monkeypatch.setenv("BREAK_AT", " ".join(map(str, good.get(KEY, "e")[3])))
    document = json.loads(run("extract", BREAKING, *line, "--json", exit_code=1).stdout)
    assert (document["asked"], document["computed"], list(document["failed"])) == (6, 5, ["e"])
    assert ENCODER_BREAKS[how] in document["failed"]["e"]["message"]
    others = ["-f", "a", "b", "c", "d"]
    assert good.ids(BREAKING) == others
    np.testing.assert_array_equal(good.get_many(BREAKING, others), good.get_many(KEY, others))
    assert list(good.failures(BREAKING)) == (["e"] if how == "no numbers" else [])


def test_what_an_encoder_raises_for_all_samples_ends_the_run_after_the_sound_ones_are_stored(
    line: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("extract", KEY, *line)
    good = FeatureStore(tmp_path / "store")
    monkeypatch.setenv("BREAK", "lacks its weights")
    monkeypatch.setenv("BREAK_AT", " ".join(map(str, good.get(KEY, "e")[3])))
    result = run("extract", BREAKING, *line, "--batch-size", 1, exit_code=1)
    assert "the weights went away" in result.stderr
    stored = good.ids(BREAKING)
    # Which of "e" and "-f" comes first is up to the decoder.
    assert {"a"} <= set(stored) <= {"-f", "a", "b", "c", "d"}
    np.testing.assert_array_equal(good.get_many(BREAKING, stored), good.get_many(KEY, stored))
    assert good.failures(BREAKING) == {}


def test_failures_are_grouped_by_reason_and_the_rest_is_a_command_away(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    shutil.copytree(clips, folder)
    rows = [f"page {number:02d},page{number}.mp4" for number in range(13)]
    for number in range(13):
        (folder / f"page{number}.mp4").write_text("<html>")
    (folder / "samples.csv").write_text("\n".join(["id,video", "a,0.mp4", *rows, "no video,"]) + "\n")
    line = ["--manifest", folder / "samples.csv", "--store", tmp_path / "store", "--workers", 1]
    said = run("extract", KEY, *line, exit_code=1).stdout.splitlines()
    assert said[0] == "failed: media: 14 samples"
    assert said[1].startswith("  no video: ")
    assert said[2].startswith("  page 00: ")
    assert said[11] == "  ... and 4 more; --json lists all"  # what is not recorded will be tried again by the same line
    assert "15 samples: 1 computed, 0 stored before, 14 failed." in said[12]
    assert len(said) == 14
    said = run("extract", KEY, *line, exit_code=1).stdout.splitlines()
    assert said[:2][0] == "failed: media: 1 sample"
    assert said[2] == "failed before: media: 13 samples"
    listing = shlex.join(["fstore", "ls", str(KEY), "--store", str(tmp_path / "store"), "--failures"])
    assert said[13] == f"  ... and 3 more; `{listing}` lists all"
    listed = run(*shlex.split(listing)[1:]).stdout.splitlines()
    assert [text.split(": ")[:2] for text in listed] == [[f"page {number:02d}", "media"] for number in range(13)]
    documents = json.loads(run(*shlex.split(listing)[1:], "--json").stdout)
    assert [document["attempts"] for document in documents] == [1] * 13
    # The hint can be pasted: the manifest lies in a folder with a blank.
    (hint,) = [text for text in said if text.startswith("Those that failed before")]
    words = shlex.split(hint.split("`")[1])[1:]
    assert "13 samples: 0 computed" in run(*words, exit_code=1).stdout


def test_failures_are_listed_where_nothing_could_be_stored(mixed: list[object], tmp_path: Path) -> None:
    run("extract", KEY, *mixed, "--", "c", exit_code=1)
    assert run("ls", KEY, "--failures", "--store", tmp_path / "store").stdout.startswith("c: media: ")
    run("extract", KEY, *mixed, "--", "a")
    run("extract", "my/frame/MeanColour/uniform/2", *mixed, "--", "a")
    said = run("ls", "my/frame/MeanColour/uniform/2", "--failures", "--store", tmp_path / "store").stderr
    assert "No sample of my/frame/MeanColour/uniform/2 has a record of a failure." in said
    assert "say which" in run("ls", "--failures", "--store", tmp_path / "store", exit_code=2).stderr


def test_retry_under_other_settings_says_that_they_are_another_recipe(mixed: list[object], tmp_path: Path) -> None:
    """`retry --allow-corrupt` would look for failures where nothing was tried yet."""
    run("extract", KEY, *mixed, exit_code=1)
    said = run("retry", KEY, *mixed, "--allow-corrupt", exit_code=2).stderr
    assert "media.allow_corrupt is False in the store and True here" in said
    assert "the whole key is extracted again: `fstore extract my/frame/MeanColour/uniform/4 " in said
    words = shlex.split(said.split("again: `")[1].split("`")[0])[1:]
    assert "--allow-corrupt" in words
    assert "5 computed" in run(*words, exit_code=1).stdout
    assert len(FeatureStore(tmp_path / "store").recipes(KEY)) == 2


def test_a_video_that_is_cut_off_is_told(mixed: list[object], tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", 40, options={"bf": "0", "g": "999"})
    data = remux(whole, tmp_path / "header_first.mp4", movflags="faststart").read_bytes()
    (tmp_path / "mixed" / "2.mp4").write_bytes(data[: len(data) * 6 // 10])
    said = run("extract", KEY, *mixed, "--", "a", "c").stdout
    assert "1 video ends before the header says so, and what is there was used: c (" in said
    document = json.loads(run("extract", KEY, *mixed, "--dtype", "float16", "--json", "--", "a", "c").stdout)
    assert list(document["cut_off"]) == ["c"]
    assert document["cut_off"]["c"] > 0


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder that nobody here may write."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        with rights_by_mode():
            yield Path(folder)
        Path(folder).chmod(0o755)


def test_a_store_that_cannot_be_written_is_told_before_anything_is_decoded(
    clips: Path, locked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoding(self: object) -> None:
        pytest.fail("decode workers were started")

    monkeypatch.setattr(Extractor, "pool", decoding)
    samples = {id: Sample(id, video=clips / f"{id}.mp4") for id in "01"}
    compute = Extractor({"my": samples})
    for store in (locked, locked / "not" / "there yet"):
        with pytest.raises(ReadOnlyError, match="so nothing was computed: no permission to write; make the") as caught:
            extract(FeatureStore(store, compute=compute), FeatureKey.parse(KEY), ["0", "1"])
        assert caught.value.filename == str(locked)
        with pytest.raises(ReadOnlyError, match="nothing was computed"):
            FeatureStore(store, compute=compute).get(KEY, "0")


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
        (["my"], "key 'my' has 1 part, not 5"),
        (["my/frame/MeanColour/headtail/1", "M"], "use a key that ends in /2 or more, not /1"),
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


SECOND = "my/frame/Repeat/uniform/4"


def test_a_second_key_is_no_id(line: list[object], tmp_path: Path) -> None:
    """It was taken for one, and nothing was made, with exit code 1 and a line about a sample that is not there."""
    for words in ([KEY, SECOND], [KEY, "a", SECOND], [f"{KEY}@ab12", f"{SECOND}@cd34"]):
        said = run("extract", *words, *line, exit_code=2).output
        assert f"{words[-1]} is a key and no id, and one run takes one key. Run it once for each:" in said
        for each in (words[0], words[-1]):
            assert f"\n  fstore extract {each} " in said
        assert f"--manifest {shlex.quote(str(line[1]))}" in said
    short = run("extract", "frame/X/uniform/4", "frame/Y/uniform/4", "--all-datasets", "--root", tmp_path, exit_code=2)
    assert f"\n  fstore extract frame/Y/uniform/4 --root {shlex.quote(str(tmp_path))} --all-datasets\n" in short.output
    assert not (tmp_path / "store").exists()


def test_ids_that_look_like_keys_go_after_the_dashes(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 6)
    (tmp_path / "m.csv").write_text(f"id,video\na/b/c/d,{clip}\nx/y,{clip}\n")
    more = ["--manifest", tmp_path / "m.csv", "--store", tmp_path / "store", "--workers", 1]
    run("extract", KEY, "x/y", *more)  # two parts are no key
    run("extract", KEY, *more, "--", "a/b/c/d")
    assert FeatureStore(tmp_path / "store").ids(KEY) == ["a/b/c/d", "x/y"]
    store = ["--store", tmp_path / "store"]
    for words in (["explain", KEY], ["rm", KEY, "--yes"], ["retry", KEY, *more[:2]]):
        said = run(*words, *store, "a/b/c/d", exit_code=2).output
        assert "a/b/c/d is a key and no id" in said
        assert "An id that looks like a key goes after `--`, or into --ids-from FILE." in said
    run("explain", KEY, *store, "--", "a/b/c/d")
    run("rm", KEY, "--yes", *store, "--", "a/b/c/d")
    assert FeatureStore(tmp_path / "store").ids(KEY) == ["x/y"]


def test_weights_that_are_not_here_are_told_at_once(clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    start = time.perf_counter()
    line = ["my/frame/CLIP_VIT_LARGE/uniform/4", "--manifest", clips / "samples.csv", "--store", tmp_path / "store"]
    said = run("extract", *line, "--weights", "openai/not-here", exit_code=1).stderr
    assert "hf download openai/not-here" in said
    assert said.count("\n") == 1
    assert time.perf_counter() - start < 5


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
    kept = FeatureStore(tmp_path / "store").ids(key)
    told = f"{len(kept)} of 80 samples of {key} are stored, the same command goes on from there"
    assert said.endswith(f"Interrupted; what was committed stays: {told}.\n")
    assert "Traceback" not in said
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


def test_hints_of_all_test_sets_name_the_one_they_are_about(demo: Path, tmp_path: Path) -> None:
    shutil.copytree(demo, tmp_path / "demo")
    folder = tmp_path / "demo"
    broken = next((folder / "mer2023-dataset-process" / "video").glob("*.mp4"))
    whole = broken.read_bytes()
    broken.write_text("<html>")
    line = ["extract", "frame/MeanColour/uniform/4", "--all-datasets", "--root", folder, "--store", tmp_path / "store"]
    run(*line, exit_code=1)
    text = run(*line, exit_code=1).stdout
    hint = next(part for part in text.splitlines() if part.startswith("Those that failed before")).split("`")[1]
    where = shlex.join(["--store", str(tmp_path / "store"), "--root", str(folder), "--dataset", "mer2023"])
    assert hint == f"fstore retry mer2023/frame/MeanColour/uniform/4 {where}"
    broken.write_bytes(whole)
    assert "1 sample: 1 computed" in run(*shlex.split(hint)[1:]).stdout


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

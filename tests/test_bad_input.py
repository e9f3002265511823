"""Bad input, as a user meets it: the others are stored, nothing wrong is, and the line says what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
from cli_factories import run
from encoder_factories import NAMES
from media_factories import write_clip

from featurestore import FeatureStore, register_encoder

for name, target in NAMES.items():
    register_encoder(name, target)
KEY = "my/frame/MeanColour/uniform/4"
ADVICE = re.compile(
    r"copy or download|name a file|add the column|look at the path|tries again|make it readable|is there|name a video"
)

# A name that is a path in another system, one that leads out of a folder, an option, and names outside ASCII.
IDS = ["a/b/c", "../../up", "..", "-f", "--help", "样本", "e\u0301", "\u00e9", "with blank", "x" * 512]


def only_sound(path: Path) -> None:
    with av.open(str(path), "w") as movie:
        stream = movie.add_stream("aac", rate=16000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        block.sample_rate = 16000
        movie.mux(stream.encode(block))
        movie.mux(stream.encode(None))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Clips that can be read, and next to them every kind of file that cannot, named by what is wrong."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(len(IDS)):
        write_clip(folder / f"{number}.mp4", 6 + number)
    write_clip(folder / "one_frame.mp4", 1)
    whole = write_clip(tmp_path / "whole.mp4", 40).read_bytes()
    (folder / "empty.mp4").touch()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    only_sound(folder / "only_sound.mp4")
    (folder / "page.mp4").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    (folder / "a_folder.mp4").mkdir()
    return folder


BAD = ["empty", "truncated", "only_sound", "page", "a_folder", "not_there"]


def test_each_bad_file_is_one_line_with_the_sample_the_file_and_what_to_do(folder: Path, tmp_path: Path) -> None:
    manifest = folder / "samples.csv"
    names = ["0", "one_frame", *BAD]
    manifest.write_text("id,video\n" + "".join(f"id of {name},{name}.mp4\n" for name in names) + "no file,\n")
    line = ["extract", KEY, "--manifest", manifest, "--store", tmp_path / "store", "--workers", 1]
    text = run(*line, exit_code=1).stdout
    assert f"{len(names) + 1} samples: 2 computed, 0 stored before, {len(BAD) + 1} failed." in text
    for name in BAD:
        (told,) = [part for part in text.splitlines() if part.startswith(f"  id of {name}: ")]
        assert str(folder / f"{name}.mp4") in told
        assert ADVICE.search(told), told
    (told,) = [part for part in text.splitlines() if part.startswith("  no file: ")]
    assert "has no video, which" in told
    assert ADVICE.search(told)
    store = FeatureStore(tmp_path / "store")
    assert store.ids(KEY) == ["id of 0", "id of one_frame"]
    features = store.get_features(KEY, "id of one_frame")
    np.testing.assert_array_equal(features.frame_indices, [0, 0, 0, 0])  # all there is, and the last again
    assert (features.values == features.values[0]).all()
    assert "nothing wrong" in run("verify", KEY, "--store", tmp_path / "store", "--full").stdout
    # Records are kept of what would fail again; what was not there may be there next time.
    assert sorted(store.failures(KEY)) == sorted(
        f"id of {name}" for name in BAD if name not in ("not_there", "a_folder")
    )


def test_ids_may_be_any_text(folder: Path, tmp_path: Path) -> None:
    """They never become paths, are never normalised, and never options."""
    manifest = folder / "samples.jsonl"
    rows = [{"id": id, "video": f"{number}.mp4"} for number, id in enumerate(IDS)]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    root = tmp_path / "store"
    run("extract", KEY, "--manifest", manifest, "--store", root, "--workers", 1)
    store = FeatureStore(root)
    assert store.ids(KEY) == sorted(IDS)
    for number, id in enumerate(IDS):
        sources = store.get_features(KEY, id).provenance["sources"]  # type: ignore[index]
        assert [Path(source["path"]).name for source in sources] == [f"{number}.mp4"]
    assert sorted(run("ls", KEY, "--store", root).stdout.splitlines()) == sorted(IDS)
    run("explain", KEY, "--store", root, "--", "--help")
    assert "nothing wrong" in run("verify", KEY, "--store", root, "--manifest", manifest).stdout
    for bad in ("", "a\nb", "x" * 513):
        manifest.write_text(json.dumps({"id": bad, "video": "0.mp4"}) + "\n")
        assert "line 1" in run("extract", KEY, "--manifest", manifest, "--store", root, exit_code=1).stderr


@pytest.mark.parametrize(("encoder", "said"), [("WrongDim", "float32, not ("), ("WrongDtype", "float64")])
def test_an_encoder_that_makes_something_else_is_told_once_and_stores_nothing(
    folder: Path, tmp_path: Path, encoder: str, said: str
) -> None:
    manifest = folder / "samples.csv"
    manifest.write_text("id,video\na,0.mp4\nb,1.mp4\n")
    key = KEY.replace("MeanColour", encoder)
    text = run("extract", key, "--manifest", manifest, "--store", tmp_path / "store", exit_code=2).stderr
    (told,) = [line for line in text.splitlines() if line.startswith("Error: ")]
    assert f"encoder '{encoder}' (encoder_factories:{encoder}): encode() of 2 inputs made (2, " in told
    assert said in told


def test_an_encoder_that_makes_something_else_of_samples_stores_nothing(folder: Path, tmp_path: Path) -> None:
    manifest = folder / "samples.csv"
    manifest.write_text("id,video\na,0.mp4\nb,1.mp4\n")
    key = KEY.replace("MeanColour", "WrongLater")
    text = run("extract", key, "--manifest", manifest, "--store", tmp_path / "store", exit_code=1).stdout
    assert text.startswith("failed: encoding: 2 samples\n")
    for id, name in (("a", "0.mp4"), ("b", "1.mp4")):
        (told,) = [part for part in text.splitlines() if part.startswith(f"  {id}: ")]
        assert "float32, not (" in told
        assert str(folder / name) in told
    assert FeatureStore(tmp_path / "store").ids(key) == []

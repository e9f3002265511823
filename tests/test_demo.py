"""The demo dataset is what it says: decodable, in the shape of MER2023, with the peaks of its script."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from featurestore import FeatureStore
from featurestore.cli.demo import demo
from featurestore.datasets import load_dataset
from featurestore.demo import CLIPS, Clip, write_dataset
from featurestore.demo.dataset import DATA, OUTPUT
from featurestore.demo.recording import intensity, pictures
from featurestore.demo.script import FPS
from featurestore.merfactory import descriptions_of, peak_of
from featurestore.sample import Sample, read_manifest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("it's here") / "demo"
    result = CliRunner().invoke(demo, [str(root)])
    assert result.exit_code == 0, result.output
    assert "fstore extract mer2023/frame/ViT-S-32.none/emotion_peak/8 --manifest '" in result.output
    return root


@pytest.fixture(scope="module")
def samples(folder: Path) -> dict[str, Sample]:
    return read_manifest(folder / "manifest.csv")


def decoded(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as movie:
        return np.stack([frame.to_ndarray(format="bgr24") for frame in movie.decode(video=0)])


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_it_writes_the_same_bytes_each_time(folder: Path) -> None:
    before = digests(folder)
    write_dataset(folder)
    assert digests(folder) == before
    assert len(before) == len(CLIPS) * 5 + 4


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.id)
def test_a_clip_shows_the_frames_that_were_drawn(folder: Path, clip: Clip) -> None:
    drawn, _ = pictures(clip)
    shown = decoded(folder / DATA / "video" / f"{clip.id}.mp4")
    assert shown.shape == drawn.shape == (clip.n_frames, 288, 360, 3)
    assert 2 <= clip.n_frames / FPS <= 5
    error = np.abs(shown.astype(np.int16) - drawn).mean(axis=(1, 2, 3))
    assert error.max() < 4
    # The nearest drawn frame of each decoded one is its own: nothing is dropped, doubled or out of order.
    small = drawn[:, ::4, ::4].reshape(clip.n_frames, -1).astype(np.float32)
    seen = shown[:, ::4, ::4].reshape(clip.n_frames, -1).astype(np.float32)
    distance = (seen**2).sum(1)[:, None] + (small**2).sum(1) - 2 * seen @ small.T
    np.testing.assert_array_equal(distance.argmin(1), np.arange(clip.n_frames))


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.id)
def test_codecs_are_those_of_the_real_dataset(folder: Path, clip: Clip) -> None:
    with av.open(str(folder / DATA / "video" / f"{clip.id}.mp4")) as movie:
        video, audio = movie.streams.video[0], movie.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt, video.average_rate) == ("h264", "yuv420p", FPS)
        assert (audio.codec_context.name, audio.codec_context.sample_rate, audio.channels) == ("aac", 44100, 2)
        packets = [packet for packet in movie.demux(video) if packet.size]
        assert sum(packet.is_keyframe for packet in packets) == 1
        assert any(packet.pts != packet.dts for packet in packets)  # B-frames


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.id)
def test_faces_and_sound_are_as_long_as_the_clip(samples: dict[str, Sample], clip: Clip) -> None:
    sample = samples[clip.id]
    assert sample.face is not None
    assert sample.audio is not None
    faces = np.load(sample.face, allow_pickle=False)
    assert (faces.shape, faces.dtype) == ((clip.n_frames, 112, 112, 3), np.uint8)
    # Skin in BGR: more red than blue.
    assert faces[:, 40:60, 50:60, 2].mean() > faces[:, 40:60, 50:60, 0].mean() + 20
    with wave.open(str(sample.audio)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        assert file.getnframes() == clip.n_frames * 16000 // FPS
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert 3000 < np.abs(sound).max() < 32767


def test_peaks_are_where_the_script_says(samples: dict[str, Sample]) -> None:
    for clip in CLIPS:
        assert intensity(clip).argmax() == clip.peak_index
        peak = peak_of(samples[clip.id])
        assert (peak.index, peak.total, peak.source) == (clip.peak_index, clip.n_frames, "au_info")
        assert (peak.before, peak.after) == (clip.peak_index, clip.n_frames - 1 - clip.peak_index)


def test_openface_tables_have_their_highest_sum_at_the_peak(folder: Path) -> None:
    for clip in CLIPS:
        with (folder / OUTPUT / "MER2023" / clip.id / f"{clip.id}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [int(row["frame"]) for row in rows] == list(range(1, clip.n_frames + 1))
        sums = [sum(float(value) for name, value in row.items() if name.endswith("_r")) for row in rows]
        assert int(np.argmax(sums)) == clip.peak_index
        assert len({name for name in rows[0] if name.startswith("AU")}) == 17 + 18


def test_descriptions_are_the_guides(samples: dict[str, Sample], folder: Path) -> None:
    for clip in CLIPS:
        descriptions = descriptions_of(samples[clip.id])
        path = folder / OUTPUT / "MER2023" / clip.id / f"{clip.id}_au_analysis.json"
        text = json.loads(path.read_text())["fine_grained_descriptions"]["summary_description"]
        assert list(descriptions.texts) == [text]


def test_it_is_a_mer2023_to_the_dataset_reader(folder: Path, samples: dict[str, Sample]) -> None:
    found = load_dataset("mer2023", folder, mer_factory=folder / OUTPUT)
    assert list(found) == [clip.id for clip in CLIPS]
    for clip in CLIPS:
        one, other = found[clip.id], samples[clip.id]
        assert (one.video, one.face, one.audio, one.label) == (other.video, other.face, other.audio, clip.emotion)
        assert one.subtitle == other.subtitle == clip.english


def test_the_command_touches_no_folder_in_use(folder: Path) -> None:
    before = digests(folder)
    result = CliRunner().invoke(demo, [str(folder)])
    assert result.exit_code == 2
    assert "is not empty; name a folder that is" in result.output
    assert digests(folder) == before


def test_make_demo_ends_with_a_table_of_reads_next_to_np_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps before it are the commands of the README and the pages, whose tests run them."""
    found = importlib.util.spec_from_file_location("demo_script", ROOT / "scripts" / "demo.py")
    assert found is not None
    assert found.loader is not None
    script = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)
    ids = [f"s{number}" for number in range(3)]
    values = np.random.default_rng(0).standard_normal((3, 8, 4), dtype=np.float32)
    FeatureStore(tmp_path / "features").put_many(script.KEY, ids, values, recipe={"weights": "any"})
    monkeypatch.setattr(script, "DEMO", tmp_path)
    rows = dict(script.reading())
    assert list(rows) == [
        "open the store and list its samples",
        "first read of a sample, checksum verified",
        "later reads",
        "np.load, one .npy file per sample",
        "hit rate of these reads",
    ]
    assert rows["hit rate of these reads"].split() == ["100.0", "%", "603", "of", "603"]
    assert all(" us" in text for name, text in rows.items() if "rate" not in name)
    np.testing.assert_array_equal(np.load(tmp_path / "npy" / "s1.npy"), values[1])


def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path) -> None:
    for module in ("av", "cv2"):
        code = f"import sys; sys.modules[{module!r}] = None; from featurestore.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, "demo", "made"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == (
            "Error: the demo dataset is made with av and opencv, which are not installed: "
            "pip install 'featurestore[encoders]'"
        )
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "made").exists()

"""extract: everything that can be made is stored, what cannot is told, whatever ends the run."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from encoders_made import NAMES

from featurestore import Extractor, FailedSampleError, FeatureKey, FeatureStore, read_manifest, register_encoder
from featurestore.demo import CLIPS, write_dataset
from featurestore.errors import ConfigError, MissingFeatureError
from featurestore.extract import Report, extract
from featurestore.samples import Sample

pytest.importorskip("av")

for name, target in NAMES.items():
    register_encoder(name, target)


def key_of(encoder: str, sampling: str = "uniform", n_frames: int = 4) -> FeatureKey:
    return FeatureKey("demo", "frame", encoder, sampling, n_frames)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_dataset(folder)
    return folder


@pytest.fixture
def source(demo: Path) -> dict[str, Sample]:
    return read_manifest(demo / "manifest.csv")


def run(root: Path, source: dict[str, Sample], key: FeatureKey, **options: object) -> tuple[FeatureStore, Report]:
    with Extractor({"demo": source}, workers=2, **options) as extractor:  # type: ignore[arg-type]
        store = FeatureStore(root, compute=extractor)
        return store, extract(store, key, list(source))


def test_extracts_every_sample_with_its_frames_and_sources(tmp_path: Path, source: dict[str, Sample]) -> None:
    counts: list[int] = []
    with Extractor({"demo": source}, workers=2) as extractor:
        store = FeatureStore(tmp_path, compute=extractor)
        report = extract(store, key_of("MeanColour"), list(source), progress=counts.append)
    assert report.ok
    assert (report.asked, report.computed, report.stored_before) == (len(CLIPS), len(CLIPS), 0)
    assert sum(counts) == len(CLIPS)
    assert report.seconds.keys() == {"wall", "decode", "encode", "write"}
    clip = CLIPS[0]
    features = FeatureStore(tmp_path).get_features(key_of("MeanColour"), clip.id)
    assert features.frame_indices.tolist() == [i * clip.n_frames // 4 for i in range(4)]
    np.testing.assert_allclose(features.timestamps_s, features.frame_indices / 25, atol=1e-6)
    (recorded,) = features.provenance["sources"]
    video = source[clip.id].video
    assert (recorded["path"], recorded["size"]) == (str(video), video.stat().st_size)


def test_segments_say_what_made_them(tmp_path: Path, source: dict[str, Sample]) -> None:
    """Library versions and where the weights came from are kept, and are not part of the recipe."""
    key = key_of("ViT-S-32.none", n_frames=1)
    few = {clip.id: source[clip.id] for clip in CLIPS[:2]}
    with Extractor({"demo": few}, weights={"ViT-S-32.none": "random:0"}, workers=1) as extractor:
        store = FeatureStore(tmp_path, compute=extractor)
        store.get(key, CLIPS[0].id)
        extract(store, key, list(few))
        recipe = extractor.recipe(key).data
    for segment in store.shelf(key).reader.segments:
        made_with = segment.header["made_with"]
        assert made_with["weights"] == {"random": 0}
        assert {"torch", "open_clip_torch", "numpy", "featurestore", "host", "time"} <= made_with.keys()
    assert "made_with" not in str(recipe)
    assert "host" not in str(recipe)


def test_values_are_those_of_the_frames_chosen(tmp_path: Path, source: dict[str, Sample]) -> None:
    """Against all frames of the clip, decoded and averaged by PyAV alone."""
    import av

    store, _ = run(tmp_path, source, key_of("MeanColour"))
    clip = CLIPS[1]
    with av.open(str(source[clip.id].video)) as container:
        means = np.array([f.to_ndarray(format="rgb24").mean(axis=(0, 1)) for f in container.decode(video=0)])
    features = store.get_features(key_of("MeanColour"), clip.id)
    # Green only: red and blue take their share from chroma, which is scaled in another order here.
    assert np.ptp(means[features.frame_indices, 1]) > 1
    np.testing.assert_allclose(features.values[:, 1], means[features.frame_indices, 1], atol=0.1)


def test_second_run_computes_nothing_and_loads_neither_torch_nor_av(tmp_path: Path, demo: Path) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from featurestore import Extractor, FeatureKey, FeatureStore, read_manifest, register_encoder
from featurestore.extract import extract
register_encoder("MeanColour", "encoders_made:MeanColour")
if __name__ == "__main__":
    source = read_manifest({str(demo / "manifest.csv")!r})
    with Extractor({{"demo": source}}, workers=2) as extractor:
        store = FeatureStore({str(tmp_path)!r}, compute=extractor)
        report = extract(store, FeatureKey.parse("{key_of("MeanColour")}"), list(source))
    print(report.computed, report.stored_before, sorted({{"torch", "zarr", "av"}} & set(sys.modules)))
"""
    script = tmp_path / "again.py"
    script.write_text(program)
    outputs = [subprocess.run([sys.executable, script], capture_output=True, text=True, check=True) for _ in range(2)]
    assert outputs[0].stdout.startswith(f"{len(CLIPS)} 0")
    assert outputs[1].stdout.strip() == f"0 {len(CLIPS)} []"


def test_images_of_several_samples_go_through_the_encoder_together(
    tmp_path: Path, source: dict[str, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCODE_LOG", str(tmp_path / "log"))
    run(tmp_path / "store", source, key_of("Logged"), batch_size=16)
    sizes = [int(line) for line in (tmp_path / "log").read_text().split()]
    assert sum(sizes) == 4 * len(CLIPS)
    assert sizes[0] == 16


def test_batching_does_not_change_the_numbers(tmp_path: Path, source: dict[str, Sample]) -> None:
    ids = list(source)
    together, _ = run(tmp_path / "a", source, key_of("OneBuffer"), batch_size=64)
    apart, _ = run(tmp_path / "b", source, key_of("OneBuffer"), batch_size=1)
    np.testing.assert_array_equal(together.get_many(key_of("OneBuffer"), ids), apart.get_many(key_of("OneBuffer"), ids))


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"<html>404</html>" * 99, "bad"), (None, "missing")],
    ids=["empty", "not a video", "absent"],
)
def test_a_bad_file_costs_only_its_own_sample(
    tmp_path: Path, source: dict[str, Sample], content: bytes | None, words: str
) -> None:
    bad = tmp_path / "bad.mp4"
    if content is not None:
        bad.write_bytes(content)
    samples = {**source, "bad": Sample("bad", video=bad)}
    store, report = run(tmp_path / "store", samples, key_of("MeanColour"))
    assert report.computed == len(source)
    assert list(report.failed) == ["bad"]
    assert not report.ok
    assert "bad" in report.failed["bad"].message
    assert str(bad) in report.failed["bad"].message
    assert store.missing(key_of("MeanColour"), samples) == ["bad"]


def test_a_failure_is_not_tried_again_until_its_file_changes(tmp_path: Path, source: dict[str, Sample]) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video")
    samples = {"bad": Sample("bad", video=bad)}
    key = key_of("MeanColour")
    _, first = run(tmp_path / "store", samples, key)
    assert list(first.failed) == ["bad"]
    store, second = run(tmp_path / "store", samples, key)
    assert not second.failed
    assert list(second.failed_before) == ["bad"]
    assert not second.ok
    with pytest.raises(FailedSampleError, match=str(bad)) as caught:
        store.get(key, "bad")
    assert caught.value.failure.attempts == 1
    shutil.copy(source[CLIPS[0].id].video, bad)
    store, third = run(tmp_path / "store", samples, key)
    assert third.ok
    assert third.computed == 1
    assert store.failures(key) == {}


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ("WrongDim", r"made \(\d+, 2\) float32, not \(\d+, 3\)"),
        ("WrongCount", r"made \(\d+, 3\) float32, not \(\d+, 3\)"),
        ("WrongDtype", "float64"),
    ],
)
def test_an_encoder_of_the_wrong_shape_stores_nothing(
    tmp_path: Path, source: dict[str, Sample], encoder: str, words: str
) -> None:
    store, report = run(tmp_path, source, key_of(encoder))
    assert sorted(report.failed) == sorted(source)
    for id, failure in report.failed.items():
        assert not failure.deterministic
        assert re.search(words, failure.message)
        assert id in failure.message
    assert store.ids(key_of(encoder)) == []
    assert store.failures(key_of(encoder)) == {}


@pytest.mark.parametrize("variable", ["RAISE_AT", "NAN_AT"])
def test_an_encoder_that_fails_on_one_sample_costs_only_that(
    tmp_path: Path, source: dict[str, Sample], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, _ = run(tmp_path / "good", source, key_of("MeanColour"))
    victim = CLIPS[3].id
    monkeypatch.setenv(variable, str(good.get(key_of("MeanColour"), victim)[0, 0]))
    store, report = run(tmp_path / "store", source, key_of("Marked"), batch_size=64)
    assert list(report.failed) == [victim]
    failure = report.failed[victim]
    assert str(source[victim].video) in failure.message
    assert ("not to my taste" in failure.message) == (variable == "RAISE_AT")
    assert store.missing(key_of("Marked"), list(source)) == [victim]
    others = [id for id in source if id != victim]
    np.testing.assert_array_equal(store.get_many(key_of("Marked"), others), good.get_many(key_of("MeanColour"), others))


def test_overflow_of_float16_is_a_failure_and_not_infinity(tmp_path: Path, source: dict[str, Sample]) -> None:
    store, report = run(tmp_path, source, key_of("Overflow"), dtype="float16")
    assert sorted(report.failed) == sorted(source)
    assert "NaN or infinite as float16" in next(iter(report.failed.values())).message
    assert store.ids(key_of("Overflow")) == []


def test_a_changed_video_is_made_again(tmp_path: Path, source: dict[str, Sample]) -> None:
    video = tmp_path / "own.mp4"
    shutil.copy(source[CLIPS[0].id].video, video)
    samples = {"own": Sample("own", video=video)}
    key = key_of("MeanColour")
    store, _ = run(tmp_path / "store", samples, key)
    before = store.get(key, "own")
    os.utime(video)  # touched, but the same bytes
    _, touched = run(tmp_path / "store", samples, key)
    assert (touched.stale, touched.computed) == ([], 0)
    shutil.copy(source[CLIPS[1].id].video, video)
    store, changed = run(tmp_path / "store", samples, key)
    assert (changed.stale, changed.computed) == (["own"], 1)
    assert np.abs(FeatureStore(tmp_path / "store").get(key, "own") - before).max() > 0.01


def test_misses_are_computed_on_demand_and_kept(
    tmp_path: Path, source: dict[str, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCODE_LOG", str(tmp_path / "log"))
    with Extractor({"demo": source}, workers=1) as extractor:
        store = FeatureStore(tmp_path / "store", compute=extractor)
        key = key_of("Logged")
        first = store.get_features(key, CLIPS[0].id)
        second = store.get_features(key, CLIPS[0].id)
        assert (first.answer, second.answer) == ("computed", "disk")
        np.testing.assert_array_equal(first.values, second.values)
        store.get_many(key, [clip.id for clip in CLIPS[:3]])
    assert (store.stats.misses, store.stats.computed, store.stats.disk_hits) == (3, 3, 2)
    assert (tmp_path / "log").read_text().split() == ["4", "8"]


def test_ids_without_a_sample_fail_by_name(tmp_path: Path, source: dict[str, Sample]) -> None:
    with Extractor({"demo": source}, workers=1) as extractor:
        store = FeatureStore(tmp_path, compute=extractor)
        report = extract(store, key_of("MeanColour"), [CLIPS[0].id, "nobody"])
        assert report.computed == 1
        assert "'nobody' is not in the source of dataset 'demo'" in report.failed["nobody"].message
        with pytest.raises(ConfigError, match="no samples of dataset 'mer2023' were given"):
            extract(store, FeatureKey("mer2023", "frame", "MeanColour", "uniform", 4), ["x"])


def test_extract_needs_a_compute(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="extract needs a store with a compute"):
        extract(FeatureStore(tmp_path), key_of("MeanColour"), ["a"])


def test_the_file_with_the_peak_is_a_source_too(tmp_path: Path, source: dict[str, Sample]) -> None:
    key = key_of("MeanColour", "emotion_peak", 8)
    store, report = run(tmp_path, source, key)
    assert report.ok
    for clip in CLIPS:
        features = store.get_features(key, clip.id)
        assert clip.peak_index in features.frame_indices
        assert features.provenance["note"]["peak"] == clip.peak_index
        recorded = [Path(each["path"]).name for each in features.provenance["sources"]]
        assert recorded == [f"{clip.id}.mp4", f"{clip.id}_au_analysis.json"]


def test_descriptions_that_do_not_fit_their_videos_are_told_at_once_and_before_any_decoding(
    tmp_path: Path, source: dict[str, Sample]
) -> None:
    key = key_of("MeanColour", "emotion_peak", 8)
    twisted = {}
    for clip in CLIPS:
        document = json.loads(source[clip.id].au_json.read_text())
        document["au_info"]["total_frames"] += 7
        path = tmp_path / f"{clip.id}_au_analysis.json"
        path.write_text(json.dumps(document))
        twisted[clip.id] = replace(source[clip.id], au_json=path)
    clip = CLIPS[0]
    with pytest.raises(ConfigError) as caught:
        run(tmp_path / "store", twisted, key)
    assert (
        f"{len(CLIPS)} of {len(CLIPS)} samples: au_info.total_frames differs from the video "
        f"({clip.n_frames + 7} against {clip.n_frames} in {clip.id}): "
        "choose --sampler-option index_space=by_frame_number|by_ratio"
    ) in str(caught.value)
    store, report = run(tmp_path / "store", twisted, key, sampler_options={"emotion_peak": {"index_space": "by_ratio"}})
    assert report.ok
    expected = clip.peak_index * clip.n_frames // (clip.n_frames + 7)
    assert store.get_features(key, clip.id).provenance["note"]["peak"] == expected


def worker(root: Path, manifest: Path, encoder: str, log: Path) -> None:
    os.environ["ENCODE_LOG"] = str(log)
    source = read_manifest(manifest)
    with Extractor({"demo": source}, workers=1, batch_size=4) as extractor:
        extract(FeatureStore(root, compute=extractor), key_of(encoder), list(source))


def test_four_processes_on_the_same_ids_compute_each_once(tmp_path: Path, demo: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    logs = [tmp_path / f"log{number}" for number in range(4)]
    arguments = [(tmp_path / "store", demo / "manifest.csv", "Sleepy", log) for log in logs]
    processes = [spawn.Process(target=worker, args=each, daemon=False) for each in arguments]
    for process in processes:
        process.start()
        time.sleep(0.3)
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    encoded = sum(int(line) for log in logs if log.exists() for line in log.read_text().split())
    assert encoded == 4 * len(CLIPS)
    assert len(FeatureStore(tmp_path / "store").ids(key_of("Sleepy"))) == len(CLIPS)


def test_killed_in_the_middle_what_was_stored_is_right_and_the_next_run_ends_the_job(
    tmp_path: Path, demo: Path, source: dict[str, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featurestore.extract.UNIT", 1)
    spawn = multiprocessing.get_context("fork")
    root, key = tmp_path / "store", key_of("Sleepy")
    process = spawn.Process(target=worker, args=(root, demo / "manifest.csv", "Sleepy", tmp_path / "log"), daemon=False)
    process.start()
    deadline = time.monotonic() + 60
    while len(FeatureStore(root).ids(key)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    stored = FeatureStore(root).ids(key)
    assert 3 <= len(stored) < len(CLIPS)
    monkeypatch.setenv("ENCODE_LOG", str(tmp_path / "log2"))
    store, report = run(root, source, key)
    assert report.stored_before == len(stored)
    assert report.computed == len(CLIPS) - len(stored)
    good, _ = run(tmp_path / "good", source, key_of("MeanColour"))
    np.testing.assert_array_equal(store.get_many(key, list(source)), good.get_many(key_of("MeanColour"), list(source)))


def get_in_daemon(root: Path, manifest: Path, queue: object) -> None:
    with Extractor({"demo": read_manifest(manifest)}, workers=1) as extractor:
        try:
            FeatureStore(root, compute=extractor).get(key_of("MeanColour"), CLIPS[0].id)
        except MissingFeatureError as error:
            queue.put(str(error))  # type: ignore[attr-defined]


def test_a_dataloader_worker_says_what_to_do_instead_of_decoding(tmp_path: Path, demo: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    process = spawn.Process(target=get_in_daemon, args=(tmp_path, demo / "manifest.csv", queue), daemon=True)
    process.start()
    message = queue.get(timeout=60)
    process.join()
    assert "`fstore extract`" in message
    assert "num_workers=0" in message


def test_many_small_commits_are_merged_at_the_end(
    tmp_path: Path, source: dict[str, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featurestore.extract.UNIT", 1)
    few, _ = run(tmp_path / "few", source, key_of("MeanColour"))
    assert len(few.shelf(key_of("MeanColour")).reader.segments) == len(CLIPS)
    monkeypatch.setattr("featurestore.extract.MAX_SEGMENTS", 4)
    many, report = run(tmp_path / "many", source, key_of("MeanColour"))
    assert report.computed == len(CLIPS)
    assert len(many.shelf(key_of("MeanColour")).reader.segments) == 1
    ids = list(source)
    np.testing.assert_array_equal(many.get_many(key_of("MeanColour"), ids), few.get_many(key_of("MeanColour"), ids))


@pytest.mark.parametrize(
    ("sampling", "n_frames", "words"),
    [
        ("headtail", 1, "headtail takes frames of both halves: use a key that ends in /2 or more, not /1"),
        ("headtail", "all", "headtail needs a number of frames, e.g. a key that ends in /8, not /all"),
        ("emotion_peak", "all", "emotion_peak needs a number of frames"),
    ],
)
def test_a_number_of_frames_that_a_sampler_cannot_take_is_one_error_before_anything_is_made(
    tmp_path: Path, source: dict[str, Sample], sampling: str, n_frames: int | str, words: str
) -> None:
    """It is a mistake in the key and no failure of each sample."""
    with pytest.raises(ConfigError, match=words):
        run(tmp_path, source, FeatureKey("demo", "frame", "MeanColour", sampling, n_frames))
    assert not (tmp_path / ".fstore").exists()


@pytest.mark.parametrize(
    ("sampling", "n_frames", "words"),
    [("const_clips", 8, "chooses of audio, not of frame"), ("au_summary", "all", "chooses of au, not of frame")],
)
def test_a_sampler_of_another_modality_is_refused_before_anything_is_made(
    tmp_path: Path, source: dict[str, Sample], sampling: str, n_frames: int | str, words: str
) -> None:
    """Starts of sound windows, taken for frame numbers, would be stored as frames 0 0 0 0."""
    with pytest.raises(ConfigError, match=words):
        run(tmp_path, source, FeatureKey("demo", "frame", "MeanColour", sampling, n_frames))
    assert FeatureStore(tmp_path).keys() == []


def test_what_a_manifest_lacks_is_told_and_not_recorded(tmp_path: Path, source: dict[str, Sample]) -> None:
    """Adding the column, as the message says, must be all that it takes."""
    clip = CLIPS[0]
    for sampling, column in (("uniform", "video"), ("emotion_peak", "au_json")):
        key = key_of("MeanColour", sampling, 8)
        store, first = run(tmp_path, {clip.id: replace(source[clip.id], **{column: None})}, key)
        assert column in first.failed[clip.id].message
        assert store.failures(key) == {}
        _, second = run(tmp_path, {clip.id: source[clip.id]}, key)
        assert second.computed == 1


def test_merging_keeps_what_made_the_rows(tmp_path: Path) -> None:
    store, key = FeatureStore(tmp_path), key_of("MeanColour", n_frames=1)
    for id in ("a", "b"):
        row = np.ones((1, 1, 3), np.float32)
        store.put_many(key, [id], row, recipe={"x": 1}, made_with={"torch": "9.9", "weights": {"random": 0}})
    store.compact(key)
    (segment,) = store.shelf(key).reader.segments
    assert segment.header["made_with"]["torch"] == "9.9"
    assert segment.header["made_with"]["weights"] == {"random": 0}

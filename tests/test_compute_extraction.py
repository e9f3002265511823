"""extract: everything that can be made is stored, what cannot is told, whatever ends the run."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from encoder_factories import NAMES, MeanColour
from media_factories import write_clip
from store_factories import Making

from featurestore import (
    Extractor,
    FailedSampleError,
    FeatureKey,
    FeatureStore,
    read_manifest,
    register_encoder,
    register_sampler,
)
from featurestore.compute import preparation
from featurestore.compute.extraction import ExtractionReport, extract
from featurestore.demo import CLIPS, write_dataset
from featurestore.errors import ConfigError, ManifestError, MissingFeatureError, StoreError
from featurestore.features import Features
from featurestore.media import MEDIA_VERSIONS, decode_frames, index_video
from featurestore.sample import Sample
from featurestore.storage.feature_set import FeatureSet

av = pytest.importorskip("av")

for name, target in NAMES.items():
    register_encoder(name, target)


def key_of(encoder: str, sampling: str = "uniform", n_frames: int | str = 4) -> FeatureKey:
    return FeatureKey("demo", "frame", encoder, sampling, n_frames)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_dataset(folder)
    return folder


@pytest.fixture
def source(demo: Path) -> dict[str, Sample]:
    return read_manifest(demo / "manifest.csv")


def run(
    root: Path, source: dict[str, Sample], key: FeatureKey, **options: object
) -> tuple[FeatureStore, ExtractionReport]:
    with Extractor({"demo": source}, workers=2, **options) as extractor:  # type: ignore[arg-type]
        store = FeatureStore(root, compute=extractor)
        return store, extract(store, key, list(source))


def test_without_ids_all_samples_of_the_dataset_are_made(tmp_path: Path, source: dict[str, Sample]) -> None:
    ids = list(source)[:2]
    with Extractor({"demo": {id: source[id] for id in ids}}, workers=1) as extractor:
        store = FeatureStore(tmp_path, compute=extractor)
        report = extract(store, str(key_of("MeanColour")))
        assert (report.key, report.asked, report.computed) == (key_of("MeanColour"), 2, 2)
        other = replace(key_of("MeanColour"), dataset="other")
        with pytest.raises(ConfigError, match="the compute has no samples of dataset 'other'; pass the ids to make"):
            extract(store, other)
    assert store.ids(key_of("MeanColour")) == sorted(ids)
    with pytest.raises(ConfigError, match="the compute has no samples of dataset 'demo'"):
        extract(FeatureStore(tmp_path / "own", compute=Making()), key_of("MeanColour"))


def test_several_keys_are_extracted_in_their_order(tmp_path: Path, source: dict[str, Sample]) -> None:
    ids = list(source)[:2]
    keys = [key_of("MeanColour", n_frames=n) for n in (4, 2)]
    counts: list[int] = []
    with Extractor({"demo": source}, workers=1) as extractor:
        store = FeatureStore(tmp_path, compute=extractor)
        reports = extract(store, keys, ids, progress=counts.append)
        assert [(report.key, report.computed) for report in reports] == [(key, 2) for key in keys]
        again = extract(store, iter(map(str, keys)), ids)
        assert [(report.key, report.stored_before) for report in again] == [(key, 2) for key in keys]
        assert extract(store, [], ids) == []
    assert sum(counts) == 4
    for key in keys:
        assert store.ids(key) == sorted(ids)


def test_extracts_every_sample_with_its_frames_and_sources(tmp_path: Path, source: dict[str, Sample]) -> None:
    counts: list[int] = []
    with Extractor({"demo": source}, workers=2) as extractor:
        store = FeatureStore(tmp_path, compute=extractor)
        report = extract(store, key_of("MeanColour"), list(source), progress=counts.append)
    assert report.ok
    assert (report.asked, report.computed, report.stored_before) == (len(CLIPS), len(CLIPS), 0)
    assert sum(counts) == len(CLIPS)
    assert report.seconds.keys() == {"wall", "decode", "load", "encode", "write"}
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
    for segment in store.feature_set(key).reader.segments:
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
from featurestore.compute.extraction import extract
register_encoder("MeanColour", "encoder_factories:MeanColour")
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


ALL_FRAMES = """
import sys
import numpy as np
from featurestore import Extractor, FeatureStore, read_manifest, register_encoder
from featurestore.compute import extractor
from featurestore.compute import preparation
preparation.PIECE_BYTES, extractor.MOST_BYTES = int(sys.argv[2]) << 20, 16 << 20
register_encoder("Wide", "encoder_factories:Wide")
def most():  # since this program began: what getrusage tells may be that of the one that started it
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
before = most()
with Extractor({"mine": read_manifest(sys.argv[1] + "/m.csv")}, workers=2) as compute:
    found = FeatureStore(sys.argv[1] + "/store" + sys.argv[2], compute=compute)
    values = [found.get("mine/frame/Wide/uniform/all", id) for id in "abc"]
print((most() - before) >> 10)
np.save(sys.argv[1] + "/" + sys.argv[2], values)
"""


def test_memory_is_bounded_by_bytes_however_many_frames_a_sample_has(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", 1200, width=64, height=48, options={"preset": "ultrafast"})
    rows = [f"{id},a.mp4\n" for id in "abc"]
    (tmp_path / "m.csv").write_text("id,video\n" + "".join(rows))
    grown = {}
    for piece in ("4", "1000"):  # the second is without a bound: 172 MiB of a sample come at once
        command = [sys.executable, "-c", ALL_FRAMES, str(tmp_path), piece]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
        grown[piece] = int(done.stdout)
    assert grown["4"] < 100  # MiB: 16 on the way, three copies of the 4 that come, and PyAV or the like
    assert grown["1000"] > 300
    np.testing.assert_array_equal(np.load(tmp_path / "4.npy"), np.load(tmp_path / "1000.npy"))


def test_a_sample_of_which_a_later_piece_is_damaged_fails_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_clip(tmp_path / "whole.mp4", 60)
    data = bytearray(whole.read_bytes())
    with av.open(str(whole)) as movie:
        hit = [packet for packet in movie.demux(video=0) if packet.size][45]
        data[hit.pos + 30 : hit.pos + 60] = bytes(30)
    (tmp_path / "damaged.mp4").write_bytes(data)
    source = {name: Sample(name, video=tmp_path / f"{name}.mp4") for name in ("whole", "damaged")}
    monkeypatch.setattr(preparation, "PIECE_BYTES", 10 * 48 * 64 * 3)
    key = key_of("MeanColour", n_frames="all")
    store, report = run(tmp_path / "store", source, key)
    assert list(report.failed) == ["damaged"]
    assert report.failed["damaged"].reason == "media"
    found = store.get_features(key, "whole")
    assert found.frame_indices is not None
    assert found.frame_indices.tolist() == list(range(60))
    np.testing.assert_allclose(found.timestamps_s, np.arange(60) / 25)  # type: ignore[arg-type]
    pixels = decode_frames(index_video(whole), range(60), MeanColour.size).pixels
    np.testing.assert_allclose(found.values, pixels.mean(axis=(1, 2)), rtol=1e-6)


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


def test_what_was_made_or_refused_by_an_earlier_decoder_does_not_stay(
    tmp_path: Path, source: dict[str, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = dict(list(source.items())[:2])
    (tmp_path / "page.mp4").write_text("<html>")
    few["page"] = Sample("page", video=tmp_path / "page.mp4")
    monkeypatch.setitem(MEDIA_VERSIONS, "frame", MEDIA_VERSIONS["frame"] - 1)
    _, earlier = run(tmp_path / "store", few, key_of("MeanColour"))
    assert (earlier.computed, list(earlier.failed)) == (2, ["page"])
    _, again = run(tmp_path / "store", few, key_of("MeanColour"))
    assert (again.stored_before, list(again.failed_before)) == (2, ["page"])
    monkeypatch.undo()
    _, now = run(tmp_path / "store", few, key_of("MeanColour"))
    assert (now.computed, now.stored_before, list(now.failed)) == (2, 0, ["page"])


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ("WrongDim", r"made \(2, 2\) float32, not \(2, 3\)"),
        ("WrongCount", r"made \(1, 3\) float32, not \(2, 3\)"),
        ("WrongDtype", r"made \(2, 3\) float64, not \(2, 3\) float16 or float32"),
    ],
)
def test_an_encoder_of_the_wrong_shape_is_told_before_anything_is_decoded(
    tmp_path: Path, source: dict[str, Sample], encoder: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decodes(self: Extractor) -> None:
        raise AssertionError("something is decoded")

    monkeypatch.setattr(Extractor, "pool", decodes)
    with pytest.raises(
        ConfigError, match=rf"'{encoder}' \(encoder_factories:{encoder}\): encode\(\) of 2 inputs {words}"
    ):
        run(tmp_path, source, key_of(encoder))
    assert FeatureStore(tmp_path).ids(key_of(encoder)) == []
    assert FeatureStore(tmp_path).failures(key_of(encoder)) == {}


def test_an_encoder_that_changes_its_shape_later_stores_nothing(tmp_path: Path, source: dict[str, Sample]) -> None:
    store, report = run(tmp_path, source, key_of("WrongLater"))
    assert sorted(report.failed) == sorted(source)
    for id, failure in report.failed.items():
        assert not failure.deterministic
        assert re.search(r"made \(\d+, 2\) float32, not \(\d+, 3\)", failure.message)
        assert id in failure.message
    assert store.ids(key_of("WrongLater")) == []
    assert store.failures(key_of("WrongLater")) == {}


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


def test_another_file_for_a_sample_is_made_once_and_its_failure_is_tried_again(
    tmp_path: Path, source: dict[str, Sample]
) -> None:
    first, second = (Path(str(source[clip.id].video)) for clip in CLIPS[:2])
    film, other = tmp_path / "own.mov", tmp_path / "own.mp4"
    shutil.copy(first, film)
    shutil.copy(second, other)
    key = key_of("MeanColour")
    run(tmp_path / "store", {"own": Sample("own", video=film)}, key)
    store, report = run(tmp_path / "store", {"own": Sample("own", video=other)}, key)
    assert (report.stale, report.computed) == (["own"], 1)
    run(tmp_path / "fresh", {"own": Sample("own", video=other)}, key)
    np.testing.assert_array_equal(store.get(key, "own"), FeatureStore(tmp_path / "fresh").get(key, "own"))
    for named, gone, unnamed in (
        ({"video": other, "audio": film}, [], []),
        ({"video": tmp_path / "nothing.mp4"}, ["own"], []),
        ({"audio": other}, [], ["own"]),
    ):
        _, report = run(tmp_path / "store", {"own": Sample("own", **named)}, key)
        assert (report.stored_before, report.gone, report.unnamed) == (1, gone, unnamed)
        assert (report.as_dict()["gone"], report.as_dict()["unnamed"]) == (gone, unnamed)
    film.write_bytes(b"no video")
    samples = {"bad": Sample("bad", video=film)}
    assert run(tmp_path / "store", samples, key)[1].failed.keys() == {"bad"}
    assert run(tmp_path / "store", samples, key)[1].failed_before.keys() == {"bad"}
    mended = {"bad": Sample("bad", video=other)}
    with Extractor({"demo": mended}, workers=1) as extractor:
        on_demand = FeatureStore(tmp_path / "store", compute=extractor, read_only=True)
        assert on_demand.get_features(key, "bad").served_from == "computed"
    assert run(tmp_path / "store", mended, key)[1].computed == 1


def test_the_same_values_of_another_file_are_not_made_again_for_ever(tmp_path: Path, source: dict[str, Sample]) -> None:
    """A video that was packed anew has the same frames: what it was made of must be written down all the same."""
    film = tmp_path / "own.mp4"
    shutil.copy(str(source[CLIPS[0].id].video), film)
    key = key_of("MeanColour")
    samples = {"own": Sample("own", video=film)}
    store, _ = run(tmp_path / "store", samples, key)
    before = store.get(key, "own")
    with open(film, "ab") as file:
        file.write(b"\0\0\0\x10free" + bytes(8))  # an atom that holds nothing
    store, report = run(tmp_path / "store", samples, key)
    assert (report.stale, report.computed) == (["own"], 1)
    np.testing.assert_array_equal(store.get(key, "own"), before)
    assert run(tmp_path / "store", samples, key)[1].stale == []


def test_columns_whose_files_are_called_alike_are_not_made_again_for_ever(
    tmp_path: Path, source: dict[str, Sample]
) -> None:
    folders = [tmp_path / name for name in ("video", "sound")]
    for folder, clip in zip(folders, CLIPS, strict=False):
        folder.mkdir()
        shutil.copy(str(source[clip.id].video), folder / "a.mp4")
    samples = {"a": Sample("a", video=folders[0] / "a.mp4", audio=folders[1] / "a.mp4")}
    key = key_of("MeanColour")
    store, _ = run(tmp_path / "store", samples, key)
    (recorded,) = store.get_features(key, "a").provenance["sources"]
    assert recorded["column"] == "video"
    assert run(tmp_path / "store", samples, key)[1].stale == []


def test_a_folder_whose_name_is_not_utf8_is_as_good_as_any(tmp_path: Path, source: dict[str, Sample]) -> None:
    folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"d\xe9part")))
    folder.mkdir()
    shutil.copy(str(source[CLIPS[0].id].video), folder / "a.mp4")
    (folder / "bad.mp4").write_bytes(b"no video")
    samples = {id: Sample(id, video=folder / f"{id}.mp4") for id in ("a", "bad")}
    key = key_of("MeanColour")
    store, report = run(folder / "store", samples, key)
    assert (report.computed, list(report.failed)) == (1, ["bad"])
    assert "d\\xe9part" in store.get_features(key, "a").provenance["sources"][0]["path"]
    _, report = run(folder / "store", samples, key)
    assert (report.stored_before, list(report.failed_before)) == (1, ["bad"])
    shutil.copy(str(source[CLIPS[1].id].video), folder / "a.mp4")
    assert run(folder / "store", samples, key)[1].stale == ["a"]


def test_misses_are_computed_on_demand_and_kept(
    tmp_path: Path, source: dict[str, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCODE_LOG", str(tmp_path / "log"))
    with Extractor({"demo": source}, workers=1) as extractor:
        store = FeatureStore(tmp_path / "store", compute=extractor)
        key = key_of("Logged")
        first = store.get_features(key, CLIPS[0].id)
        second = store.get_features(key, CLIPS[0].id)
        assert (first.served_from, second.served_from) == ("computed", "disk")
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


def test_parts_of_one_file_are_refused_before_anything_is_made(tmp_path: Path, source: dict[str, Sample]) -> None:
    film = source[CLIPS[0].id].video
    (tmp_path / "m.csv").write_text(f"id,video,start,end\na,{film},0,1\nb,{film},1,2\n")
    samples, key = read_manifest(tmp_path / "m.csv"), key_of("MeanColour")
    said = "2 samples are parts of 1 files by their start and end, e.g. 'a' and 'b'"
    with pytest.raises(ManifestError, match=said):
        run(tmp_path / "store", samples, key)
    with Extractor({"demo": samples}, workers=1) as extractor, pytest.raises(ManifestError, match=said):
        FeatureStore(tmp_path / "store", compute=extractor).get(key, "a")
    assert FeatureStore(tmp_path / "store").keys() == []
    # Clips that were cut may still say from where, and two ids may mean one whole file.
    (tmp_path / "cut.csv").write_text(f"id,video,start,end\na,{film},0,1\nb,{source[CLIPS[1].id].video},1,2\n")
    assert run(tmp_path / "store", read_manifest(tmp_path / "cut.csv"), key)[1].computed == 2


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
    monkeypatch.setattr("featurestore.fill.UNIT", 1)
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
    assert "run `featurestore.extract` before training" in message
    assert "num_workers=0" in message


def test_many_small_commits_are_merged_at_the_end(
    tmp_path: Path, source: dict[str, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featurestore.fill.UNIT", 1)
    few, _ = run(tmp_path / "few", source, key_of("MeanColour"))
    assert len(few.feature_set(key_of("MeanColour")).reader.segments) == len(CLIPS)
    monkeypatch.setattr("featurestore.compute.extraction.MERGED_FROM", 5)
    many, report = run(tmp_path / "many", source, key_of("MeanColour"))
    assert report.computed == len(CLIPS)
    assert len(many.feature_set(key_of("MeanColour")).reader.segments) == 1
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


def test_a_sampler_of_ones_own_may_say_what_it_chooses_of(tmp_path: Path, source: dict[str, Sample]) -> None:
    register_sampler("of_sound", lambda sample, total, n: (range(n), {}), modalities=("audio",))
    with pytest.raises(ConfigError, match="sampler 'of_sound' chooses of audio, not of frame"):
        run(tmp_path, source, FeatureKey("demo", "frame", "MeanColour", "of_sound", 4))


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
    (segment,) = store.feature_set(key).reader.segments
    assert segment.header["made_with"]["torch"] == "9.9"
    assert segment.header["made_with"]["weights"] == {"random": 0}


# ---- commits by the clock ----


class Slow:
    """A compute whose samples are made one by one, and which waits for a sign between them."""

    def __init__(self, between: Callable[[int], None]) -> None:
        self.between = between

    def recipe(self, key: FeatureKey) -> dict[str, int]:
        return {"slow": 1}

    def __call__(self, key: FeatureKey, ids: Iterable[str]) -> Iterator[tuple[str, Features]]:
        for number, id in enumerate(ids):
            yield id, Features(np.full((4, 2), number, np.float32))
            self.between(number)


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_what_is_ready_is_stored_while_the_encoder_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample of a slow encoder does not wait for 63 others: another process sees it while this one computes."""
    monkeypatch.setattr("featurestore.fill.COMMIT_S", 0.05)
    key, seen = key_of("Slow"), list[bool]()

    def between(number: int) -> None:
        seen.append(wait_for(lambda: f"{number}" in FeatureStore(tmp_path).ids(key)))

    report = extract(FeatureStore(tmp_path, compute=Slow(between)), key, ["0", "1", "2"])
    assert seen == [True] * 3
    assert report.computed == 3
    assert len(list(tmp_path.glob("data/demo/frame/Slow/uniform/4/*/segments/*/zarr.json"))) == 3


def test_without_the_clock_it_would_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above tells a version that commits in units only."""
    monkeypatch.setattr("featurestore.fill.COMMIT_S", 1e6)
    key, stored = key_of("Slow"), list[list[str]]()
    compute = Slow(lambda number: stored.append(FeatureStore(tmp_path).ids(key)))
    extract(FeatureStore(tmp_path, compute=compute), key, ["0", "1", "2"])
    assert stored == [[], [], []]
    assert FeatureStore(tmp_path).ids(key) == ["0", "1", "2"]


def test_a_disk_that_the_clock_cannot_write_to_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.fill.COMMIT_S", 0.05)
    tried = threading.Event()

    def keep(*_: object, **__: object) -> int:
        tried.set()
        raise StoreError(errno.ENOSPC, "no space left", str(tmp_path))

    monkeypatch.setattr(FeatureSet, "keep", keep)
    made: list[int] = []

    def between(number: int) -> None:
        made.append(number)
        assert tried.wait(60)
        time.sleep(0.2)  # for the thread to note why

    with pytest.raises(StoreError, match="no space left"):
        extract(FeatureStore(tmp_path, compute=Slow(between)), key_of("Slow"), [str(i) for i in range(50)])
    assert made == [0]


def test_progress_counts_what_was_made_and_what_others_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not commits: 64 samples at once, after minutes of nothing."""
    monkeypatch.setattr("featurestore.fill.COMMIT_S", 0.0)
    monkeypatch.setattr("featurestore.storage.claims.LOOK_S", 0.0)
    key, counts, order = key_of("Slow"), list[int](), list[tuple[int, int]]()

    def between(number: int) -> None:
        order.append((number, sum(counts)))
        if number == 0:
            other = FeatureStore(tmp_path)
            other.put_many(key, ["3", "4", "5"], np.ones((3, 4, 2), np.float32), recipe={"slow": 1})

    ids = [str(i) for i in range(6)]
    report = extract(FeatureStore(tmp_path, compute=Slow(between)), key, ids, progress=counts.append)
    assert (report.computed, report.waited) == (3, 3)
    assert order == [(0, 1), (1, 5), (2, 6)]
    assert sum(counts) == len(ids)


def test_an_interruption_in_the_middle_of_a_commit_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, calls = FeatureSet.keep, list[int]()

    def interrupted(self: FeatureSet, *rows: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return keep(self, *rows, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(FeatureSet, "keep", interrupted)
    key = key_of("Slow")
    with pytest.raises(KeyboardInterrupt):
        extract(FeatureStore(tmp_path, compute=Slow(lambda number: None)), key, ["a", "b"])
    assert FeatureStore(tmp_path).ids(key) == ["a", "b"]
    assert not [thread for thread in threading.enumerate() if thread.name == "commit" and thread.is_alive()]


def test_loading_is_told_apart_from_encoding(tmp_path: Path, source: dict[str, Sample]) -> None:
    stages: list[str] = []
    weights = {"ViT-S-32.none": "random:0"}
    with Extractor({"demo": source}, workers=1, weights=weights, on_stage=stages.append) as extractor:
        store, key = FeatureStore(tmp_path, compute=extractor), key_of("ViT-S-32.none", n_frames=1)
        report = extract(store, key, list(source)[:2])
    assert stages == ["loading", "encoding"]
    assert report.seconds["load"] > 0
    assert report.seconds["load"] + report.seconds["encode"] <= report.seconds["wall"]

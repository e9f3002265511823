"""Several keys in one go: what the guide's file says, and the nine test sets, resumed and with one report."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_factories import make_clip
from cli_factories import program, run
from encoder_factories import NAMES
from media_factories import write_clip
from test_config_explain import GUIDE

from featurestore import FeatureStore, register_encoder
from featurestore.datasets import resolve_dataset, unibench_names

for encoder, target in NAMES.items():
    register_encoder(encoder, target)
KEY = "frame/MeanColour/emotion_peak/8"
FRAMES = 12


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of the nine as they are published, two samples in each, and MER-Factory's output beside them."""
    root = tmp_path_factory.mktemp("datasets")
    write_clip(root / "clip.mp4", FRAMES)
    peak = {"peak_index": 5, "frames_before_peak": 5, "frames_after_peak": FRAMES - 6}
    described = json.dumps({"au_info": {"total_frames": FRAMES, "peak_frames": [peak]}})
    for number, dataset in enumerate(map(resolve_dataset, unibench_names())):
        folder, ids = root / dataset.folders[0], [f"Ses05F_{dataset.name}_{sample}" for sample in range(2)]
        assert dataset.labels is not None
        assert dataset.video is not None
        (folder / dataset.video.folder).mkdir(parents=True)
        for id in ids:
            shutil.copy(root / "clip.mp4", folder / dataset.video.folder / f"{id}{dataset.video.extensions[0]}")
            level = dataset.mer_factory[0] if number % 2 else dataset.name
            (root / "output" / level / id).mkdir(parents=True)
            (root / "output" / level / id / f"{id}_au_analysis.json").write_text(described)
        if dataset.labels.file.endswith(".npz"):
            label: Any = {"class": 0, "valence": 0.5}[dataset.labels.kind]
            corpus = np.array({id: {dataset.labels.field: label} for id in ids}, dtype=object)
            np.savez(folder / dataset.labels.file, **dict.fromkeys(dataset.split().arrays, corpus))
        else:
            write_table(folder / dataset.labels.file, ["name", dataset.labels.field], ids)
            assert dataset.subtitles is not None
            write_table(folder / dataset.subtitles.file, ["name", dataset.subtitles.column], ids)
    return root


def write_table(path: Path, header: list[str], ids: list[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *([id, "[x]"] for id in ids)])


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """A copy that may be spoiled."""
    return Path(shutil.copytree(published, tmp_path / "datasets"))


def line(root: Path) -> list[object]:
    words = ["--root", root, "--mer-factory", root / "output", "--store", root / "features", "--workers", 1]
    return ["extract", KEY, "--all-datasets", *words]


def test_the_nine_are_made_and_then_found(root: Path) -> None:
    said = run(*line(root)).stdout.splitlines()
    assert said[-1] == "Together 18 samples under 9 keys: 18 computed, 0 stored before, 0 failed."
    store = FeatureStore(root / "features")
    assert [(key.dataset, len(store.ids(key))) for key in store.keys()] == [(name, 2) for name in unibench_names()]
    documents = json.loads(run(*line(root), "--json").stdout)
    assert [(document["stored_before"], document["computed"]) for document in documents] == [(2, 0)] * 9
    (frames,) = {tuple(store.get_features(key, store.ids(key)[0]).frame_indices) for key in store.keys()}
    assert {3, 4, 5, 6, 7} <= set(frames)  # around the peak, so that MER-Factory's files were found under either level


def test_what_is_wrong_with_one_set_does_not_keep_the_others_back(root: Path) -> None:
    (root / "sims-process" / "label.npz").unlink()
    for file in (root / "output").glob("*/*_meld_*/*.json"):
        file.write_text(file.read_text().replace(f'"total_frames": {FRAMES}', f'"total_frames": {FRAMES + 9}'))
    (root / "mer2024-dataset-process" / "video" / "Ses05F_mer2024_1.mp4").write_bytes(b"half")
    result = run(*line(root), exit_code=1)
    said = result.stdout.splitlines()
    assert said[-1] == "Together 14 samples under 7 keys: 13 computed, 0 stored before, 1 failed; 2 datasets not begun."
    assert "label.npz does not exist" in next(text for text in result.stderr.splitlines() if text.startswith("sims: "))
    assert "choose --sampler-option index_space=" in next(
        text for text in result.stderr.splitlines() if text.startswith("meld: ")
    )
    documents = json.loads(run(*line(root), "--json", exit_code=1).stdout)
    assert {document["dataset"] for document in documents if "error" in document} == {"sims", "meld"}
    assert [len(document["failed_before"]) for document in documents if "key" in document].count(1) == 1
    again = run(*line(root), "--sampler-option", "index_space=by_ratio", exit_code=1).stdout.splitlines()
    assert again[-1].startswith("Together 16 samples under 8 keys: 15 computed")  # options are part of the recipe


def test_the_guides_file_with_paths_of_ones_own_is_all_it_takes(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    demo = tmp_path / "demo"
    run("demo", demo)
    text = GUIDE.replace("/data/MER-Factory/output", str(demo / "MER-Factory" / "output"))
    text = text.replace("/data/mer2023", str(demo / "mer2023-dataset-process"))
    text = text.replace("./preextracted_features/mer2023", str(tmp_path / "preextracted_features" / "mer2023"))
    (tmp_path / "guide.yaml").write_text(text)
    words = ["extract", "--config", tmp_path / "guide.yaml", "--weights", make_clip(tmp_path / "clip"), "--workers", 1]
    (document,) = json.loads(run(*words, "--json").stdout)
    assert document["key"] == "mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8"
    assert (document["asked"], document["computed"]) == (12, 12)
    store = FeatureStore(tmp_path / "preextracted_features")
    assert [str(key) for key in store.keys()] == [document["key"]]
    assert "0 computed, 12 stored before" in run(*words).stdout


def test_an_interrupt_keeps_what_was_made_and_the_same_line_goes_on(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    words = [*program(tmp_path), *(str(word).replace("MeanColour", "Sleepy") for word in line(root))]
    environment = {**os.environ, "ENCODE_LOG": str(log)}
    child = subprocess.Popen(words, env=environment, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(log.read_text().splitlines()) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)
    assert child.wait(60) == 130
    store = FeatureStore(root / "features")
    kept = sum(len(store.ids(key)) for key in store.keys())
    assert 1 <= kept < 18
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    total = f"Together 18 samples under 9 keys: {18 - kept} computed, {kept} stored before, 0 failed."
    assert done.stdout.splitlines()[-1] == total

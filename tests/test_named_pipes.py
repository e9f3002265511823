"""A named pipe in the place of a file that a user gives: nobody waits for what writes into it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_factories import run
from encoder_factories import NAMES
from media_factories import write_clip

from affect_infer.model.checkpoint import read_checkpoint
from affect_infer.model.language_files import check_language_files
from affect_infer.model.model_files import check_model_files, model_identity
from affect_infer.results import Results, read_results
from affect_infer.run.certificate import certificate_path, read_certificate
from affect_infer.scores.wheels import FILES, read_wheels
from affect_infer.settings.captions import read_captions
from affect_infer.settings.reading import read_settings
from affect_infer.settings.settings import Changes
from featurestore import FeatureKey, FeatureStore, Sample, read_manifest, register_encoder
from featurestore.affectgpt.exporting import export_tree
from featurestore.affectgpt.guide import read_guide
from featurestore.affectgpt.importing import import_tree
from featurestore.affectgpt.npy import read_npy, read_rows
from featurestore.affectgpt.strict_yaml import load_yaml
from featurestore.datasets import Dataset, load_dataset, resolve_dataset
from featurestore.datasets.label_npz import read_label_array
from featurestore.datasets.table import read_columns
from featurestore.encoders.tensors import SafetensorsFile, read_tensors
from featurestore.encoders.weights import Checkpoint, file_identity
from featurestore.errors import (
    ConfigError,
    DescriptionError,
    FeatureStoreError,
    InputError,
    LegacyTreeError,
    ManifestError,
    MediaError,
    RecipeError,
)
from featurestore.media import count_faces, index_video, read_audio, read_faces
from featurestore.media.magic import what_it_is
from featurestore.media.source import file_source
from featurestore.merfactory.descriptions import descriptions_of
from featurestore.merfactory.document import read_json
from featurestore.merfactory.openface import strongest
from featurestore.provenance import file_sha256
from featurestore.untrusted_io.files import is_lfs_pointer, open_untrusted, read_untrusted

for name, target in NAMES.items():
    register_encoder(name, target)
pytestmark = pytest.mark.timeout(60)
KEY = FeatureKey.parse("mine/frame/CLIP_VIT_LARGE/uniform/8")
DO_NOT_WAIT = os.O_NONBLOCK  # kept here: the mutant takes it from `os` for everybody


def openly(path: Path) -> None:
    with open_untrusted(path):
        raise AssertionError("it was opened")


def of_a_language_model(path: Path) -> None:
    (path.parent / "config.json").write_text('{"model_type": "qwen2"}')
    check_language_files(path.parent)


def of_a_dataset(path: Path) -> None:
    declaration = path.parent / "mine.toml"
    declaration.write_text(f'name = "mine"\n[splits.test]\nfile = "{path.name}"\n')
    list(load_dataset(declaration, path.parent))


# Name of the file, what reads it, what it raises.
READERS: dict[str, tuple[str, Callable[[Path], Any], type[Exception]]] = {
    "any file": ("a", openly, OSError),
    "any small file": ("a", lambda path: read_untrusted(path, 9), OSError),
    "a pointer of Git LFS": ("a", is_lfs_pointer, OSError),
    "a digest": ("a", file_sha256, OSError),
    "manifest, CSV": ("a.csv", read_manifest, ManifestError),
    "manifest, JSON": ("a.jsonl", read_manifest, ManifestError),
    "manifest, sheet": ("a.xlsx", read_manifest, ManifestError),
    "table": ("a.csv", lambda path: list(read_columns(path, "name", "label")), ManifestError),
    "labels": ("a.npz", lambda path: read_label_array(path, "x"), ManifestError),
    "names of a dataset": ("a.csv", of_a_dataset, ManifestError),
    "declaration": ("a.toml", resolve_dataset, ConfigError),
    "YAML": ("a.yaml", load_yaml, ConfigError),
    "guide": ("a.yaml", read_guide, ConfigError),
    "settings": ("a.yaml", lambda path: read_settings(path, Changes()), ConfigError),
    "MER-Factory": ("a.json", read_json, DescriptionError),
    "description": ("a.json", lambda path: descriptions_of(Sample("a", au_json=path)), DescriptionError),
    "OpenFace": ("a.csv", strongest, DescriptionError),
    "video": ("a.mp4", index_video, MediaError),
    "sound": ("a.wav", read_audio, MediaError),
    "media": ("a.mp4", file_source, MediaError),
    "faces": ("a.npy", count_faces, MediaError),
    "old .npy": ("a.npy", read_npy, OSError),
    "weights, safetensors": ("a.safetensors", SafetensorsFile, InputError),
    "weights, pickled": ("a.bin", lambda path: read_tensors((path,)), InputError),
    "config of weights": ("config.json", lambda path: Checkpoint(path.parent, ()).read_json(path.name), ConfigError),
    "checkpoint": ("a.pth", read_checkpoint, InputError),
    "checkpoint before all else": ("a.pth", lambda path: check_model_files(path, "here"), InputError),
    "config of a language model": ("config.json", lambda path: check_language_files(path.parent), InputError),
    "other file of a language model": ("special_tokens_map.json", of_a_language_model, InputError),
    "captions": ("a.json", lambda path: read_captions(path, Dataset("mine", "mine")), InputError),
    "results": ("a.jsonl", read_results, InputError),
    "results to go on with": ("a.jsonl", lambda path: Results(path, {}).__enter__(), InputError),
    "wheels": (FILES[0], lambda path: read_wheels(path.parent), FeatureStoreError),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, reader: str) -> None:
    name, read, error = READERS[reader]
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(error, match=name.replace(".", r"\.")) as caught:
        read(path)
    assert (
        "regular file" in str(caught.value)
        or f"lacks {len(FILES)}" in str(caught.value)
        or "is not a file" in str(caught.value)
    )


def test_a_certificate_is_not_waited_for(tmp_path: Path) -> None:
    path = certificate_path(tmp_path, KEY, "a" * 64, "b" * 64)
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(RecipeError, match=r"certificate .* cannot be read .*is not a regular file"):
        read_certificate(tmp_path, KEY, "a" * 64, "b" * 64)


def test_where_a_reader_asks_nothing_more_it_says_that_nothing_is_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    assert what_it_is(tmp_path / "a") is None
    assert model_identity(tmp_path / "a", "nobody/has-this")["checkpoint"] == {"name": str(tmp_path / "a")}
    assert file_identity(str(tmp_path), "x")["digest"]  # not one of the files
    out = np.zeros((1, 8, 4), np.float32)
    assert read_rows(tmp_path, ["a"], out, (8, 4)) == [0]


def test_faces_that_became_a_pipe_are_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 8, 8, 3), np.uint8))
    index = count_faces(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(MediaError, match="changed"):
        read_faces(index, [0])


def test_trees_of_npy_are_read_and_written_around_a_pipe(tmp_path: Path) -> None:
    folder = tmp_path / "tree" / "mer2023" / "frame_CLIP_VIT_LARGE_uniform_8frms"
    folder.mkdir(parents=True)
    np.save(folder / "a.npy", np.ones((8, 768), np.float32))
    os.mkfifo(folder / "b.npy")
    store = FeatureStore(tmp_path / "store")
    report = import_tree(tmp_path / "tree", store)
    assert "stray" in [finding.kind for finding in report.findings]
    out = tmp_path / "out"
    (key,) = store.keys()
    written = Path(export_tree(store, key, out).folder) / "a.npy"
    written.unlink()
    os.mkfifo(written)
    with pytest.raises(LegacyTreeError, match=r"a\.npy: .*is not a regular file"):
        export_tree(store, key, out)


def test_a_sample_whose_file_is_a_pipe_is_a_line(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", 4)
    os.mkfifo(tmp_path / "b.mp4")
    manifest = tmp_path / "samples.csv"
    manifest.write_text("id,video\na,a.mp4\nb,b.mp4\n")
    said = run(
        "extract", "my/frame/MeanColour/uniform/4", "--manifest", manifest, "--store", tmp_path / "s", exit_code=1
    )
    assert "b.mp4: is not a regular file" in said.stdout


def someone_waits(path: Path, read: Callable[[Path], Any]) -> bool:
    """Whether a reader of the pipe stands still until somebody writes into it."""
    ended = threading.Event()

    def reading() -> None:
        try:
            read(path)
        except OSError:
            ended.set()

    reader = threading.Thread(target=reading)
    reader.start()
    waited = False
    while not ended.is_set():
        try:
            os.close(os.open(path, os.O_WRONLY | DO_NOT_WAIT))  # refused where nobody reads
            waited = True
        except OSError:
            ended.wait(0.01)
    reader.join()
    return waited


def test_without_its_flag_the_reader_would_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "a")
    monkeypatch.setattr("featurestore.untrusted_io.files.os.O_NONBLOCK", 0)  # the mutant
    assert someone_waits(tmp_path / "a", file_sha256)

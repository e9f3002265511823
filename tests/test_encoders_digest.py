"""The digest of weights: one for one model, another for another, and remembered only as long as it is true."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_factories import (
    as_open_clip,
    make_clip,
    make_data2vec,
    make_dinov2,
    make_hubert,
    make_siglip,
    pickled,
)
from comparisons import assert_same
from safetensors.torch import load_file, save_file

from featurestore.encoders import load_encoder, weights_identity
from featurestore.encoders import notes as notes_module
from featurestore.encoders.tensors import digest, read_tensors
from featurestore.errors import InputError, WeightsNotFoundError
from featurestore.quality.compare import bound

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
WINDOWS = np.random.default_rng(0).normal(0, 0.1, (2, 32000)).astype(np.float32)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("weights") / "clip")


@pytest.fixture
def copied(clip_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clip_folder, tmp_path / "copied"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def identity(name: str, weights: Path | str | None) -> dict[str, Any]:
    return weights_identity(load_encoder(name, weights, "cpu"))


# -- one model, one digest -------------------------------------------------------------------------------------------


def test_one_clip_has_one_digest_in_every_format(clip_folder: Path, tmp_path: Path) -> None:
    """Hugging Face's safetensors and pickle, open_clip's safetensors, a training checkpoint: same recipe, same rows."""
    published = as_open_clip(clip_folder, tmp_path / "open_clip")
    trained = tmp_path / "trained"
    shutil.copytree(published, trained, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = load_file(published / "open_clip_model.safetensors")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in tensors.items()}},
        trained / "open_clip_pytorch_model.bin",
    )
    folders = [clip_folder, pickled(clip_folder, tmp_path / "pickled"), published, trained]
    for name, batch in (("CLIP_VIT_LARGE", IMAGES), ("CLIP_TEXT", ["one", "two"])):
        made = [load_encoder(name, folder, "cpu") for folder in folders]
        assert len({weights_identity(encoder)["digest"] for encoder in made}) == 1
        assert all(encoder.config() == made[0].config() for encoder in made)
        for encoder in made[1:]:
            assert_same(encoder.encode(batch), made[0].encode(batch), bound(encoder.config()))


def test_a_digest_is_over_names_shapes_and_float32_bytes(tmp_path: Path) -> None:
    """Written down for another program to repeat, and for stores that exist."""
    save_file({"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(1.5)}, tmp_path / "x.safetensors")
    text = b'["a", []]\n' + np.float32(1.5).tobytes() + b'["b", [2, 3]]\n' + np.arange(6, dtype="<f4").tobytes()
    assert digest(read_tensors((tmp_path / "x.safetensors",))) == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_tensors_of_other_dtypes_are_read_as_torch_reads_them(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {"w": (torch.randn(5, 7) * 3).to(dtype), "empty": torch.zeros(0, 3, dtype=dtype)}
    save_file(tensors, tmp_path / "x.safetensors")
    read = read_tensors((tmp_path / "x.safetensors",))
    assert sorted(read) == ["empty", "w"]
    for name, value in tensors.items():
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], value.float().numpy())


def test_only_the_tower_in_use_counts(clip_folder: Path, copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    tensors["text_projection.weight"] += 1
    save_file(tensors, copied / "model.safetensors")
    assert identity("CLIP_VIT_LARGE", copied) == identity("CLIP_VIT_LARGE", clip_folder)
    assert identity("CLIP_TEXT", copied) != identity("CLIP_TEXT", clip_folder)


@pytest.mark.parametrize(
    "name", ["vision_model.encoder.layers.1.self_attn.v_proj.bias", "vision_model.embeddings.class_embedding"]
)
def test_the_last_bit_of_any_tensor_counts(name: str, clip_folder: Path, copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    tensors[name].view(torch.int32)[-1] ^= 1
    save_file(tensors, copied / "model.safetensors")
    assert identity("CLIP_VIT_LARGE", copied) != identity("CLIP_VIT_LARGE", clip_folder)


def test_position_ids_of_older_checkpoints_are_left_out(clip_folder: Path, copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    for tower, length in (("vision_model", 257), ("text_model", 77)):
        tensors[f"{tower}.embeddings.position_ids"] = torch.arange(length)[None]
    save_file(tensors, copied / "model.safetensors")
    for name in ("CLIP_VIT_LARGE", "CLIP_TEXT"):
        assert identity(name, copied) == identity(name, clip_folder)
    load_encoder("CLIP_VIT_LARGE", copied, "cpu").encode(IMAGES)


def test_one_hubert_has_one_digest(tmp_path: Path) -> None:
    """chinese-hubert-large is a pickle whose weight normalisation has the names of older versions of torch."""

    def old_names(name: str) -> str:
        return "hubert." + name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        )

    folder = make_hubert(tmp_path / "hubert")
    old = pickled(folder, tmp_path / "old", old_names)
    new_encoder, old_encoder = (load_encoder("HUBERT_LARGE", path, "cpu") for path in (folder, old))
    assert weights_identity(new_encoder) == weights_identity(old_encoder)
    assert_same(new_encoder.encode(WINDOWS), old_encoder.encode(WINDOWS), bound(new_encoder.config()))


@pytest.mark.parametrize(
    ("name", "make", "unused"),
    [
        ("HUBERT_LARGE", make_hubert, "masked_spec_embed"),
        ("DATA2VEC_BASE", make_data2vec, "lm_head.weight"),
        ("DINO2_LARGE", make_dinov2, "layernorm.bias"),
        ("DINO2_LARGE", make_dinov2, "embeddings.mask_token"),
        ("SigLIP_SO", make_siglip, "vision_model.head.probe"),
        ("SigLIP_SO", make_siglip, "text_model.head.bias"),
    ],
)
def test_what_is_not_in_use_does_not_count(name: str, make: Any, unused: str, tmp_path: Path) -> None:
    folder = make(tmp_path / name)
    before = identity(name, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[unused] += 1
    save_file(tensors, folder / "model.safetensors")
    assert identity(name, folder) == before


def test_weights_may_be_split_over_files(clip_folder: Path, copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    names = sorted(tensors)
    where = {name: f"model-{1 + i % 2:05}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(where.values()):
        save_file({name: tensors[name] for name in names if where[name] == file}, copied / file)
    (copied / "model.safetensors").unlink()
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    assert identity("CLIP_VIT_LARGE", copied) == identity("CLIP_VIT_LARGE", clip_folder)
    (copied / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsNotFoundError, match="model-00002-of-00002"):
        identity("CLIP_TEXT", copied)


# -- remembering -----------------------------------------------------------------------------------------------------


def settle(path: Path, seconds_ago: float = 100) -> None:
    then = time.time_ns() - int(seconds_ago * 1e9)
    os.utime(path, ns=(then, then))


def test_a_digest_is_remembered_until_the_file_changes(clip_folder: Path, copied: Path) -> None:
    """Other bytes with the same size and mtime pass unseen: what tells that the file was not read again."""
    file = copied / "model.safetensors"
    settle(file, 100)
    stamp = file.stat().st_mtime_ns
    first = identity("CLIP_VIT_LARGE", copied)
    assert first == identity("CLIP_VIT_LARGE", clip_folder)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stamp, stamp))
    last_name = sorted(load_file(file))[-1]  # the last bytes belong to a tensor of the image tower
    assert last_name.startswith("visual_projection")
    assert identity("CLIP_VIT_LARGE", copied) == first
    settle(file, 50)
    assert identity("CLIP_VIT_LARGE", copied) != first


def test_a_file_that_was_just_written_is_read_again(copied: Path) -> None:
    file = copied / "model.safetensors"
    os.utime(file)
    stamp = file.stat().st_mtime_ns
    first = identity("CLIP_VIT_LARGE", copied)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stamp, stamp))
    assert identity("CLIP_VIT_LARGE", copied) != first


@pytest.mark.parametrize("changed", ["weights", "config"])
def test_weights_that_change_after_their_digest_was_taken_are_refused(
    changed: str, clip_folder: Path, copied: Path
) -> None:
    """Else rows would be stored under the recipe of the weights before."""
    encoder = load_encoder("CLIP_VIT_LARGE", copied, "cpu")
    weights_identity(encoder)
    if changed == "weights":
        make_clip(copied, seed=1)
    else:
        (copied / "preprocessor_config.json").unlink()
        (copied / "config.json").write_text((copied / "config.json").read_text().replace("quick_gelu", "gelu"))
    with pytest.raises(InputError, match=r"copied/model.safetensors or the config .* has changed since its digest"):
        encoder.encode(IMAGES)
    other = load_encoder("CLIP_VIT_LARGE", copied, "cpu")
    other.encode(IMAGES)
    assert (weights_identity(other) != identity("CLIP_VIT_LARGE", clip_folder)) == (changed == "weights")


def test_a_pickle_is_digested_through_torch_only_once(clip_folder: Path, tmp_path: Path) -> None:
    folder = pickled(clip_folder, tmp_path / "pickled")
    settle(folder / "pytorch_model.bin")
    first = identity("CLIP_VIT_LARGE", folder)
    code = f"""
import sys
from featurestore.encoders import load_encoder, weights_identity
assert weights_identity(load_encoder("CLIP_VIT_LARGE", {str(folder)!r})) == {first!r}
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_that_are_gone_keep_their_name(copied: Path) -> None:
    """The recipe of stored features can still be asked for; only computing needs the weights back."""
    encoder = load_encoder("CLIP_VIT_LARGE", copied, "cpu")
    before = (encoder.config(), weights_identity(encoder), encoder.dim)
    shutil.rmtree(copied)
    again = load_encoder("CLIP_VIT_LARGE", copied, "cpu")
    assert (again.config(), weights_identity(again), again.dim) == before
    with pytest.raises(WeightsNotFoundError, match="there is no file or directory"):
        again.encode(IMAGES)
    with pytest.raises(WeightsNotFoundError):
        weights_identity(load_encoder("CLIP_TEXT", copied))


def test_a_relative_path_is_not_mistaken_for_that_of_another_directory(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    shutil.copytree(clip_folder, "my/clip")
    assert identity("CLIP_VIT_LARGE", "my/clip") == identity("CLIP_VIT_LARGE", clip_folder)
    monkeypatch.chdir(tmp_path / "two")
    with pytest.raises(WeightsNotFoundError):
        identity("CLIP_VIT_LARGE", "my/clip")
    monkeypatch.chdir(tmp_path / "one")
    shutil.rmtree("my")
    assert identity("CLIP_VIT_LARGE", "my/clip") == identity("CLIP_VIT_LARGE", clip_folder)


def test_a_cache_that_cannot_be_written_or_read_costs_only_time(
    tmp_path: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    first = identity("CLIP_VIT_LARGE", clip_folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "broken"))
    settle(clip_folder / "model.safetensors")
    assert identity("CLIP_VIT_LARGE", clip_folder) == first
    written = list((tmp_path / "broken").rglob("*.json"))
    assert written
    for note in written:
        note.write_text("{")
    assert identity("CLIP_VIT_LARGE", clip_folder) == first
    assert notes_module.recall("no such", "note") is None


def test_a_user_without_a_home_computes_it_each_time(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number which no list of users has."""
    settle(clip_folder / "model.safetensors")
    first = identity("CLIP_VIT_LARGE", clip_folder)
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    assert notes_module.cache_folder() is None
    assert identity("CLIP_VIT_LARGE", clip_folder) == first
    notes_module.remember("kind", "subject", "value")
    assert notes_module.recall("kind", "subject") is None

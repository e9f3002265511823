"""Weights: where they are looked for, and what is said when they are not there or cannot be used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_factories import (
    REVISION,
    in_hub_cache,
    make_clip,
    make_hubert,
    make_siglip,
)
from comparisons import assert_caught, assert_same
from safetensors.torch import load_file, save_file

from featurestore.encoders import load_encoder, weights_identity, weights_origin
from featurestore.errors import ConfigError, InputError, WeightsNotFoundError
from featurestore.quality.compare import rounding

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
WINDOWS = np.random.default_rng(0).normal(0, 0.1, (2, 32000)).astype(np.float32)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("weights") / "clip")


@pytest.fixture
def copied(clip_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clip_folder, tmp_path / "copied"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache of this test's own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def identity(name: str, weights: Path | str | None) -> dict[str, Any]:
    return weights_identity(load_encoder(name, weights, "cpu"))


# -- the hub's cache -------------------------------------------------------------------------------------------------


def test_published_weights_are_found_in_the_hub_cache(hub: Path, clip_folder: Path) -> None:
    in_hub_cache(clip_folder, hub, "openai/clip-vit-large-patch14")
    encoder = load_encoder("CLIP_VIT_LARGE", device="cpu")
    assert weights_origin(encoder)["revision"] == REVISION
    assert weights_identity(encoder) == identity("CLIP_VIT_LARGE", clip_folder)


def test_a_hub_id_may_have_a_revision(hub: Path, clip_folder: Path, tmp_path: Path) -> None:
    other = make_clip(tmp_path / "other", seed=1)
    in_hub_cache(other, hub, "me/clip", revision="f" * 40)
    in_hub_cache(clip_folder, hub, "me/clip")
    assert identity("CLIP_VIT_LARGE", "me/clip") == identity("CLIP_VIT_LARGE", clip_folder)
    assert identity("CLIP_VIT_LARGE", f"me/clip@{REVISION}") == identity("CLIP_VIT_LARGE", clip_folder)
    assert identity("CLIP_VIT_LARGE", f"me/clip@{'f' * 40}") == identity("CLIP_VIT_LARGE", other)
    with pytest.raises(WeightsNotFoundError, match=r"me/clip@v2 are not on this machine.*--revision v2"):
        identity("CLIP_VIT_LARGE", "me/clip@v2")


def test_a_hub_id_that_is_gone_keeps_its_name_in_every_directory(
    hub: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_hub_cache(clip_folder, hub, "me/clip")
    before = identity("CLIP_VIT_LARGE", "me/clip")
    shutil.rmtree(hub)
    monkeypatch.chdir(tmp_path)
    assert identity("CLIP_VIT_LARGE", "me/clip") == before


def test_a_snapshot_without_weights_says_what_to_fetch(hub: Path, clip_folder: Path) -> None:
    snapshot = in_hub_cache(clip_folder, hub, "openai/clip-vit-large-patch14")
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(WeightsNotFoundError, match=r"holds no weights.*hf download openai/clip-vit-large-patch14"):
        identity("CLIP_VIT_LARGE", None)


def test_weights_that_are_not_here_are_an_error_at_once_and_without_a_network(tmp_path: Path) -> None:
    """Although the network may be used (HF_HUB_OFFLINE=0), and would never answer."""
    code = """
import socket, sys, time
def refuse(*args, **kwargs): raise SystemExit("the network was used")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from featurestore.encoders import load_encoder, weights_identity
from featurestore.errors import WeightsNotFoundError
for name, weights in [("CLIP_VIT_LARGE", None), ("HUBERT_LARGE", "me/hubert@v1"), ("CLIP_TEXT", "/no/such/directory"),
                      ("ViT-S-32.none", None), ("SigLIP_SO", "nothing")]:
    start = time.monotonic()
    try:
        weights_identity(load_encoder(name, weights))
    except WeightsNotFoundError as error:
        assert name in str(error) and "fingerprint=" in str(error) and "random:0" in str(error), error
    else:
        raise AssertionError(name)
    assert time.monotonic() - start < 5
"""
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


# -- weights that cannot be used -------------------------------------------------------------------------------------


def test_a_directory_without_weights_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(WeightsNotFoundError, match=r"Looked for model.safetensors, .*found notes.txt"):
        identity("CLIP_VIT_LARGE", tmp_path)
    with pytest.raises(WeightsNotFoundError, match=r"notes.txt is not one of \.bin, \.pt, \.pth, \.safetensors"):
        identity("CLIP_VIT_LARGE", tmp_path / "notes.txt")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:123\nsize 1710540580\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no safetensors file, or is truncated"),
        (b"<!DOCTYPE html><html>Not found</html>", "is no safetensors file, or is truncated"),
        (LFS, "is a Git LFS pointer"),
        (b"\x02\0\0\0\0\0\0\0[]", "header that is not safetensors'"),
        (b"\x09\0\0\0\0\0\0\0" + b'{"a": {}}', "header that is not safetensors'"),
    ],
)
def test_a_file_that_is_no_safetensors_is_named(content: bytes, message: str, copied: Path) -> None:
    (copied / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        identity("CLIP_VIT_LARGE", copied)
    assert str(copied / "model.safetensors") in str(caught.value)


@pytest.mark.parametrize("keep", [0.999, 0.5, 0.01])
def test_a_truncated_file_is_named(keep: float, copied: Path) -> None:
    file = copied / "model.safetensors"
    os.truncate(file, int(file.stat().st_size * keep))
    with pytest.raises(InputError, match=r"fetch the file again"):
        load_encoder("CLIP_VIT_LARGE", copied, "cpu").encode(IMAGES)


class Code:
    def __reduce__(self) -> Any:
        return os.mkdir, ("/tmp/this-must-not-be-made",)


@pytest.mark.parametrize("content", [{"w": Code()}, [1, 2]])
def test_a_pickle_with_more_than_tensors_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model.bin (cannot be read as tensors alone|holds a list)"):
        identity("CLIP_VIT_LARGE", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(InputError, match="cannot be read as tensors alone"):
        identity("CLIP_VIT_LARGE", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "transformer.resblocks.1.ln_2.weight is missing"),
        ("more", "transformer.resblocks.2.ln_2.weight is not part of it"),
        ("shape", r"transformer.resblocks.1.ln_2.weight is \(3,\), not \(64,\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change: str, message: str, copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    name = "vision_model.encoder.layers.1.layer_norm2.weight"
    if change == "missing":
        del tensors[name]
    elif change == "more":
        tensors[name.replace("1.layer", "2.layer", 1)] = tensors[name].clone()
    else:
        tensors[name] = torch.ones(3)
    save_file(tensors, copied / "model.safetensors")
    with pytest.raises(InputError, match=message) as caught:
        load_encoder("CLIP_VIT_LARGE", copied, "cpu").encode(IMAGES)
    assert "CLIP_VIT_LARGE" in str(caught.value)
    assert str(copied / "model.safetensors") in str(caught.value)


@pytest.mark.parametrize("change", ["missing", "more", "shape"])
def test_tensors_that_do_not_fit_a_model_of_transformers_are_named(change: str, tmp_path: Path) -> None:
    folder = make_hubert(tmp_path / "hubert")
    tensors = load_file(folder / "model.safetensors")
    name = "encoder.layers.1.layer_norm.weight"
    if change == "missing":
        del tensors[name]
    elif change == "more":
        tensors[name.replace("layers.1", "layers.9")] = tensors[name].clone()
    else:
        tensors[name] = torch.ones(3)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"HUBERT_LARGE: .*model.safetensors: .*encoder.layers.[19].layer_norm.weight"):
        load_encoder("HUBERT_LARGE", folder, "cpu").encode(WINDOWS)


@pytest.mark.parametrize(
    ("name", "other"),
    [("CLIP_VIT_LARGE", "hubert"), ("CLIP_TEXT", "siglip"), ("HUBERT_LARGE", "clip"), ("DINO2_LARGE", "siglip")],
)
def test_weights_of_another_model_are_refused(name: str, other: str, tmp_path: Path) -> None:
    make = {"hubert": make_hubert, "siglip": make_siglip, "clip": make_clip}[other]
    folder = make(tmp_path / other)
    with pytest.raises(ConfigError, match=rf"config.json describes a model of type '{other}'"):
        load_encoder(name, folder).config()


def test_a_config_that_is_not_json_is_named(copied: Path) -> None:
    for content in ("{", "[]"):
        (copied / "config.json").write_text(content)
        with pytest.raises(ConfigError, match=r"config\.json is (cut off or no JSON|not a JSON object)"):
            load_encoder("CLIP_VIT_LARGE", copied).config()


def test_an_activation_that_clip_does_not_have_is_refused(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "clip", hidden_act="relu")
    with pytest.raises(ConfigError, match="hidden_act 'relu'; quick_gelu or gelu is needed"):
        load_encoder("CLIP_VIT_LARGE", folder).config()


# -- random weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["random:", "random:x", "random:-1", "random:1.5", "random:9999999999"])
def test_a_seed_is_a_whole_number(spec: str) -> None:
    with pytest.raises(ConfigError, match="the seed must be a whole number"):
        identity("ViT-S-32.none", spec)


def test_random_weights_are_the_same_in_every_process_and_disturb_no_other_generator() -> None:
    code = """
import numpy as np, torch
from featurestore.encoders import load_encoder
torch.manual_seed(int(__import__("sys").argv[1]))
before = torch.get_rng_state()
image = np.arange(224 * 224 * 3, dtype=np.uint8).reshape(1, 224, 224, 3)
features = load_encoder("ViT-S-32.none", "random:0", "cpu").encode(image)
assert torch.equal(before, torch.get_rng_state())
print(features.tobytes().hex())
"""
    one, two = (
        subprocess.run([sys.executable, "-c", code, seed], check=True, capture_output=True, text=True).stdout
        for seed in "12"
    )
    one, two = (np.frombuffer(bytes.fromhex(text), np.float32) for text in (one, two))
    assert_same(one, two, rounding(12))
    image = np.arange(224 * 224 * 3, dtype=np.uint8).reshape(1, 224, 224, 3)
    assert_caught(load_encoder("ViT-S-32.none", "random:1", "cpu").encode(image)[0], one, rounding(12))


def test_random_weights_have_an_identity_of_their_own() -> None:
    """Of the seed, the architecture and the versions of the libraries that draw them."""
    seen = [identity(name, f"random:{seed}") for name in ("ViT-S-32.none", "ViT-B-32.none") for seed in (0, 1)]
    assert len({one["digest"] for one in seen}) == 4
    assert [one["random"] for one in seen] == [0, 1, 0, 1]
    assert identity("ViT-S-32.none", "random:0") == seen[0]
    assert weights_origin(load_encoder("ViT-S-32.none", "random:5")) == {"random": 5}

"""Weights and config files that nobody trained: each is refused by name, and nothing in it decides what is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from featurestore.encoders import load_encoder, weights_identity
from featurestore.encoders.config_validation import validate_config
from featurestore.encoders.tensors import digest, read_tensors
from featurestore.errors import ConfigError, InputError

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def safetensors(folder: Path, header: Any, data: bytes = bytes(8)) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": 3}, {"dtype": None}, {"shape": None}, {"shape": [-1]}, {"shape": [1.5]}, {"shape": [True]},
        {"shape": "ab"}, {"data_offsets": [0]}, {"data_offsets": [-8, 8]}, {"data_offsets": [8, 0]},
        {"data_offsets": ["0", "8"]}, {"shape": [2**40]},
    ],
)  # fmt: skip
def test_an_entry_of_a_header_that_is_none_is_refused_with_the_file(tmp_path: Path, change: dict[str, Any]) -> None:
    path = safetensors(tmp_path, {"a": {**ENTRY, **change}})
    with pytest.raises(InputError, match=r"model\.safetensors"):
        digest(read_tensors((path,)))


def test_a_header_nested_too_deeply_or_with_half_a_character_is_refused(tmp_path: Path) -> None:
    for header in (b'{"a":' * 50_000, b"[]", {"\ud800": ENTRY}):
        with pytest.raises(InputError, match=r"model\.safetensors has a header that is not safetensors'"):
            digest(read_tensors((safetensors(tmp_path, header),)))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}.*is not a regular file"):
        read_tensors((tmp_path / name,))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(1 << 40), torch.empty(3, device="meta"),
        torch.empty(2, dtype=torch.complex64),
    ],
)  # fmt: skip
def test_tensors_without_values_of_their_own_are_refused_by_name(tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save({"visual.x": tensor}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth: tensor 'visual\.x' is"):
        read_tensors((tmp_path / "a.pth",))


def test_names_of_tensors_are_text_and_gradients_do_not_matter(tmp_path: Path) -> None:
    torch.save({7: torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="is named 7, which is no text"):
        read_tensors((tmp_path / "a.pth",))
    torch.save({"a": torch.nn.Parameter(torch.ones(2))}, tmp_path / "a.pth")
    assert read_tensors((tmp_path / "a.pth",))["a"].tolist() == [1, 1]


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "", "..", 3, None])
def test_a_part_of_the_weights_lies_beside_its_index(tmp_path: Path, shard: Any) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ConfigError, match=r"weight_map of .*index\.json is not"):
        weights_identity(load_encoder("ViT-S-32.none", tmp_path))


CONFIGS = {
    "ViT-S-32.none": {
        "open_clip_config.json": {"model_cfg": {"embed_dim": 8, "vision_cfg": {"image_size": 32, "width": 8}}}
    },
    "CLIP_VIT_LARGE": {"config.json": {"model_type": "clip", "projection_dim": 8, "vision_config": {"hidden_size": 8}}},
    "CLIP_TEXT": {"config.json": {"model_type": "clip", "projection_dim": 8, "text_config": {"hidden_size": 8}}},
    "HUBERT_LARGE": {"config.json": {"model_type": "hubert", "hidden_size": 8}},
    "DINO2_LARGE": {
        "config.json": {"model_type": "dinov2", "hidden_size": 8},
        "preprocessor_config.json": {"size": {"shortest_edge": 256}, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]},
    },
}


def leaves(document: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(document, dict):
        return [path]
    return [path, *(leaf for name, part in document.items() for leaf in leaves(part, (*path, name)))]


def refusal(ask: Callable[[], object]) -> str | None:
    try:
        ask()
    except (ConfigError, InputError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("value", [None, [], {}, "x", -1, 1e400, [[]], 10**30, True])
def test_a_config_of_other_types_is_refused_with_its_folder_or_taken(tmp_path: Path, name: str, value: Any) -> None:
    """Every part of every file in turn; what does not matter may be anything."""
    safetensors(tmp_path, {"visual.a": ENTRY})
    for file, sound in CONFIGS[name].items():
        for leaf in leaves({"": sound}):
            document = json.loads(json.dumps({"": sound}))
            place = document
            for part in leaf[:-1]:
                place = place[part]
            if leaf:
                place[leaf[-1]] = value
            (tmp_path / file).write_text(json.dumps(document[""]))
            encoder: Any = load_encoder(name, tmp_path)
            for ask in (encoder.config, lambda encoder=encoder: encoder.dim, lambda e=encoder: getattr(e, "size", 0)):
                told = refusal(ask)
                assert told is None or str(tmp_path) in told, leaf
        (tmp_path / file).write_text(json.dumps(sound))


def test_what_is_like_the_known_description_passes() -> None:
    known = {"size": 224, "mean": [0.5, 0.5, 0.5], "crop": None, "act": "gelu", "ratio": 4.0, "conv": [8, 8]}
    validate_config({**known, "size": [224, 112], "ratio": 4, "conv": [8], "more": object()}, known, "folder")
    for name, value in (("size", 0), ("size", [1, 2, 3]), ("mean", [1]), ("act", 3), ("ratio", "4"), ("conv", [1.5])):
        with pytest.raises(ConfigError, match=f"config files in folder: {name} is"):
            validate_config({**known, name: value}, known, "folder")

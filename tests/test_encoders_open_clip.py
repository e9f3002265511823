"""ARCH.TAG: any image tower of open_clip, from its own format, with the preprocessing that goes with the weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_factories import TOWERS, in_hub_cache, make_tower
from comparisons import assert_same
from PIL import Image
from safetensors.torch import save_file

from featurestore.encoders import load_encoder, weights_identity, weights_origin
from featurestore.encoders.architecture import architectures, only_tower, read_architecture
from featurestore.errors import WeightsNotFoundError
from featurestore.quality.compare import bound


@pytest.mark.parametrize("kind", TOWERS)
def test_every_kind_of_tower_equals_open_clip(kind: str, tmp_path: Path) -> None:
    """Also towers with buffers that no file holds (rotary embeddings), and of sizes other than 224."""
    import open_clip

    make_tower(kind, tmp_path)
    encoder = load_encoder("RN50.none", tmp_path, "cpu")
    side = TOWERS[kind]["image_size"]
    assert (encoder.dim, encoder.size) == (24, (side, side))
    images = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}", force_custom_text=True)
    with torch.no_grad():
        theirs = model.eval().visual(torch.stack([transform(Image.fromarray(image)) for image in images]))
    theirs = theirs[0] if isinstance(theirs, tuple) else theirs
    assert_same(encoder.encode(images), theirs.numpy(), bound(encoder.config()))
    assert encoder.network.state_dict().keys() == model.visual.state_dict().keys()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "size", "dim", "mean", "quick_gelu"),
    [
        ("ViT-B-32.openai", 224, 512, 0.48145466, True),  # open_clip itself would compute GELU, and warn
        ("ViT-B-32-quickgelu.openai", 224, 512, 0.48145466, True),
        ("ViT-B-32.laion2b_s34b_b79k", 224, 512, 0.48145466, False),
        ("ViT-L-14-quickgelu.openai", 224, 768, 0.48145466, True),
        ("ViT-SO400M-14-SigLIP-384.webli", 384, 1152, 0.5, False),
        ("RN50.none", 224, 1024, 0.48145466, False),
    ],
)
def test_a_tag_brings_its_preprocessing_and_activation(
    name: str, size: int, dim: int, mean: float, quick_gelu: bool
) -> None:
    encoder = load_encoder(name)
    config = encoder.config()
    assert (encoder.size, encoder.dim, config["mean"][0]) == ((size, size), dim, mean)
    assert config["architecture"]["quick_gelu"] is quick_gelu
    assert json.loads(json.dumps(config)) == config


def test_a_tag_is_looked_up_through_torch_only_once() -> None:
    code = """
import sys
from featurestore.encoders import load_encoder
load_encoder("ViT-B-16.laion2b_s34b_b88k").config()
print("torch" in sys.modules)
"""
    seen = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
        for _ in range(2)
    ]
    assert seen[1] == "False"


def test_a_tag_is_found_in_the_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    name = "PE-Core-T-16-384.meta"
    with pytest.raises(WeightsNotFoundError, match=r"hf download timm/PE-Core-T-16-384 open_clip_model.safetensors"):
        weights_identity(load_encoder(name))
    drawn = load_encoder(name, "random:0", "cpu")
    images = np.random.default_rng(0).integers(0, 256, (2, 384, 384, 3), dtype=np.uint8)
    wanted = drawn.encode(images)
    state = drawn.network.state_dict()  # type: ignore[attr-defined]
    (tmp_path / "made").mkdir()
    save_file(
        {f"visual.{key}": value.contiguous() for key, value in state.items()},
        tmp_path / "made" / "open_clip_model.safetensors",
    )
    snapshot = in_hub_cache(tmp_path / "made", tmp_path / "hub", "timm/PE-Core-T-16-384")
    encoder = load_encoder(name, device="cpu")
    assert_same(encoder.encode(images), wanted, bound(encoder.config()))
    assert weights_origin(encoder)["path"] == str(snapshot / "open_clip_model.safetensors")
    assert encoder.config() == drawn.config()


def test_no_tag_needs_weights() -> None:
    encoder = load_encoder("ViT-S-32.none")
    assert (encoder.dim, encoder.size) == (384, (224, 224))
    with pytest.raises(WeightsNotFoundError, match=r"ViT-S-32.none has no published weights.*weights="):
        weights_identity(encoder)


def test_every_architecture_of_open_clip_can_be_described() -> None:
    assert len(architectures()) > 100
    for name in architectures():
        described = only_tower(read_architecture(name), "vision_cfg")
        assert described["embed_dim"] > 0
        assert described["vision_cfg"].get("timm_model_pretrained", False) is False
        assert load_encoder(f"{name}.none").dim == described["embed_dim"]

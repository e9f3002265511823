"""Of a model with several towers only the one in use decides: alone in a folder, or beside one that is quite different.

The tower alone is saved by transformers, from a whole model, so it must be the same encoder with the same features.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_factories import make_clip, make_dinov2, make_siglip
from comparisons import Array, assert_same, smooth_images

from featurestore.encoders import load_encoder, weights_identity
from featurestore.errors import ConfigError, InputError
from featurestore.quality.compare import bound

TEXTS = ["Cheek raiser (intensity: 1.45)", "the lip corners are pulled down"]
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
ALONE = {"CLIP_VIT_LARGE": "CLIPVisionModelWithProjection", "CLIP_TEXT": "CLIPTextModelWithProjection"}
OTHER = {"CLIP_VIT_LARGE": "text_config", "CLIP_TEXT": "vision_config"}


def whole_clip(folder: Path, vision: str | None, text: str | None) -> Path:
    """A whole CLIP whose towers have these activations; None leaves them to the default."""
    make_clip(folder)
    for tower, activation in (("vision_config", vision), ("text_config", text)):
        set_config(folder, tower, hidden_act=activation)
    return folder


def set_config(folder: Path, tower: str, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    part = config[tower] | changes
    config[tower] = {name: value for name, value in part.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


def alone(whole: Path, model: str, target: Path) -> Path:
    import transformers

    # The dimension of a whole CLIP is beside the configs of its towers, which have the default.
    options = {"projection_dim": 40} if model in ALONE.values() else {}
    getattr(transformers, model).from_pretrained(whole, **options).save_pretrained(target)
    shutil.copy(whole / "preprocessor_config.json", target)
    return target


def input_of(name: str) -> Any:
    return TEXTS if name == "CLIP_TEXT" else smooth_images()


def reference(name: str, tower: Path) -> Array:
    """transformers, given a tower alone."""
    import open_clip
    import transformers

    model = getattr(transformers, ALONE[name]).from_pretrained(tower).eval()
    with torch.no_grad():
        if name == "CLIP_TEXT":
            features = model(open_clip.get_tokenizer("ViT-B-32")(TEXTS)).text_embeds
            return (features / features.norm(dim=-1, keepdim=True)).numpy()
        pixels = ((smooth_images() / 255 - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)
        return model(torch.from_numpy(np.ascontiguousarray(pixels))).image_embeds.numpy()


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize(("vision", "text"), [("gelu", "gelu"), ("gelu", "quick_gelu"), (None, "gelu"), ("gelu", None)])
def test_a_tower_of_clip_alone_is_the_one_of_the_whole(
    name: str, vision: str | None, text: str | None, tmp_path: Path
) -> None:
    whole = whole_clip(tmp_path / "whole", vision, text)
    tower = alone(whole, ALONE[name], tmp_path / "alone")
    assert "vision_config" not in json.loads((tower / "config.json").read_text())
    one, other = (load_encoder(name, folder, "cpu") for folder in (whole, tower))
    activation = {"CLIP_VIT_LARGE": vision, "CLIP_TEXT": text}[name] or "quick_gelu"
    assert one.config()["architecture"]["quick_gelu"] == (activation == "quick_gelu")
    assert one.config() == other.config()
    assert weights_identity(one) == weights_identity(other)
    features = other.encode(input_of(name))
    assert_same(one.encode(input_of(name)), features, bound(one.config()))
    assert_same(features, reference(name, tower), bound(one.config()))


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("changes", [{"hidden_act": "relu"}, {"num_attention_heads": 0, "hidden_size": "x"}])
def test_the_tower_that_is_not_in_use_may_be_any(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    whole = whole_clip(tmp_path / "whole", "gelu", "gelu")
    before = load_encoder(name, whole).config()
    set_config(whole, OTHER[name], **changes)
    assert load_encoder(name, whole).config() == before
    config = json.loads((whole / "config.json").read_text())
    del config[OTHER[name]]
    (whole / "config.json").write_text(json.dumps(config))
    assert load_encoder(name, whole).config() == before


@pytest.mark.parametrize(
    ("name", "wrong", "needed"),
    [("CLIP_VIT_LARGE", "clip_text_model", "clip_vision_model"), ("CLIP_TEXT", "clip_vision_model", "clip_text_model")],
)
def test_the_other_tower_alone_is_refused(name: str, wrong: str, needed: str, tmp_path: Path) -> None:
    other = next(model for owner, model in ALONE.items() if owner != name)
    folder = alone(make_clip(tmp_path / "whole"), other, tmp_path / "alone")
    with pytest.raises(ConfigError, match=f"a model of type '{wrong}'; this encoder needs 'clip' or '{needed}'"):
        load_encoder(name, folder).config()
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"no (image|text) tower of CLIP is in it"):
        weights_identity(load_encoder(name, folder))


def test_the_image_tower_of_siglip_alone_is_the_one_of_the_whole(tmp_path: Path) -> None:
    whole = make_siglip(tmp_path / "whole")
    set_config(whole, "text_config", hidden_act="relu", hidden_size="x")
    folder = tmp_path / "alone"
    made = make_siglip(tmp_path / "made")  # the same weights, in a config that transformers takes
    alone(made, "SiglipVisionModel", folder)
    one, other = (load_encoder("SigLIP_SO", path, "cpu") for path in (whole, folder))
    assert one.config() == other.config()
    assert weights_identity(one) == weights_identity(other)
    images = smooth_images()
    assert_same(one.encode(images), other.encode(images), bound(one.config()))


def test_dinov2_under_a_head_is_the_one_without(tmp_path: Path) -> None:
    import transformers

    plain = make_dinov2(tmp_path / "plain")
    headed = transformers.Dinov2ForImageClassification.from_pretrained(plain, num_labels=3)
    headed.save_pretrained(tmp_path / "headed")
    shutil.copy(plain / "preprocessor_config.json", tmp_path / "headed")
    one, other = (load_encoder("DINO2_LARGE", tmp_path / name, "cpu") for name in ("plain", "headed"))
    assert one.config() == other.config()
    assert weights_identity(one) == weights_identity(other)

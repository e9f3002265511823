"""Speech encoders, DINO2_LARGE and SigLIP_SO equal another way to the same numbers, and broken variants of them do not.

The other way is transformers with the model's own preprocessing, called as AffectGPT calls it.
Nothing of featurestore takes part in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_factories import make_data2vec, make_dinov2, make_hubert, make_siglip, make_wavlm
from comparisons import Array, assert_caught, assert_same, smooth_images
from PIL import Image

from featurestore.encoders import load_encoder
from featurestore.encoders.speech import HubertLarge, normalise
from featurestore.encoders.vision import Dino2Large
from featurestore.quality.compare import bound, rounding


@pytest.fixture(scope="module")
def images() -> Array:
    return smooth_images()


@pytest.fixture(scope="module")
def windows() -> Array:
    """Eight windows of one sample, each louder than the one before and with another offset."""
    generator = np.random.default_rng(4)
    tone = np.sin(np.arange(32000) / 16000 * 2 * np.pi * 220)
    loudness = np.linspace(0.02, 0.6, 8)[:, None]
    return (tone * loudness + generator.normal(0.01, 0.05, (8, 32000)) * loudness + loudness / 3).astype(np.float32)


# -- speech ----------------------------------------------------------------------------------------------------------


def as_affectgpt(folder: Path, windows: Array) -> tuple[Any, torch.Tensor]:
    """(model, input) as AffectGPT makes them: the means go first, then one 2-D item goes to the feature extractor."""
    import transformers

    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    raw = torch.from_numpy(windows.copy())
    for window in raw:
        window -= window.mean()
    # A 2-D tensor is one item of two dimensions to the extractor, and comes back with one dimension more.
    values = extractor(raw, sampling_rate=16000, return_tensors="pt").input_values
    return transformers.AutoModel.from_pretrained(folder).eval(), values[0]


def last_four(folder: Path, windows: Array) -> Array:
    """Mean of the last four hidden states of transformers 4.49 (the last is after the final norm), then over time."""
    model, values = as_affectgpt(folder, windows)
    with torch.no_grad():
        states = list(model(values, output_hidden_states=True).hidden_states[-4:])
        if getattr(model.config, "do_stable_layer_norm", False):
            states[-1] = model.encoder.layer_norm(states[-1])
        return torch.stack(states).mean(dim=0).mean(dim=1).numpy()


SPEECH = {"HUBERT_LARGE": make_hubert, "WAVLM_LARGE": make_wavlm, "DATA2VEC_BASE": make_data2vec}


@pytest.mark.parametrize("name", SPEECH)
def test_speech_equals_transformers(name: str, windows: Array, tmp_path: Path) -> None:
    folder = SPEECH[name](tmp_path / name)
    encoder = load_encoder(name, str(folder), "cpu")
    assert_same(encoder.encode(windows), last_four(folder, windows), bound(encoder.config()))


@pytest.mark.parametrize("wanted", [True, False])
def test_speech_is_normalised_as_the_preprocessor_says(wanted: bool, windows: Array, tmp_path: Path) -> None:
    folder = make_hubert(tmp_path / "hubert", do_normalize=wanted)
    encoder = load_encoder("HUBERT_LARGE", str(folder), "cpu")
    assert encoder.config()["normalised"] is wanted
    _, values = as_affectgpt(folder, windows)
    assert_same(normalise(windows, wanted), values.numpy(), rounding(0))
    assert_same(encoder.encode(windows), last_four(folder, windows), bound(encoder.config()))


def test_speech_windows_are_normalised_jointly(windows: Array) -> None:
    joint = normalise(windows, jointly=True)
    assert abs(float(joint.std()) - 1) < 1e-4
    assert joint[0].std() < 0.1 < joint[-1].std()


def test_many_windows_of_one_sample_are_encoded_in_parts(windows: Array, tmp_path: Path) -> None:
    """40 windows: three parts, normalised as one."""
    folder = make_hubert(tmp_path / "hubert")
    many = np.tile(windows, (5, 1))
    encoder = load_encoder("HUBERT_LARGE", str(folder), "cpu")
    features = encoder.encode(many)
    assert_same(features, last_four(folder, many), bound(encoder.config()))
    assert_same(features[:8], features[-8:], bound(encoder.config()))


class PerWindow(HubertLarge):
    def check(self, batch: Any) -> Any:
        return np.concatenate([normalise(window[None], jointly=True) for window in super().check(batch)])


class LastOfTransformers5(HubertLarge):
    def run(self, network: Any, batch: Any, like: Any) -> Any:
        values = torch.from_numpy(normalise(batch, True))
        return torch.stack(network(values, output_hidden_states=True).hidden_states[-4:]).mean(dim=0).mean(dim=1)


class LastLayer(HubertLarge):
    def run(self, network: Any, batch: Any, like: Any) -> Any:
        return network(torch.from_numpy(normalise(batch, True))).last_hidden_state.mean(dim=1)


class SumOverTime(HubertLarge):
    def run(self, network: Any, batch: Any, like: Any) -> Any:
        return super().run(network, batch, like) * 99


class WithOffsets(HubertLarge):
    """Without the side effect that removes each window's mean."""

    def run(self, network: Any, batch: Any, like: Any) -> Any:
        values = torch.from_numpy((batch - batch.mean()) / np.sqrt(batch.var() + 1e-7))
        output = network(values, output_hidden_states=True)
        layers = torch.stack([*output.hidden_states[-4:-1], output.last_hidden_state])
        return layers.mean(dim=0).mean(dim=1)


@pytest.mark.parametrize("mutant", [PerWindow, LastOfTransformers5, LastLayer, SumOverTime, WithOffsets])
def test_speech_mutants_are_caught(mutant: type[HubertLarge], windows: Array, tmp_path: Path) -> None:
    folder = make_hubert(tmp_path / "hubert")
    encoder = mutant(str(folder), "cpu")
    assert_caught(encoder.encode(windows), last_four(folder, windows), bound(encoder.config()))


# -- images of other models ------------------------------------------------------------------------------------------


def mean_of_last_block(folder: Path, images: Array) -> Array:
    """hidden_states[-1], before the final norm, mean over tokens; preprocessing as the checkpoint asks for."""
    import transformers

    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model = getattr(model, "vision_model", model)
    pixels = processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return model(pixels, output_hidden_states=True).hidden_states[-1].mean(dim=1).numpy()


IMAGES: dict[str, Callable[[Path], Path]] = {"DINO2_LARGE": make_dinov2, "SigLIP_SO": make_siglip}


@pytest.mark.parametrize("name", IMAGES)
def test_image_encoders_equal_transformers(name: str, images: Array, tmp_path: Path) -> None:
    folder = IMAGES[name](tmp_path / name)
    encoder = load_encoder(name, str(folder), "cpu")
    assert_same(encoder.encode(images), mean_of_last_block(folder, images), bound(encoder.config()))
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
    assert encoder.config()["mean"] == preprocessor["image_mean"]


class ClassToken(Dino2Large):
    def run(self, network: Any, batch: Any, like: Any) -> Any:
        features: list[Any] = []
        handle = network.encoder.register_forward_hook(lambda _m, _i, output: features.append(output[0][:, 0]))
        super().run(network, batch, like)
        handle.remove()
        return features[0]


class AfterTheNorm(Dino2Large):
    def run(self, network: Any, batch: Any, like: Any) -> Any:
        return network.layernorm(super().run(network, batch, like))


class Squashed(Dino2Large):
    """224 x 224 as they are, without the detour over 256."""

    def described_by(self, checkpoint: Any) -> dict[str, Any]:
        return {**super().described_by(checkpoint), "resize": [224, 224]}


class Swapped(Dino2Large):
    def check(self, batch: Any) -> Any:
        return super().check(batch)[..., ::-1]


@pytest.mark.parametrize("mutant", [ClassToken, AfterTheNorm, Squashed, Swapped])
def test_image_mutants_are_caught(mutant: type[Dino2Large], images: Array, tmp_path: Path) -> None:
    folder = make_dinov2(tmp_path / "dinov2")
    encoder = mutant(str(folder), "cpu")
    assert_caught(encoder.encode(images), mean_of_last_block(folder, images), bound(encoder.config()))

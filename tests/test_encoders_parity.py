"""Each encoder equals another way to the same numbers, and a broken variant of it does not.

The other way is transformers with the model's own preprocessing, called as AffectGPT calls it, or
open_clip with its own loader and transform.  Nothing of featurestore takes part in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints_made import as_open_clip, make_clip, make_data2vec, make_dinov2, make_hubert, make_siglip, make_wavlm
from numpy.typing import NDArray
from PIL import Image

from featurestore.encoders import load_encoder
from featurestore.encoders.clip import ClipVitLarge
from featurestore.encoders.speech import HubertLarge, normalise
from featurestore.encoders.vision import Dino2Large

Array = NDArray[Any]


def assert_same(ours: Array, reference: Array, tolerance: float = 1e-6) -> None:
    """max|diff| <= 1e-6, for features of the size of 1."""
    assert ours.shape == reference.shape
    difference = np.abs(ours - reference).max() / max(1.0, np.abs(reference).max())
    assert difference <= tolerance, f"differs by {difference}"


def assert_caught(mutant: Array, reference: Array) -> None:
    """The comparison fails for a mutant, and not by rounding."""
    with pytest.raises(AssertionError):
        assert_same(mutant, reference, tolerance=1e-4)


@pytest.fixture(scope="module")
def images() -> Array:
    """Smooth colour gradients with noise, as photographs are neither flat nor white noise; no channel like another."""
    generator = np.random.default_rng(3)
    y, x = np.mgrid[0:224, 0:224] / 224
    base = np.stack([255 * x, 180 * y, 120 * (1 - x * y)], axis=-1)
    return (base * generator.uniform(0.5, 1, (5, 1, 1, 3)) + generator.uniform(0, 30, (5, 224, 224, 3))).astype(
        np.uint8
    )


@pytest.fixture(scope="module")
def windows() -> Array:
    """Eight windows of one sample, each louder than the one before and with another offset."""
    generator = np.random.default_rng(4)
    tone = np.sin(np.arange(32000) / 16000 * 2 * np.pi * 220)
    loudness = np.linspace(0.02, 0.6, 8)[:, None]
    return (tone * loudness + generator.normal(0.01, 0.05, (8, 32000)) * loudness + loudness / 3).astype(np.float32)


# -- CLIP's image tower ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "hugging_face")


@pytest.fixture(scope="module")
def clip_reference(clip_folder: Path, images: Array) -> Array:
    """transformers: the model's own preprocessing, and get_image_features."""
    import transformers

    # backend="pil" is what AffectGPT's transformers 4.49 had; the newer one differs by up to 0.015 in the pixels.
    processor = transformers.AutoImageProcessor.from_pretrained(clip_folder, backend="pil")
    model = transformers.AutoModel.from_pretrained(clip_folder).eval()
    pixels = processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output).numpy()


def test_clip_equals_transformers(clip_folder: Path, images: Array, clip_reference: Array) -> None:
    assert_same(load_encoder("CLIP_VIT_LARGE", str(clip_folder), "cpu").encode(images), clip_reference)


def test_clip_equals_open_clip(clip_folder: Path, images: Array, clip_reference: Array, tmp_path: Path) -> None:
    """open_clip's own loader, strict, and its own transform; and so does our reading of its format."""
    import open_clip

    folder = as_open_clip(clip_folder, tmp_path / "open_clip")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    with torch.no_grad():
        theirs = model.eval().encode_image(torch.stack([transform(Image.fromarray(image)) for image in images])).numpy()
    assert_same(theirs, clip_reference)
    for name in ("CLIP_VIT_LARGE", "ViT-B-32.none"):
        np.testing.assert_array_equal(load_encoder(name, str(folder), "cpu").encode(images), theirs)


def test_clip_pixels_equal_those_of_both_libraries(clip_folder: Path, images: Array) -> None:
    import open_clip
    import transformers

    from featurestore.encoders.clip import MEAN, STD, to_pixels

    ours = to_pixels(images, list(MEAN), list(STD), torch.empty(0)).numpy()
    transform = open_clip.image_transform(224, is_train=False, mean=MEAN, std=STD)
    np.testing.assert_array_equal(ours, np.stack([transform(Image.fromarray(image)).numpy() for image in images]))
    processor = transformers.AutoImageProcessor.from_pretrained(clip_folder, backend="pil")
    theirs = processor(images=list(images), return_tensors="np")["pixel_values"]
    assert np.abs(ours - theirs).max() <= 5e-7


class Gelu(ClipVitLarge):
    """OpenAI's weights under open_clip's ViT-L-14."""

    def described_by(self, checkpoint: Any) -> dict[str, Any]:
        description = super().described_by(checkpoint)
        description["architecture"]["quick_gelu"] = False
        return description


class Bgr(ClipVitLarge):
    def check(self, batch: Any) -> Any:
        return super().check(batch)[..., ::-1]


class CentreCrop(ClipVitLarge):
    """Resized to 256, then cut, where the frame should be squashed."""

    def check(self, batch: Any) -> Any:
        return np.stack(
            [np.asarray(Image.fromarray(i).resize((256, 256)))[16:240, 16:240] for i in super().check(batch)]
        )


class Pooled(ClipVitLarge):
    """The output before the projection."""

    def build(self, description: Any, tensors: Any) -> Any:
        network: Any = super().build(description, tensors)
        network.proj = None
        return network


class Normalised(ClipVitLarge):
    def run(self, network: Any, batch: Any, like: Any) -> Any:
        return torch.nn.functional.normalize(super().run(network, batch, like), dim=-1)


class NoMean(ClipVitLarge):
    """Pixels between 0 and 1 only."""

    def described_by(self, checkpoint: Any) -> dict[str, Any]:
        return {**super().described_by(checkpoint), "mean": [0.0] * 3, "std": [1.0] * 3}


@pytest.mark.parametrize("mutant", [Gelu, Bgr, CentreCrop, Pooled, Normalised, NoMean])
def test_clip_mutants_are_caught(
    mutant: type[ClipVitLarge], clip_folder: Path, images: Array, clip_reference: Array
) -> None:
    assert_caught(mutant(str(clip_folder), "cpu").encode(images), clip_reference)


def test_bicubic_scaling_is_caught(clip_folder: Path, images: Array) -> None:
    """Frames must come squashed by the decoder's bilinear filter; another filter shows in the features."""
    encoder = load_encoder("CLIP_VIT_LARGE", str(clip_folder), "cpu")
    small = [Image.fromarray(image).resize((160, 120)) for image in images]
    bilinear, bicubic = (
        np.stack([np.asarray(image.resize((224, 224), method)) for image in small])
        for method in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    )
    assert_caught(encoder.encode(bicubic), encoder.encode(bilinear))


# -- CLIP's text tower -----------------------------------------------------------------------------------------------

TEXTS = ["The person shows happiness with a slight smile.", "眉毛上扬,嘴角下垂", "", "AU12 lip corner puller " * 40]


def text_reference(folder: Path, tokens: torch.Tensor) -> Array:
    import transformers

    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        features = model.text_projection(model.text_model(input_ids=tokens).pooler_output)
    return (features / features.norm(dim=-1, keepdim=True)).numpy()


def test_text_equals_transformers(clip_folder: Path) -> None:
    import open_clip

    tokens = open_clip.get_tokenizer("ViT-B-32")(TEXTS)
    ours = load_encoder("CLIP_TEXT", str(clip_folder), "cpu").encode(TEXTS)
    assert_same(ours, text_reference(clip_folder, tokens))
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, rtol=1e-6)


def test_text_equals_open_clip(clip_folder: Path, tmp_path: Path) -> None:
    import open_clip

    folder = as_open_clip(clip_folder, tmp_path / "open_clip")
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    with torch.no_grad():
        theirs = model.encode_text(open_clip.get_tokenizer("ViT-B-32")(TEXTS), normalize=True).numpy()
    assert_same(load_encoder("CLIP_TEXT", str(folder), "cpu").encode(TEXTS), theirs)


def test_text_goes_through_ftfy_and_is_cut_at_77_tokens(clip_folder: Path) -> None:
    """A full-width comma is a comma; of a long text the first 75 tokens count, between start and end."""
    encoder = load_encoder("CLIP_TEXT", str(clip_folder), "cpu")
    wide, narrow, other = encoder.encode(["眉毛上扬，嘴角下垂", "眉毛上扬,嘴角下垂", "眉毛上扬;嘴角下垂"])
    np.testing.assert_array_equal(wide, narrow)
    assert np.abs(other - narrow).max() > 1e-3
    whole, cut, shorter = encoder.encode(["smile " * 200, "smile " * 75, "smile " * 74])
    np.testing.assert_array_equal(whole, cut)
    assert np.abs(shorter - cut).max() > 1e-4


# -- speech ----------------------------------------------------------------------------------------------------------


def as_affectgpt(folder: Path, windows: Array, per_window: bool = False) -> tuple[Any, torch.Tensor]:
    """(model, input) as AffectGPT makes them: the means go first, then one 2-D item goes to the feature extractor."""
    import transformers

    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    raw = torch.from_numpy(windows.copy())
    for window in raw:
        window -= window.mean()
    items: Any = [window.numpy() for window in raw] if per_window else raw
    # A 2-D tensor is one item of two dimensions to the extractor, and comes back with one dimension more.
    values = extractor(items, sampling_rate=16000, return_tensors="pt").input_values
    return transformers.AutoModel.from_pretrained(folder).eval(), values if per_window else values[0]


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
    assert_same(load_encoder(name, str(folder), "cpu").encode(windows), last_four(folder, windows))


@pytest.mark.parametrize("wanted", [True, False])
def test_speech_is_normalised_as_the_preprocessor_says(wanted: bool, windows: Array, tmp_path: Path) -> None:
    folder = make_hubert(tmp_path / "hubert", do_normalize=wanted)
    encoder = load_encoder("HUBERT_LARGE", str(folder), "cpu")
    assert encoder.config()["normalised"] is wanted
    _, values = as_affectgpt(folder, windows)
    np.testing.assert_allclose(normalise(windows, wanted), values.numpy(), atol=1e-6)
    assert_same(encoder.encode(windows), last_four(folder, windows))


def test_speech_windows_are_normalised_jointly(windows: Array) -> None:
    joint = normalise(windows, jointly=True)
    assert abs(float(joint.std()) - 1) < 1e-4
    assert joint[0].std() < 0.1 < joint[-1].std()


def test_many_windows_of_one_sample_are_encoded_in_parts(windows: Array, tmp_path: Path) -> None:
    """40 windows: three parts, normalised as one."""
    folder = make_hubert(tmp_path / "hubert")
    many = np.tile(windows, (5, 1))
    features = load_encoder("HUBERT_LARGE", str(folder), "cpu").encode(many)
    assert_same(features, last_four(folder, many))
    np.testing.assert_allclose(features[:8], features[-8:], atol=1e-6)


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
    assert_caught(mutant(str(folder), "cpu").encode(windows), last_four(folder, windows))


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
    assert_same(encoder.encode(images), mean_of_last_block(folder, images))
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
    assert_caught(mutant(str(folder), "cpu").encode(images), mean_of_last_block(folder, images))

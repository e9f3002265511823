"""Each encoder equals another way to the same numbers, and a broken variant of it does not.

The other way is transformers with the model's own preprocessing, called as AffectGPT calls it, or
open_clip with its own loader and transform.  Nothing of featurestore takes part in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_factories import as_open_clip, make_clip
from comparisons import Array, assert_caught, assert_same, smooth_images
from PIL import Image

from featurestore.encoders import load_encoder
from featurestore.encoders.clip import ClipVitLarge
from featurestore.quality.compare import bound, rounding

ALLOWED = rounding(2)  # all checkpoints here have two layers


@pytest.fixture(scope="module")
def images() -> Array:
    return smooth_images()


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
    assert_same(load_encoder("CLIP_VIT_LARGE", str(clip_folder), "cpu").encode(images), clip_reference, ALLOWED)


def test_clip_equals_open_clip(clip_folder: Path, images: Array, clip_reference: Array, tmp_path: Path) -> None:
    """open_clip's own loader, strict, and its own transform; and so does our reading of its format."""
    import open_clip

    folder = as_open_clip(clip_folder, tmp_path / "open_clip")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    with torch.no_grad():
        theirs = model.eval().encode_image(torch.stack([transform(Image.fromarray(image)) for image in images])).numpy()
    assert_same(theirs, clip_reference, ALLOWED)
    for name in ("CLIP_VIT_LARGE", "ViT-B-32.none"):
        encoder = load_encoder(name, str(folder), "cpu")
        assert_same(encoder.encode(images), theirs, bound(encoder.config()))


def test_clip_pixels_equal_those_of_both_libraries(clip_folder: Path, images: Array) -> None:
    import open_clip
    import transformers

    from featurestore.encoders.clip import MEAN, STD, to_pixels

    ours = to_pixels(images, list(MEAN), list(STD), torch.empty(0)).numpy()
    transform = open_clip.image_transform(224, is_train=False, mean=MEAN, std=STD)
    # Each pixel by itself, by operations that IEEE 754 rounds in one way: equal bits on any processor.
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
    assert_caught(mutant(str(clip_folder), "cpu").encode(images), clip_reference, ALLOWED)


def test_bicubic_scaling_is_caught(clip_folder: Path, images: Array) -> None:
    """Frames must come squashed by the decoder's bilinear filter; another filter shows in the features."""
    encoder = load_encoder("CLIP_VIT_LARGE", str(clip_folder), "cpu")
    small = [Image.fromarray(image).resize((160, 120)) for image in images]
    bilinear, bicubic = (
        np.stack([np.asarray(image.resize((224, 224), method)) for image in small])
        for method in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    )
    assert_caught(encoder.encode(bicubic), encoder.encode(bilinear), ALLOWED)


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
    assert_same(ours, text_reference(clip_folder, tokens), ALLOWED)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, rtol=1e-6)


def test_text_equals_open_clip(clip_folder: Path, tmp_path: Path) -> None:
    import open_clip

    folder = as_open_clip(clip_folder, tmp_path / "open_clip")
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    with torch.no_grad():
        theirs = model.encode_text(open_clip.get_tokenizer("ViT-B-32")(TEXTS), normalize=True).numpy()
    assert_same(load_encoder("CLIP_TEXT", str(folder), "cpu").encode(TEXTS), theirs, ALLOWED)


def test_text_goes_through_ftfy_and_is_cut_at_77_tokens(clip_folder: Path) -> None:
    """A full-width comma is a comma; of a long text the first 75 tokens count, between start and end."""
    encoder = load_encoder("CLIP_TEXT", str(clip_folder), "cpu")
    wide, narrow, other = encoder.encode(["眉毛上扬，嘴角下垂", "眉毛上扬,嘴角下垂", "眉毛上扬;嘴角下垂"])
    assert_same(wide, narrow, ALLOWED)
    assert_caught(other, narrow, ALLOWED)
    whole, cut, shorter = encoder.encode(["smile " * 200, "smile " * 75, "smile " * 74])
    assert_same(whole, cut, ALLOWED)
    assert_caught(shorter, cut, ALLOWED)

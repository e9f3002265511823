"""Image encoders of AffectGPT's comparison: DINO2_LARGE and SigLIP_SO.

Its frames are squashed to 224 x 224 when they are decoded, and then go through the model's own
preprocessing: DINOv2 enlarges them to 256 and cuts out the middle 224, SigLIP enlarges them to 384, both
bicubic on 8-bit images (Pillow).  A feature is the mean over all tokens of the last block's output, before
the final LayerNorm: `hidden_states[-1]` of transformers 4.49.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featurestore.encoders.clip import check_images, to_pixels
from featurestore.encoders.hugging_face import HuggingFaceNetwork
from featurestore.encoders.weights import Published, missing_package

if TYPE_CHECKING:
    import torch

DECODED = (224, 224)


class ImageEncoder(HuggingFaceNetwork):
    """(n, 224, 224, 3) uint8 RGB -> (n, hidden_size)."""

    modality: ClassVar[str] = "frame"
    preprocessor: ClassVar[Mapping[str, Any]]  # preprocessor_config.json of the published model

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return DECODED

    def prepared_by(self, preprocessor: Mapping[str, Any]) -> dict[str, Any]:
        given = {**self.preprocessor, **preprocessor}
        resized = given["size"]
        edge = resized.get("shortest_edge")
        crop = given["crop_size"] if given.get("do_center_crop") else None
        return {
            "resize": [edge, edge] if edge else [resized["height"], resized["width"]],
            "resample": "Pillow bicubic",
            "crop": [crop["height"], crop["width"]] if crop else None,
            "mean": list(given["image_mean"]),
            "std": list(given["image_std"]),
            "output": "mean over tokens of the last block, before the final norm",
        }

    def check(self, batch: Any) -> NDArray[np.uint8]:
        return check_images(batch, self.size, self.name)

    def run(self, network: torch.nn.Module, batch: NDArray[np.uint8], like: torch.Tensor) -> torch.Tensor:
        description = self.describe()
        images = np.stack([resize(image, description["resize"], description["crop"]) for image in batch])
        tower: Any = network
        embedded = tower.embeddings(to_pixels(images, description["mean"], description["std"], like))
        tokens: torch.Tensor = tower.encoder(embedded).last_hidden_state
        return tokens.mean(dim=1)


def resize(image: NDArray[np.uint8], size: list[int], crop: list[int] | None) -> NDArray[np.uint8]:
    """(H, W, 3) -> `size` (height, width) by Pillow's bicubic filter, then the middle `crop` of it."""
    try:
        from PIL import Image  # comes with the encoders extra
    except ImportError:
        raise missing_package("pillow") from None
    height, width = size
    if image.shape[:2] != (height, width):
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    if crop is not None:
        top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
        image = image[top : top + crop[0], left : left + crop[1]]
    return image


class Dino2Large(ImageEncoder):
    """facebook/dinov2-large, -> (n, 1024)."""

    model: ClassVar[str] = "Dinov2Model"
    config_class: ClassVar[str] = "Dinov2Config"
    model_types: ClassVar[tuple[str, ...]] = ("dinov2",)
    prefix: ClassVar[str] = "dinov2."
    unused: ClassVar[tuple[str, ...]] = ("layernorm.", "embeddings.mask_token", "classifier.")
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "mlp_ratio": 4, "hidden_act": "gelu",
        "layer_norm_eps": 1e-6, "image_size": 224, "patch_size": 14, "num_channels": 3, "qkv_bias": True,
        "use_swiglu_ffn": False,
    }  # fmt: skip
    published_architecture: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 518,
    }  # fmt: skip
    preprocessor: ClassVar[Mapping[str, Any]] = {
        "size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224},
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    }  # fmt: skip

    @property
    def name(self) -> str:
        return "DINO2_LARGE"

    @property
    def published(self) -> Published | None:
        return Published("facebook/dinov2-large")

    def off(self) -> dict[str, Any]:
        return {"use_mask_token": False}


class SiglipSo(ImageEncoder):
    """google/siglip-so400m-patch14-384, -> (n, 1152)."""

    model: ClassVar[str] = "SiglipVisionModel"
    config_class: ClassVar[str] = "SiglipVisionConfig"
    model_types: ClassVar[tuple[str, ...]] = ("siglip", "siglip_vision_model")
    prefix: ClassVar[str] = "vision_model."
    unused: ClassVar[tuple[str, ...]] = ("post_layernorm.", "head.")
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "image_size": 224, "patch_size": 16,
        "num_channels": 3,
    }  # fmt: skip
    published_architecture: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304,
        "image_size": 384, "patch_size": 14,
    }  # fmt: skip
    preprocessor: ClassVar[Mapping[str, Any]] = {
        "size": {"height": 384, "width": 384}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    }  # fmt: skip

    @property
    def name(self) -> str:
        return "SigLIP_SO"

    @property
    def published(self) -> Published | None:
        return Published("google/siglip-so400m-patch14-384")

    def off(self) -> dict[str, Any]:
        return {"vision_use_head": False}

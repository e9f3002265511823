"""CLIP's image tower in open_clip: CLIP_VIT_LARGE, and any ARCH.TAG.

Weights may come in open_clip's format or in that of Hugging Face's CLIP; both become the same network
with the same digest.  Features are the projected embeddings, not L2-normalised, as AffectGPT's encoder
returns them (AutoModel.get_image_features).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featurestore.encoders.architecture import describe_tower, only_tower, published_tag, read_architecture
from featurestore.encoders.clip_format import image_tower
from featurestore.encoders.frozen import FrozenNetwork, form_of, misfit
from featurestore.encoders.tensors import Tensors
from featurestore.encoders.weights import Checkpoint, Published, missing_package
from featurestore.errors import ValuesError

if TYPE_CHECKING:
    import torch

# What OpenAI trained with, and open_clip's default.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
# open_clip builds both towers; the one that is not in use is made as small as it can be.
NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 64, "heads": 1, "layers": 1}


class OpenClip(FrozenNetwork):
    """The image tower of open_clip's ARCH, with the weights that open_clip publishes as TAG ("none": none)."""

    modality: ClassVar[str] = "frame"
    packages: ClassVar[tuple[str, ...]] = ("torch", "open_clip_torch")

    def __init__(
        self, name: str, weights: str | None = None, device: str | None = None, compute_dtype: str = "float32"
    ) -> None:
        super().__init__(weights, device, compute_dtype)
        self._name = name
        self.architecture, _, self.tag = name.rpartition(".")

    @property
    def name(self) -> str:
        return self._name

    @property
    def published(self) -> Published | None:
        if self.tag == "none":
            return None
        repo, _, file = published_tag(self.architecture, self.tag)["hf_hub"].rpartition("/")
        return Published(repo, (file or "open_clip_model.safetensors",))

    @property
    def dim(self) -> int:
        return int(self.describe()["architecture"]["embed_dim"])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        image_size = self.describe()["architecture"]["vision_cfg"].get("image_size", 224)  # open_clip's default
        return (image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])

    def known(self) -> dict[str, Any]:
        architecture = read_architecture(self.architecture)
        mean, std = MEAN, STD
        if self.tag != "none":
            published = published_tag(self.architecture, self.tag)
            mean, std = published["mean"], published["std"]
            # open_clip itself would compute GELU for ViT-B-32.openai, which was trained with QuickGELU, and warn.
            architecture["quick_gelu"] = published.get("quick_gelu", False)
        return {
            "library": "open_clip",
            "architecture": only_tower(architecture, "vision_cfg"),
            "mean": list(mean),
            "std": list(std),
            "output": "projected, not normalised",
        }

    def described_by(self, checkpoint: Checkpoint) -> dict[str, Any]:
        known = self.known()
        if self.weights is None:
            return known
        return describe_tower(checkpoint, known, "vision_cfg")

    def select(self, tensors: Tensors) -> Tensors:
        return image_tower(tensors)

    def build(self, description: Mapping[str, Any], tensors: Tensors | None) -> torch.nn.Module:
        return build_tower("visual", {"text_cfg": NO_TEXT, **description["architecture"]}, tensors)

    def check(self, batch: Any) -> NDArray[np.uint8]:
        return check_images(batch, self.size, self.name)

    def run(self, network: torch.nn.Module, batch: NDArray[np.uint8], like: torch.Tensor) -> torch.Tensor:
        description = self.describe()
        features = network(to_pixels(batch, description["mean"], description["std"], like))
        # CoCa's tower returns (pooled, tokens).
        pooled: torch.Tensor = features[0] if isinstance(features, tuple) else features
        return pooled


class ClipVitLarge(OpenClip):
    """AffectGPT's visual encoder: openai/clip-vit-large-patch14, (n, 224, 224, 3) -> (n, 768)."""

    def __init__(self, weights: str | None = None, device: str | None = None, compute_dtype: str = "float32") -> None:
        super().__init__("ViT-L-14-quickgelu.none", weights, device, compute_dtype)

    @property
    def name(self) -> str:
        return "CLIP_VIT_LARGE"

    @property
    def published(self) -> Published | None:
        return Published("openai/clip-vit-large-patch14")


def check_images(batch: Any, size: tuple[int, int], name: str) -> NDArray[np.uint8]:
    """The batch, if it is (n, height, width, 3) uint8 of that size.  Raises ValuesError."""
    if not isinstance(batch, np.ndarray) or batch.dtype != np.uint8 or batch.shape[1:] != (*size, 3):
        raise ValuesError(f"{name} encodes uint8 images of shape (n, {size[0]}, {size[1]}, 3), not {form_of(batch)}")
    return batch


def to_pixels(images: NDArray[np.uint8], mean: list[float], std: list[float], like: torch.Tensor) -> torch.Tensor:
    """(n, H, W, 3) uint8 -> (n, 3, H, W), (x / 255 - mean) / std computed in float32, on the device and in the dtype
    of `like`."""
    import torch  # loaded with the network that gave `like`

    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(like.device).permute(0, 3, 1, 2).float().div_(255)
    bias, scale = (torch.tensor(values, device=like.device).view(3, 1, 1) for values in (mean, std))
    return pixels.sub_(bias).div_(scale).to(like.dtype)


def build_tower(tower: str, architecture: Mapping[str, Any], tensors: Tensors | None) -> torch.nn.Module:
    """The tower "visual" or "text" of an architecture.  Raises InputError if the tensors are not its own."""
    try:
        import open_clip  # 3 to 8 s, so not before a network is needed
        import torch
    except ImportError:
        raise missing_package("open_clip_torch") from None

    def make() -> torch.nn.Module:
        network: torch.nn.Module = getattr(open_clip.CustomTextCLIP(**architecture), tower)
        return network

    if tensors is None:
        return make()
    with torch.device("meta"):  # neither memory nor time for values that are replaced at once
        network = make()
    state = network.state_dict()
    if any(name not in state for name, _ in network.named_buffers()):
        network = make()  # buffers that are computed, not stored, need a real device
        state = network.state_dict()
    wrong = [f"{name} is missing" for name in state.keys() - tensors.keys()]
    wrong += [f"{name} is not part of it" for name in tensors.keys() - state.keys()]
    loaded = {}
    for name in state.keys() & tensors.keys():
        # In C order: a transposed view takes another path through the matrix product, and other last bits.
        loaded[name] = torch.from_numpy(np.array(tensors[name], order="C")).to(state[name].dtype)
        if loaded[name].shape != state[name].shape:
            wrong.append(f"{name} is {tuple(loaded[name].shape)}, not {tuple(state[name].shape)}")
    if wrong:
        raise misfit(wrong)
    network.load_state_dict(loaded, strict=True, assign=True)
    return network

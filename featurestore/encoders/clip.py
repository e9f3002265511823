"""CLIP's image tower in open_clip: CLIP_VIT_LARGE, and any ARCH.TAG.

Weights may come in open_clip's format or in that of Hugging Face's CLIP; both become the same network
with the same digest.  Features are the projected embeddings, not L2-normalised, as AffectGPT's encoder
returns them (AutoModel.get_image_features).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featurestore.encoders.clip_format import from_hugging_face, image_tower
from featurestore.encoders.frozen import FrozenNetwork, form_of, misfit
from featurestore.encoders.tensors import Tensors
from featurestore.encoders.weights import Checkpoint, Published, missing_package, remembered
from featurestore.errors import UnknownEncoderError, ValuesError

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
        image_size = self.describe()["architecture"]["vision_cfg"]["image_size"]
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
        loaded[name] = torch.from_numpy(np.array(tensors[name])).to(state[name].dtype)
        if loaded[name].shape != state[name].shape:
            wrong.append(f"{name} is {tuple(loaded[name].shape)}, not {tuple(state[name].shape)}")
    if wrong:
        raise misfit(wrong)
    network.load_state_dict(loaded, strict=True, assign=True)
    return network


# -- what open_clip ships, read as files: importing it takes torch ---------------------------------------------------


def describe_tower(checkpoint: Checkpoint, known: dict[str, Any], tower: str) -> dict[str, Any]:
    """The architecture that the config beside the weights gives, else the known one; the same for the preprocessing.

    `tower` is "vision_cfg" or "text_cfg"; the other one is left out, as it changes nothing.
    """
    own = checkpoint.read_json("open_clip_config.json")
    theirs = checkpoint.read_json("config.json")
    prepared = own.get("preprocess_cfg") or checkpoint.read_json("preprocessor_config.json")
    if own:
        architecture = own.get("model_cfg", own)
    elif theirs:
        architecture = from_hugging_face(theirs, str(checkpoint.folder / "config.json"))
    else:
        architecture = known["architecture"]
    described = {**known, "architecture": only_tower(architecture, tower)}
    if tower == "vision_cfg":
        described["mean"] = list(prepared.get("mean") or prepared.get("image_mean") or known["mean"])
        described["std"] = list(prepared.get("std") or prepared.get("image_std") or known["std"])
    return described


def only_tower(architecture: Mapping[str, Any], tower: str) -> dict[str, Any]:
    """One tower of an architecture of open_clip, with the defaults that distinguish no two models filled in."""
    defaults = {"mlp_ratio": 4.0, **({"head_width": 64} if tower == "vision_cfg" else {})}
    part = {**defaults, **architecture[tower]}
    if "timm_model_name" in part:
        part["timm_model_pretrained"] = False  # timm would fetch weights of its own
    return {
        "embed_dim": architecture["embed_dim"],
        "quick_gelu": bool(architecture.get("quick_gelu", False)),
        tower: part,
    }


def is_architecture(name: str) -> bool:
    """Whether open_clip ships an architecture of this name."""
    return name in architectures()


@cache
def architectures() -> tuple[str, ...]:
    """Names of the architectures that open_clip ships, () if it is not installed."""
    package = find_spec("open_clip")
    folder = Path(package.submodule_search_locations[0]) if package and package.submodule_search_locations else None
    return tuple(sorted(file.stem for file in folder.glob("model_configs/*.json"))) if folder else ()


def read_architecture(name: str) -> dict[str, Any]:
    """open_clip's description of an architecture.  Raises MissingPackageError."""
    architecture: dict[str, Any] = json.loads((_open_clip_folder() / "model_configs" / f"{name}.json").read_bytes())
    return architecture


def published_tag(architecture: str, tag: str) -> dict[str, Any]:
    """What open_clip knows of published weights: hf_hub (repository/[file]), url, mean, std, quick_gelu.

    The list is code that imports torch, so its entries are remembered.
    Raises UnknownEncoderError for a tag that is not listed.
    """
    listing = _open_clip_folder() / "pretrained.py"

    def look_up() -> str:
        from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model  # imports torch

        return json.dumps([get_pretrained_cfg(architecture, tag), list_pretrained_tags_by_model(architecture)])

    entry, tags = json.loads(remembered("published by open_clip", f"{architecture}.{tag}", (listing,), look_up))
    if not entry:
        near = difflib.get_close_matches(tag, tags, n=3, cutoff=0.4)
        raise UnknownEncoderError(
            f"open_clip publishes no weights {tag!r} for {architecture}; "
            + (f"did you mean {' or '.join(map(repr, near))}? " if near else "")
            + f"It has {', '.join(tags) or 'none'}; use {architecture}.none to bring your own"
        )
    return dict(entry)


def _open_clip_folder() -> Path:
    package = find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise missing_package("open_clip_torch")
    return Path(package.submodule_search_locations[0])

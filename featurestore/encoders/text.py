"""CLIP_TEXT: descriptions of facial action units, encoded by CLIP's text tower.

AffectGPT's code encodes them with OpenAI's clip package, ViT-B/32, truncate=True, rows L2-normalised.
open_clip's tokenizer equals that package's: text goes through ftfy (a full-width comma becomes ","),
which the tokenizer of transformers 5 leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from featurestore.encoders.architecture import describe_tower, only_tower, read_architecture
from featurestore.encoders.clip import build_tower
from featurestore.encoders.clip_format import text_tower
from featurestore.encoders.frozen import FrozenNetwork, form_of
from featurestore.encoders.tensors import Tensors
from featurestore.encoders.weights import Checkpoint, Published
from featurestore.errors import ConfigError, ValuesError

if TYPE_CHECKING:
    import torch

ARCHITECTURE = "ViT-B-32-quickgelu"
VOCABULARY = 49408
# open_clip builds both towers; the one that is not in use is made as small as it can be.
NO_VISION = {"image_size": 1, "patch_size": 1, "width": 64, "head_width": 64, "layers": 1}


class ClipText(FrozenNetwork):
    """openai/clip-vit-base-patch32's text tower: n descriptions -> (n, 512), rows of length 1."""

    modality: ClassVar[str] = "au"
    packages: ClassVar[tuple[str, ...]] = ("torch", "open_clip_torch")

    @property
    def name(self) -> str:
        return "CLIP_TEXT"

    @property
    def published(self) -> Published | None:
        return Published("openai/clip-vit-base-patch32", ("config.json", "pytorch_model.bin"))

    @property
    def dim(self) -> int:
        return int(self.describe()["architecture"]["embed_dim"])

    def known(self) -> dict[str, Any]:
        return {
            "library": "open_clip",
            "architecture": only_tower(read_architecture(ARCHITECTURE), "text_cfg"),
            "tokens": "ftfy, lower case, byte pairs of CLIP, cut at context_length",
            "output": "projected, L2-normalised",
        }

    def described_by(self, checkpoint: Checkpoint) -> dict[str, Any]:
        described = describe_tower(checkpoint, self.known(), "text_cfg")
        words = described["architecture"]["text_cfg"]["vocab_size"]
        if words != VOCABULARY:
            raise ConfigError(f"{checkpoint.folder} has a vocabulary of {words}; CLIP's tokenizer has {VOCABULARY}")
        return described

    def select(self, tensors: Tensors) -> Tensors:
        return text_tower(tensors)

    def build(self, description: Mapping[str, Any], tensors: Tensors | None) -> torch.nn.Module:
        return build_tower("text", {"vision_cfg": NO_VISION, **description["architecture"]}, tensors)

    def check(self, batch: Any) -> list[str]:
        if not isinstance(batch, list) or not all(isinstance(text, str) for text in batch):
            raise ValuesError(f"{self.name} encodes a list of strings, not {form_of(batch)}")
        return batch

    def run(self, network: torch.nn.Module, batch: list[str], like: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import normalize  # loaded with the network

        tokens = _tokenizer(self.describe()["architecture"]["text_cfg"]["context_length"])(batch)
        return normalize(network(tokens.to(like.device)).float(), dim=-1)


@cache
def _tokenizer(context_length: int) -> Any:
    """Reading the vocabulary takes longer than encoding a description."""
    import open_clip  # loaded with the network

    return open_clip.SimpleTokenizer(context_length=context_length)

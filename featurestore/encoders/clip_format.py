"""The two formats of CLIP checkpoints, both read as open_clip's: names of tensors, and the architecture.

Hugging Face splits what open_clip keeps together (q, k and v are one matrix) and transposes the two
projections.  Its files are told by names that begin with "vision_model." or "text_model.".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from featurestore.encoders.tensors import Array, Renamed, Tensors
from featurestore.errors import ConfigError, InputError

# Part of a block's name: Hugging Face -> open_clip.
_BLOCK = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj", "self_attn.q_proj": "attn.in_proj",
}  # fmt: skip
_OUTSIDE = {
    "vision_model.embeddings.class_embedding": "class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.pre_layrnorm.weight": "ln_pre.weight",  # the spelling is theirs
    "vision_model.pre_layrnorm.bias": "ln_pre.bias",
    "vision_model.post_layernorm.weight": "ln_post.weight",
    "vision_model.post_layernorm.bias": "ln_post.bias",
    "visual_projection.weight": "proj",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "text_projection.weight": "text_projection",
}
_TRANSPOSED = {"visual_projection.weight", "text_projection.weight"}
_HF_BLOCK = re.compile(r"(?:vision|text)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
# Of open_clip's whole model, not of its text tower.
_NEITHER_TOWER = {"logit_scale", "logit_bias"}


def image_tower(tensors: Tensors) -> Tensors:
    """The tensors of the image tower under open_clip's names within it.  Raises InputError if there are none."""
    if any(name.startswith("vision_model.") for name in tensors):
        return _FromHuggingFace(tensors, ("vision_model.", "visual_projection."))
    return Renamed(tensors, _some(_within(tensors, "visual."), tensors, "image"))


def text_tower(tensors: Tensors) -> Tensors:
    """The tensors of the text tower under open_clip's names within it.  Raises InputError if there are none."""
    if any(name.startswith("text_model.") for name in tensors):
        return _FromHuggingFace(tensors, ("text_model.", "text_projection."))
    # open_clip has it at the top, or under "text." in models with towers of another kind.
    names = _within(tensors, "text.")
    if not names:
        names = {
            short: name
            for short, name in _within(tensors, "").items()
            if not short.startswith("visual.") and short not in _NEITHER_TOWER
        }
    return Renamed(tensors, _some(names, tensors, "text"))


def _some(names: dict[str, str], tensors: Tensors, tower: str) -> dict[str, str]:
    if not names:
        raise InputError(f"no {tower} tower of CLIP is in it; its tensors are {', '.join(sorted(tensors)[:3])}, ...")
    return names


class _FromHuggingFace(Renamed):
    """Maps on reading, so that only one tensor is held at a time."""

    def __init__(self, tensors: Tensors, prefixes: tuple[str, ...]) -> None:
        names = {}
        for name in tensors:
            block = _HF_BLOCK.fullmatch(name)
            if not name.startswith(prefixes) or name.endswith(".position_ids"):
                continue  # position_ids: 0, 1, 2, ..., which older versions stored
            if block is None:
                names[_OUTSIDE.get(name, name)] = name
            elif block[2] not in ("self_attn.k_proj", "self_attn.v_proj"):  # taken together with q
                part = _BLOCK.get(block[2], block[2])
                joint = "_" if part == "attn.in_proj" else "."
                names[f"transformer.resblocks.{block[1]}.{part}{joint}{block[3]}"] = name
        super().__init__(tensors, names)

    def __getitem__(self, name: str) -> Array:
        source = self.names[name]
        if source in _TRANSPOSED:
            return self.tensors[source].T
        if ".q_proj." in source:
            return np.concatenate([self.tensors[source.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"])
        return self.tensors[source]


def _within(tensors: Tensors, prefix: str) -> dict[str, str]:
    """Names below `prefix` -> names in the file; "module." in front is what training on several GPUs leaves."""
    bare = {name.removeprefix("module."): name for name in tensors}
    return {short.removeprefix(prefix): name for short, name in bare.items() if short.startswith(prefix)}


def from_hugging_face(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """config.json of a Hugging Face CLIP as open_clip's architecture; what it leaves out has transformers' defaults.

    Raises ConfigError for a model that is not CLIP, or that open_clip cannot build.
    """
    kind = config.get("model_type")
    if kind not in ("clip", "clip_vision_model", "clip_text_model"):
        raise ConfigError(f"{where} describes a model of type {kind!r}; this encoder needs 'clip'")
    vision = config if kind == "clip_vision_model" else config.get("vision_config") or {}
    text = config if kind == "clip_text_model" else config.get("text_config") or {}
    acts = {part.get("hidden_act", "quick_gelu") for part in (vision, text)}
    if not acts <= {"quick_gelu", "gelu"} or len(acts) != 1:
        raise ConfigError(f"{where} has hidden_act {' and '.join(sorted(acts))}; one of quick_gelu, gelu is needed")
    return {
        "embed_dim": config.get("projection_dim", 512),
        "quick_gelu": acts == {"quick_gelu"},
        "vision_cfg": {
            "image_size": vision.get("image_size", 224),
            "patch_size": vision.get("patch_size", 32),
            "head_width": vision.get("hidden_size", 768) // vision.get("num_attention_heads", 12),
            **_transformer(vision, width=768, intermediate=3072),
        },
        "text_cfg": {
            "context_length": text.get("max_position_embeddings", 77),
            "vocab_size": text.get("vocab_size", 49408),
            "heads": text.get("num_attention_heads", 8),
            **_transformer(text, width=512, intermediate=2048),
        },
    }


def _transformer(part: Mapping[str, Any], width: int, intermediate: int) -> dict[str, Any]:
    wide = part.get("hidden_size", width)
    eps = part.get("layer_norm_eps", 1e-5)
    return {
        "width": wide,
        "layers": part.get("num_hidden_layers", 12),
        "mlp_ratio": part.get("intermediate_size", intermediate) / wide,
        **({} if eps == 1e-5 else {"norm_kwargs": {"eps": eps}}),
    }

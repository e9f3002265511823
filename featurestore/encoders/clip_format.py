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
            if not short.startswith(("visual.", "vision_model.", "visual_projection.")) and short not in _NEITHER_TOWER
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


def from_hugging_face(config: Mapping[str, Any], where: str, tower: str) -> dict[str, Any]:
    """One tower of a Hugging Face CLIP, from its config.json, as open_clip's architecture.

    The config is that of a whole CLIP or of this tower alone; what it leaves out has transformers' defaults, and the
    other tower does not matter.  `tower` is "vision_cfg" or "text_cfg".
    Raises ConfigError for a model that is not CLIP or has no such tower, or that open_clip cannot build.
    """
    kind = config.get("model_type")
    name = {"vision_cfg": "vision", "text_cfg": "text"}[tower]
    if kind not in ("clip", f"clip_{name}_model"):
        raise ConfigError(
            f"{where} describes a model of type {kind!r}; this encoder needs 'clip' or 'clip_{name}_model'"
        )
    part = config if kind != "clip" else config.get(f"{name}_config") or {}
    activation = part.get("hidden_act", "quick_gelu")
    if activation not in ("quick_gelu", "gelu"):
        raise ConfigError(f"{where} has hidden_act {activation!r}; quick_gelu or gelu is needed")
    return {
        "embed_dim": config.get("projection_dim", 512),
        "quick_gelu": activation == "quick_gelu",
        tower: _image_transformer(part) if tower == "vision_cfg" else _text_transformer(part),
    }


def _image_transformer(part: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "image_size": part.get("image_size", 224),
        "patch_size": part.get("patch_size", 32),
        "head_width": part.get("hidden_size", 768) // part.get("num_attention_heads", 12),
        **_transformer(part, width=768, intermediate=3072),
    }


def _text_transformer(part: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "context_length": part.get("max_position_embeddings", 77),
        "vocab_size": part.get("vocab_size", 49408),
        "heads": part.get("num_attention_heads", 8),
        **_transformer(part, width=512, intermediate=2048),
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

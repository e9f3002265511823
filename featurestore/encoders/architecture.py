"""Architectures of CLIP: those that open_clip ships, and those that config files beside weights describe.

open_clip's are read as files, because importing it takes torch and seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from featurestore.encoders.clip_format import from_hugging_face
from featurestore.encoders.notes import remembered
from featurestore.encoders.weights import Checkpoint, missing_package
from featurestore.errors import UnknownEncoderError, near_names


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
        architecture = from_hugging_face(theirs, str(checkpoint.folder / "config.json"), tower)
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


@cache
def architectures() -> tuple[str, ...]:
    """Names of the architectures that open_clip ships.  Raises MissingPackageError."""
    return tuple(sorted(file.stem for file in _open_clip_folder().glob("model_configs/*.json")))


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
        try:
            from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model  # imports torch
        except ImportError as error:
            raise missing_package(error.name or "open_clip_torch") from None
        return json.dumps([get_pretrained_cfg(architecture, tag), list_pretrained_tags_by_model(architecture)])

    entry, tags = json.loads(remembered("published by open_clip", f"{architecture}.{tag}", (listing,), look_up))
    if not entry:
        near = near_names(tag, tags, 3, 0.4)
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

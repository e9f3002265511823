"""Checkpoints of AffectGPT: the trained heads and LoRA weights, and what is missing or unexpected in them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.errors import InputError

if TYPE_CHECKING:  # read lazily: torch takes seconds
    from torch import Tensor

    from affect_infer.heads import HeadShape

LLM_PREFIX = "llama_model."
TOKEN_COUNTS = {"video": "num_video_query_token", "audio": "num_audio_query_token", "multi": "num_multi_query_token",
                "image": "num_image_query_token", "au": "num_au_query_token"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tensors of one file, split into heads and LoRA, as they were saved (float32)."""

    path: Path
    heads: Mapping[str, Tensor]
    lora: Mapping[str, Tensor]
    """names without the prefix `llama_model.`, as peft has them"""
    shape: HeadShape
    lora_rank: int | None
    """None where the file has no LoRA weights"""
    sha256: str
    config: Mapping[str, Any] = field(default_factory=dict)
    """`config.model` of the training run, where it was saved as plain values"""

    def token_counts(self) -> dict[str, int]:
        """Tokens per modality that the checkpoint was trained with, where it says so."""
        found = {modality: self.config.get(name) for modality, name in TOKEN_COUNTS.items()}
        return {modality: count for modality, count in found.items() if isinstance(count, int) and count > 0}


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a `.pth` file without running anything in it.  Imports torch.

    Raises InputError: not a checkpoint, pickled code inside, Q-Former fusion, a head missing, LoRA of several ranks.
    """
    import torch

    from affect_infer.heads import HeadShape
    from featurestore.encoders.tensors import load_plain, plain_tensors

    path = Path(path)
    if not path.exists():
        raise InputError(f"checkpoint {path} does not exist; give the .pth file with --ckpt")
    content = load_plain(path)
    given = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(given, Mapping) or not all(isinstance(value, torch.Tensor) for value in given.values()):
        raise InputError(f"checkpoint {path} is not {{'model': {{name: tensor}}}}")
    tensors = plain_tensors(path, given)
    heads = {name: tensor for name, tensor in tensors.items() if not name.startswith(LLM_PREFIX)}
    lora = {name.removeprefix(LLM_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(LLM_PREFIX)}
    flat = [name for name, tensor in lora.items() if tensor.ndim != 2]
    if flat:
        raise InputError(f"checkpoint {path}: LoRA weight {flat[0]!r} is {tuple(lora[flat[0]].shape)}, not a matrix")
    ranks = {tensor.shape[0] for name, tensor in lora.items() if ".lora_A." in name}
    if len(ranks) > 1:
        raise InputError(f"checkpoint {path} has LoRA weights of several ranks: {sorted(ranks)}")
    config = content.get("config", {})
    model = config.get("model", {}) if isinstance(config, Mapping) else {}
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Checkpoint(
        path=path,
        heads=heads,
        lora=lora,
        shape=HeadShape.of(heads, path),
        lora_rank=ranks.pop() if ranks else None,
        sha256=digest,
        config=model if isinstance(model, Mapping) else {},
    )


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a checkpoint's tensors."""

    missing: tuple[str, ...]
    """parameters of the model that the checkpoint should have and has not: they would stay random"""
    unexpected: tuple[str, ...]
    """tensors that nothing of the model takes"""

    def check(self, path: Path) -> str | None:
        """A line for the report, or None when all fits.  InputError where something would stay random."""
        if self.missing:
            raise InputError(
                f"checkpoint {path} lacks {len(self.missing)} tensors that the model needs and that would stay random: "
                f"{_some(self.missing)}"
                + (
                    f"; it has {len(self.unexpected)} that do not fit: {_some(self.unexpected)}"
                    if self.unexpected
                    else ""
                )
            )
        if self.unexpected:
            return f"{len(self.unexpected)} tensors of {path.name} are not used: {_some(self.unexpected)}"
        return None


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

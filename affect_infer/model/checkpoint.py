"""Checkpoints of AffectGPT: the trained heads and LoRA weights, and what is missing or unexpected in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affect_infer.model.finite import not_finite
from affect_infer.model.language_files import some
from featurestore.errors import InputError
from featurestore.provenance import file_sha256

if TYPE_CHECKING:  # read lazily: torch takes seconds
    from torch import Tensor

    from affect_infer.model.heads import HeadShape

LLM_PREFIX = "llama_model."
WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel, and of torch.compile inside it
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

    Raises InputError: not a checkpoint, pickled code inside, Q-Former fusion, a head missing, LoRA of several ranks,
    names of two kinds, tensors that are not finite.
    """
    import torch

    from affect_infer.model.heads import HeadShape
    from featurestore.encoders.tensors import load_plain, plain_tensors

    path = Path(path)
    if not path.exists():
        raise InputError(f"checkpoint {path} does not exist; give the .pth file with --ckpt")
    content = load_plain(path)
    given = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(given, Mapping) or not all(isinstance(value, torch.Tensor) for value in given.values()):
        raise InputError(f"checkpoint {path} is not {{'model': {{name: tensor}}}}")
    tensors = _bare(path, plain_tensors(path, given))
    if broken := not_finite(tensors):
        raise InputError(
            f"checkpoint {path}: {len(broken)} tensors hold NaN or infinities, as training in float16 may leave them: "
            f"{some(broken)}; use the checkpoint of another epoch, or train in bfloat16"
        )
    heads = {name: tensor for name, tensor in tensors.items() if not name.startswith(LLM_PREFIX)}
    lora = {name.removeprefix(LLM_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(LLM_PREFIX)}
    flat = [name for name, tensor in lora.items() if tensor.ndim != 2]
    if flat:
        raise InputError(f"checkpoint {path}: LoRA weight {flat[0]!r} is {tuple(lora[flat[0]].shape)}, not a matrix")
    ranks = {tensor.shape[0] for name, tensor in lora.items() if ".lora_A." in name}
    if len(ranks) > 1:
        raise InputError(f"checkpoint {path} has LoRA weights of several ranks: {sorted(ranks)}")
    if lora and not ranks:
        raise InputError(f"checkpoint {path} has {len(lora)} LoRA weights, none of them a lora_A: {some(lora)}")
    config = content.get("config", {})
    model = config.get("model", {}) if isinstance(config, Mapping) else {}
    return Checkpoint(
        path=path,
        heads=heads,
        lora=lora,
        shape=HeadShape.of(heads, path),
        lora_rank=ranks.pop() if ranks else None,
        sha256=file_sha256(path),
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
                f"{some(self.missing)}"
                + (
                    f"; it has {len(self.unexpected)} that do not fit: {some(self.unexpected)}"
                    if self.unexpected
                    else ""
                )
            )
        if trained := [name for name in self.unexpected if name.startswith(LLM_PREFIX)]:
            raise InputError(
                f"checkpoint {path} has {len(trained)} LoRA weights that the language model has no place for: "
                f"{some(trained)}; give the model that it was trained with by --llm"
            )
        if self.unexpected:
            return f"{len(self.unexpected)} tensors of {path.name} are not used: {some(self.unexpected)}"
        return None


def _bare(path: Path, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors without what training on several GPUs, or compiling, has put in front of all their names."""
    for prefix in WRAPPERS:
        wrapped = [name for name in tensors if name.startswith(prefix)]
        if wrapped and len(wrapped) < len(tensors):
            other = next(name for name in tensors if not name.startswith(prefix))
            raise InputError(
                f"checkpoint {path} has {len(wrapped)} of {len(tensors)} names with {prefix!r} in front, such as "
                f"{wrapped[0]}, and others without, such as {other}; which are meant is not known: save one state_dict"
            )
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors

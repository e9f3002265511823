"""The small linear heads between encoders and the language model, with the parameter names of AffectGPT's checkpoints.

Source: domain notes 5.2 and 5.4.  There is no softmax over the attention weights, and one row is weighted like any
other: the stored and the live path of the published code differ there; this is its live path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from featurestore.errors import InputError

Fusion = Literal["attention", "mean"]
MATRICES = tuple(f"{head}_proj.weight" for head in ("affectgpt", "audio_llama", "multi_llama", "au_llama"))
QFORMER_KEYS = ("Qformer", "query_tokens", "position_embedding")


@dataclass(frozen=True, slots=True)
class HeadShape:
    """What a checkpoint's keys and shapes say about its heads."""

    hidden: int
    """width of the language model"""
    visual: int
    """features of a frame or face"""
    acoustic: int
    """features of an audio window"""
    video_fusion: Fusion
    audio_fusion: Fusion
    merged: int | None = None
    """width of the <Multi> pre-fusion; None without it"""
    au: int | None = None
    """features of an AU description; None without an AU head"""
    au_fusion: Fusion = "mean"

    @classmethod
    def of(cls, tensors: Mapping[str, Any], path: object) -> HeadShape:
        """Read from the tensors of a checkpoint.  InputError for Q-Former fusion, or where a head is missing."""
        qformer = sorted(name for name in tensors if any(part in name for part in QFORMER_KEYS))
        if qformer:
            raise InputError(
                f"{path} fuses by Q-Former ({len(qformer)} tensors, e.g. {qformer[0]}), which is not supported; "
                "use a checkpoint trained with video_fusion_type, audio_fusion_type and multi_fusion_type "
                "'attention' or 'mean'"
            )
        for name in MATRICES:
            if name in tensors and len(tensors[name].shape) != 2:
                shape = tuple(tensors[name].shape)
                raise InputError(f"{path}: {name} is {shape}, not a matrix; it is no AffectGPT checkpoint")
        try:
            hidden, visual = tensors["affectgpt_proj.weight"].shape
            acoustic = tensors["audio_llama_proj.weight"].shape[1]
        except KeyError as error:
            raise InputError(f"{path} has no {error.args[0]}; it is no AffectGPT checkpoint") from None
        has_au, has_multi = "au_llama_proj.weight" in tensors, "multi_llama_proj.weight" in tensors
        if has_multi and "fc_att.weight" not in tensors:
            raise InputError(f"{path} has multi_llama_proj, but neither fc_att nor a Q-Former to fuse with")
        return cls(
            hidden=hidden,
            visual=visual,
            acoustic=acoustic,
            video_fusion="attention" if "video_attention_mlp.weight" in tensors else "mean",
            audio_fusion="attention" if "audio_attention_mlp.weight" in tensors else "mean",
            merged=tensors["multi_llama_proj.weight"].shape[1] if has_multi else None,
            au=tensors["au_llama_proj.weight"].shape[1] if has_au else None,
            au_fusion="attention" if "au_attention_mlp.weight" in tensors else "mean",
        )

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in asdict(self).items() if value is not None)


class AffectHeads(nn.Module):
    """Features of one sample -> one vector per modality, as wide as the language model.

    All take (rows, dim) or (samples, rows, dim) and give (hidden,) or (samples, hidden).
    """

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.shape = shape
        self.image_llama_proj = nn.Linear(shape.visual, shape.hidden)
        if shape.video_fusion == "attention":
            self.video_attention_mlp = nn.Linear(shape.visual, 1)
        self.affectgpt_proj = nn.Linear(shape.visual, shape.hidden)
        if shape.audio_fusion == "attention":
            self.audio_attention_mlp = nn.Linear(shape.acoustic, 1)
        self.audio_llama_proj = nn.Linear(shape.acoustic, shape.hidden)
        if shape.merged is not None:
            self.multi_audio_embs = nn.Linear(shape.acoustic, shape.merged)
            self.multi_video_embs = nn.Linear(shape.visual, shape.merged)
            self.attention_mlp = nn.Linear(2 * shape.merged, shape.merged)
            self.fc_att = nn.Linear(shape.merged, 2)
            self.multi_llama_proj = nn.Linear(shape.merged, shape.hidden)
        if shape.au is not None:
            if shape.au_fusion == "attention":
                self.au_attention_mlp = nn.Linear(shape.au, 1)
            self.au_llama_proj = nn.Linear(shape.au, shape.hidden)

    def video(self, rows: Tensor) -> Tensor:
        """Frames or faces, which share their weights."""
        return cast(Tensor, self.affectgpt_proj(self._fused(rows, self.shape.video_fusion, "video_attention_mlp")))

    def audio(self, rows: Tensor) -> Tensor:
        """Audio windows."""
        return cast(Tensor, self.audio_llama_proj(self._fused(rows, self.shape.audio_fusion, "audio_attention_mlp")))

    def image(self, rows: Tensor) -> Tensor:
        """One picture; the mean where there are several rows."""
        return cast(Tensor, self.image_llama_proj(rows.mean(-2)))

    def au(self, rows: Tensor) -> Tensor:
        """Descriptions of facial action units."""
        return cast(Tensor, self.au_llama_proj(self._fused(rows, self.shape.au_fusion, "au_attention_mlp")))

    def multi(self, visual: Tensor, acoustic: Tensor) -> Tensor:
        """Frames or faces merged with audio, before the language model."""
        v, u = self.multi_video_embs(visual.mean(-2)), self.multi_audio_embs(acoustic.mean(-2))
        weights = self.fc_att(self.attention_mlp(torch.cat([v, u], -1)))
        return cast(Tensor, self.multi_llama_proj(weights[..., :1] * v + weights[..., 1:] * u))

    def _fused(self, rows: Tensor, fusion: Fusion, attention: str) -> Tensor:
        """(..., rows, dim) -> (..., dim)."""
        if fusion == "mean":
            return rows.mean(-2)
        weights: Tensor = getattr(self, attention)(rows)  # (..., rows, 1)
        return (rows.transpose(-1, -2) @ weights).squeeze(-1)

    def check(self, modality: str, dim: int) -> None:
        """InputError where features of this modality do not fit, or there is no head for them."""
        widths = {"frame": self.shape.visual, "face": self.shape.visual, "image": self.shape.visual}
        wanted = widths.get(modality, self.shape.acoustic if modality == "audio" else self.shape.au)
        if wanted is None:
            raise InputError(
                f"the checkpoint has no head for {modality} features: put AU into the prompt as text (--au text), "
                f"or choose a face_or_frame without it"
            )
        if wanted != dim:
            raise InputError(f"{modality} features have {dim} numbers per row, the checkpoint's head takes {wanted}")

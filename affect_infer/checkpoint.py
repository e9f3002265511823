"""Checkpoints of AffectGPT, for programs: read one, and be told what is missing, unexpected or no number in it."""

from affect_infer.model.checkpoint import Checkpoint, read_checkpoint

__all__ = ["Checkpoint", "read_checkpoint"]

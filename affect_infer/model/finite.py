"""Tensors that hold no numbers: NaN and infinities, found before anything is computed with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # read lazily: torch takes seconds
    from torch import Tensor


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of those that hold NaN or an infinity.  One pass over each, one wait for their device.  Imports torch."""
    import torch

    names = [name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()]
    if not names:
        return []
    # NaN goes through least and largest; `isfinite` would make a mask as large as the tensor, at thirty times the cost.
    whole = torch.stack([torch.stack(tensors[name].aminmax()).isfinite().all() for name in names]).tolist()
    return [name for name, good in zip(names, whole, strict=True) if not good]

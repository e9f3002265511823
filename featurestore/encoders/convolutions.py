"""Convolutions in half precision that a processor's kernels compute wrongly, and the way around them.

oneDNN on a processor with AMX computes convolutions of 4 to 14 channels per group and 16 or more columns in bfloat16
off by more than the largest value; other shapes are right.  What is built in is therefore tried before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Two right computations in bfloat16 (8 bits) differ by less, a wrong one by more, of the largest value.
_FAR = 0.05


def right_convolutions(network: torch.nn.Module) -> torch.nn.Module:
    """The network; convolutions that oneDNN computes wrongly in the dtype of their weights will run without it."""
    import torch

    for layer in network.modules():
        if isinstance(layer, (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)) and not _is_right(layer):
            layer.forward = _without_onednn(layer.forward)  # type: ignore[method-assign]
    return network


def _is_right(layer: Any) -> bool:
    """Whether random input gives with oneDNN what it gives without."""
    import torch

    sizes = [(kernel - 1) * dilation + 9 for kernel, dilation in zip(layer.kernel_size, layer.dilation, strict=True)]
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(1, layer.in_channels, *sizes, generator=generator).to(layer.weight.dtype)
    with torch.no_grad():
        found, wanted = layer(batch).float(), _without_onednn(layer)(batch).float()
    return bool((found - wanted).abs().max() <= _FAR * wanted.abs().max())


def _without_onednn(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        import torch.backends.mkldnn

        mkldnn: Any = torch.backends.mkldnn
        before, mkldnn.enabled = mkldnn.enabled, False  # not its `flags`, which warns
        try:
            return function(*arguments)
        finally:
            mkldnn.enabled = before

    return run

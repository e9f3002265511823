"""Convolutions that a processor's kernels compute wrongly in half precision."""

from __future__ import annotations

import pytest
import torch

from featurestore.encoders.convolutions import right_convolutions


class WrongWithOneDNN(torch.nn.Conv1d):
    """As on a processor whose kernels are wrong, on any."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        values = super().forward(input)
        return values.flip(-1) if torch.backends.mkldnn.enabled else values


def batch(channels: int, *sizes: int) -> torch.Tensor:
    return torch.randn(2, channels, *sizes, generator=torch.Generator().manual_seed(1))


def off(layer: torch.nn.Module, values: torch.Tensor) -> float:
    """How far the layer in bfloat16 is from float32, as a share of the largest value."""
    with torch.no_grad():
        found = layer(values.bfloat16()).float()
        wanted = layer.float()(values)
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("kind", [torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d])
@pytest.mark.parametrize("per_group", [3, 4, 8, 12, 14, 16, 64])
@pytest.mark.parametrize("kernel", [3, 16])
def test_every_shape_is_right_here(kind: type[torch.nn.Conv1d], per_group: int, kernel: int) -> None:
    """On a processor with AMX some of these are off by 1.3 otherwise."""
    torch.manual_seed(0)
    dimensions = {torch.nn.Conv1d: 1, torch.nn.Conv2d: 2, torch.nn.Conv3d: 3}[kind]
    sizes = (1,) * (dimensions - 1) + (kernel,)
    padding = tuple(size // 2 for size in sizes)
    layer = kind(2 * per_group, 2 * per_group, sizes, groups=2, padding=padding)  # type: ignore[arg-type]
    values = batch(2 * per_group, *(3,) * (dimensions - 1), 40)
    assert off(right_convolutions(layer.bfloat16()), values) < 0.03


def test_what_is_wrong_runs_without_onednn_and_leaves_it_on_for_others() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv1d(16, 16, 3), WrongWithOneDNN(16, 16, 5)).bfloat16()
    values = batch(16, 40).bfloat16()
    with torch.no_grad():
        mirrored = network(values)
        right = right_convolutions(network)(values)
    assert torch.backends.mkldnn.enabled
    assert (right - mirrored.flip(-1)).abs().max() <= 0.05 * right.abs().max() < (right - mirrored).abs().max()
    assert "forward" not in vars(network[0])
    assert "forward" in vars(network[1])

"""Where a network runs, and that float32 is float32 there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from featurestore.errors import ConfigError

if TYPE_CHECKING:
    import torch


def usable_device(name: str | None) -> torch.device:
    """The device called `name`; for None the first GPU, or the CPU.  Raises ConfigError."""
    import torch  # loaded by the caller

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ConfigError(f"device {name!r} cannot be used here ({error}); there is {', '.join(here)}") from error


@contextmanager
def full_precision() -> Iterator[None]:
    """float32 means float32 on every device.

    Otherwise convolutions on a GPU would use TF32 (10 bits of mantissa) unasked, and products of matrices
    whatever `torch.set_float32_matmul_precision` was last told.  The settings are the process's: so callers take turns.
    """
    import torch  # loaded by the caller

    backends: Any = torch.backends
    places = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "ieee"
    try:
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision

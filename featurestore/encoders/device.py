"""Where a network runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

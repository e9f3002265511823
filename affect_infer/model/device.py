"""Where a language model runs and in which dtype, as it is in force: what is not said depends on the machine."""

from __future__ import annotations


def device_in_force(asked: str | None) -> str:
    """The device called `asked`; for None a GPU where there is one.  Imports torch, unless it is `cpu`.

    Raises ConfigError for one that is not here.
    """
    if asked == "cpu":
        return asked
    from featurestore.encoders.device import usable_device

    return str(usable_device(asked))


def dtype_in_force(asked: str | None, device: str | None) -> str:
    """The dtype called `asked`; for None float16 on a GPU, float32 on a CPU.  Imports torch only to look for a GPU."""
    return asked or ("float16" if device_in_force(device).startswith("cuda") else "float32")

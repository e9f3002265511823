"""What config files say, compared with what is known of such a network: other types would raise anywhere later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featurestore.errors import ConfigError

LARGEST = 10**9  # of a size in a config file
_SQUARES = ("image_size", "patch_size", "size", "resize", "crop")  # one number or (height, width)


def validate_config(given: Any, known: Any, where: str, name: str = "") -> None:
    """ConfigError where a part of `given` is of another type than the same part of `known`, or a size is no size.

    where   the folder of the config files, for the message
    name    of the part, as it is written there
    """
    last = name.rpartition(".")[2]
    if known is None or (given is None and last in ("crop", "patch_size")):
        return
    if last == "layers" and isinstance(given, list) != isinstance(known, list):
        known = [1] if isinstance(given, list) else 1  # one number, or one for each stage of a ResNet
    if last in _SQUARES:
        if not _are_sizes(given):
            raise _misfit(given, "one number of pixels or two", where, name)
        return
    if isinstance(known, Mapping):
        if not isinstance(given, Mapping):
            raise _misfit(given, "an object", where, name)
        for key, part in known.items():
            if key in given:
                validate_config(given[key], part, where, f"{name}.{key}".lstrip("."))
    elif isinstance(known, list):
        if not isinstance(given, list) or (last in ("mean", "std") and len(given) != len(known)):
            raise _misfit(given, f"a list like {known!r}", where, name)
        for part in given if known else ():
            validate_config(part, known[0], where, name)
    elif isinstance(known, bool | str):
        if type(given) is not type(known):
            raise _misfit(given, f"a value like {known!r}", where, name)
    elif not _is_number(given) or (isinstance(known, int) and not (given == int(given) and given >= 0)):
        raise _misfit(given, f"a number like {known!r}", where, name)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST < value < LARGEST  # which NaN is not


def _are_sizes(value: Any) -> bool:
    sizes = value if isinstance(value, list) and len(value) == 2 else [value]
    return all(type(size) is int and 0 < size < LARGEST for size in sizes)


def _misfit(given: Any, wanted: str, where: str, name: str) -> ConfigError:
    shown = repr(given)[:80]
    return ConfigError(
        f"config files in {where}: {name or 'the description'} is {shown}, not {wanted}; fetch them again"
    )

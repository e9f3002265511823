"""Interpolations in settings files, `${oc.env:NAME}` and `${section.key}`, as the old code's OmegaConf does."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, cast

from featurestore.errors import ConfigError

MAX_LENGTH = 4096  # of a value, before and after: values that refer to each other can double at each step
MISSING = "???"  # how omegaconf marks what has no value yet
Place = tuple[str | int, ...]


def resolve(data: dict[str, Any], where: object) -> dict[str, Any]:
    """The same settings with every interpolation replaced by what it means; without one, the same object.

    Raises ConfigError that names the key: for what has no value, refers to itself or to a whole section, or grows
    beyond 4096 characters, and for any interpolation where omegaconf is not installed.
    """
    waiting = {place: text for place, text in _texts(data, ()) if "${" in text}
    if not waiting:
        return data
    try:
        from omegaconf import OmegaConf
        from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException
    except ImportError as error:
        place, text = next(iter(waiting.items()))
        raise ConfigError(
            f"{where}: {_dotted(place)} is {text!r}: putting in what that means needs omegaconf "
            "(`pip install omegaconf`); or write the value"
        ) from error
    config: Any = copy.deepcopy(data)
    for place in waiting:
        _set(config, place, MISSING)
    try:
        config = OmegaConf.create(config)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {str(error).strip().splitlines()[0]}, beside an interpolation") from error
    while waiting:
        known = {}
        for place, text in waiting.items():
            _require_short(place, text, where)
            try:
                _set(config, place, text)
                known[place] = _get(config, place)
            except InterpolationToMissingValueError:
                pass  # another one comes first
            except OmegaConfBaseException as error:
                why = str(error).strip().splitlines()[0]
                raise ConfigError(f"{where}: {_dotted(place)} is {text!r}, which has no value here: {why}") from error
            _set(config, place, MISSING)
        if not known:
            place, text = next(iter(waiting.items()))
            raise ConfigError(f"{where}: {_dotted(place)} is {text!r}, which leads back to itself; write the value")
        for place, value in known.items():
            if OmegaConf.is_config(value):
                raise ConfigError(f"{where}: {_dotted(place)} is {waiting[place]!r}, a whole section, not a value")
            _require_short(place, str(value), where)
            _set(config, place, value)
            del waiting[place]
    return cast("dict[str, Any]", OmegaConf.to_container(config))


def _texts(data: Any, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(data, dict | list):
        for name, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from _texts(value, (*place, name))
    elif isinstance(data, str):
        yield place, data


def _get(config: Any, place: Place) -> Any:
    for name in place:
        config = config[name]
    return config


def _set(config: Any, place: Place, value: Any) -> None:
    _get(config, place[:-1])[place[-1]] = value


def _require_short(place: Place, text: str, where: object) -> None:
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"{where}: {_dotted(place)} has more than {MAX_LENGTH} characters; write it shorter")


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))

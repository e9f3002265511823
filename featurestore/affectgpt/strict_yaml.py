"""YAML of unknown origin: plain data only, each key once, no aliases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from featurestore.errors import ConfigError
from featurestore.untrusted_io.charset import decode
from featurestore.untrusted_io.files import read_untrusted

MAX_BYTES = 1 << 20
MAX_DEPTH = 32


class _Loader(yaml.SafeLoader):
    """SafeLoader, and refused besides: duplicate keys (the last one would win silently), aliases, deep nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.constructor.ConstructorError(None, None, "anchors and aliases are refused", event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.constructor.ConstructorError(None, None, f"nested deeper than {MAX_DEPTH}", event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {name!r} is not text", key.start_mark)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {name!r} is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.  ConfigError, with the line, for anything that is not plain data."""
    path = Path(path)
    try:
        text = decode(read_untrusted(path, MAX_BYTES), path.name)
    except (OSError, ValueError) as error:  # ValueError: another encoding, or a NUL in the path
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path} cannot be read: {why}") from error
    try:
        data = yaml.load(text, _Loader)  # noqa: S506 - derived from SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: {error.problem or error.context}") from error
    # A scalar that looks like a date or a number and is none.
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds {type(data).__name__}, not a mapping of settings")
    return data


def set_options(data: dict[str, Any], options: Sequence[str], where: object) -> dict[str, Any]:
    """A copy with `a.b=value` options set in it, their values read as YAML.  ConfigError for other forms."""
    changed: dict[str, Any] = _copied(data)
    for option in options:
        dotted, equals, text = option.partition("=")
        *above, last = dotted.split(".")
        if not equals or not all((*above, last)):
            raise ConfigError(f"option {option!r} is not of the form a.b=value")
        place = changed
        for name in above:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise ConfigError(f"option {option!r}: {name} of {where} is a value, not a mapping")
        try:
            place[last] = yaml.load(text, _Loader)  # noqa: S506 - as above
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"option {option!r}: the value cannot be read as YAML") from error
    return changed


def _copied(value: Any) -> Any:
    return {name: _copied(inner) for name, inner in value.items()} if isinstance(value, dict) else value

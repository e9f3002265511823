"""Recipe: everything besides the key that changes the numbers, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from featurestore.errors import RecipeError

MAX_DEPTH = 64  # of objects in objects; Python follows about a thousand


class Recipe:
    """An immutable JSON object; two recipes are equal when their canonical JSON is.

    `fingerprint` is the first 16 hex digits of the sha256 of the canonical JSON (UTF-8 unescaped,
    sorted keys, no spaces, finite numbers).  It covers exactly the dict that was given.

    Args:
        data: Everything besides the key that changes the numbers, as JSON types.

    Raises:
        RecipeError: Something does not survive JSON unchanged: other types, keys that are not strings, NaN, infinities,
            objects nested more than 64 deep.

    Example:
        >>> Recipe({"weights": "bar"}).fingerprint
        '9756228ba4896123'
    """

    __slots__ = ("canonical", "fingerprint")

    canonical: str
    fingerprint: str

    def __init__(self, data: Mapping[str, Any]) -> None:
        if not isinstance(data, Mapping):
            raise RecipeError(f"recipe is a {type(data).__name__}; it must be a mapping")
        plain = _plain(data, "recipe")
        canonical = json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
        try:
            digest = hashlib.sha256(canonical.encode()).hexdigest()
        except UnicodeEncodeError as error:
            raise RecipeError(f"recipe holds text that is not valid UTF-8: {error}") from None
        object.__setattr__(self, "canonical", canonical)
        object.__setattr__(self, "fingerprint", digest[:16])

    @classmethod
    def of(cls, value: Recipe | Mapping[str, Any]) -> Recipe:
        """Take a recipe as it is, and make one of a dict.

        Raises:
            RecipeError: The dict cannot be one.
        """
        return value if isinstance(value, Recipe) else cls(value)

    @property
    def data(self) -> dict[str, Any]:
        """A fresh copy as plain JSON types."""
        data: dict[str, Any] = json.loads(self.canonical)
        return data

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Recipe is immutable; make another one instead of setting {name!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.canonical == other.canonical

    def __hash__(self) -> int:
        return hash(self.canonical)

    def __repr__(self) -> str:
        return f"Recipe({self.data!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.data,)


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """JSON types only.  json.dumps alone would turn the key 1 into "1" and a subclass into its base."""
    if depth > MAX_DEPTH:
        raise RecipeError(f"a recipe is nested {MAX_DEPTH} deep at most: {where[:80]}... is deeper")
    if isinstance(value, Mapping):
        for key in value:
            if type(key) is not str:
                raise RecipeError(f"{where} has the key {key!r}; keys must be strings")
        return {key: _plain(item, f"{where}[{key!r}]", depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    if value is None or type(value) in (str, bool, int):
        return value
    if type(value) is float:
        if value - value != 0.0:
            raise RecipeError(f"{where} is {value!r}; a recipe holds finite numbers only")
        return value
    raise RecipeError(f"{where} is a {type(value).__name__}; a recipe holds only what JSON can")

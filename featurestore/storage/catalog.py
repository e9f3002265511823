"""Catalog: which recipes a store holds, and which of them a call means."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from featurestore.errors import AmbiguousRecipeError, RecipeError, UnknownRecipeError, near_names
from featurestore.features import Compute
from featurestore.key import FeatureKey
from featurestore.recipe import Recipe
from featurestore.storage.feature_set import FeatureSet, reading

logger = logging.getLogger("featurestore")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


class Catalog:
    """The feature sets of a store.

    Which recipe a call reads, in this order and never another: its `fingerprint=` (a unique prefix of at
    least 6 hex digits); the pin given to the store; the compute's; the only one; else
    AmbiguousRecipeError.
    """

    def __init__(self, root: Path, compute: Compute | None, pins: Mapping[str, str]) -> None:
        self.root = root
        self.compute = compute
        self.pins = pins
        self._own: dict[FeatureKey, Recipe] = {}
        self._feature_sets: dict[tuple[FeatureKey, str], FeatureSet] = {}
        self._nearest: dict[FeatureKey, FeatureKey | None] = {}
        self._resolved: dict[tuple[FeatureKey | str, str | None], FeatureSet] = {}

    def feature_set(self, key: FeatureKey | str, fingerprint: str | None = None) -> FeatureSet | None:
        """The recipe that a call means, or None where nothing is stored under the key."""
        feature_set = self._resolved.get((key, fingerprint))
        if feature_set is None:
            feature_set = self._resolve(as_key(key), fingerprint)
            if feature_set is not None:
                self._resolved[key, fingerprint] = feature_set
        return feature_set

    def own_recipe(self, key: FeatureKey) -> Recipe | None:
        """The compute's recipe, asked for once; None without a compute."""
        if self.compute is None:
            return None
        recipe = self._own.get(key)
        if recipe is None:
            recipe = self._own[key] = Recipe.of(self.compute.recipe(key))
        return recipe

    def exact(self, key: FeatureKey, fingerprint: str, recipe: Recipe | None = None) -> FeatureSet:
        """One recipe by its whole fingerprint, stored or not."""
        feature_set = self._feature_sets.get((key, fingerprint))
        if feature_set is None:
            # Of two threads the first one's: a second feature set would be one that `refresh` does not know.
            feature_set = self._feature_sets.setdefault(
                (key, fingerprint), FeatureSet(self.root, key, fingerprint, recipe)
            )
        return feature_set

    def left(self, key: FeatureKey, fingerprint: str | None) -> FeatureSet | None:
        """One recipe by its whole fingerprint, stored or not, of which records or files of writers are there."""
        if fingerprint is None or not _FINGERPRINT.fullmatch(fingerprint):
            return None
        feature_set = self.exact(key, fingerprint)
        return feature_set if feature_set.layout.housekeeping.is_dir() else None

    def fingerprints(self, key: FeatureKey) -> list[str]:
        """Of every recipe stored under a key, sorted."""
        with reading(key):
            return sorted(filter(_FINGERPRINT.fullmatch, _folders(self.root.joinpath("data", *key.parts))))

    def keys(self) -> list[FeatureKey]:
        """Every key with at least one recipe, sorted."""
        keys = []
        with reading(self.root):
            for path, parts in _walk(self.root / "data", 5):
                try:
                    key = FeatureKey.parse("/".join(parts))
                except ValueError:
                    continue  # not made by a store; `fstore verify` reports it
                if any(map(_FINGERPRINT.fullmatch, _folders(path))):
                    keys.append(key)
        return sorted(keys, key=str)

    def nearest(self, key: FeatureKey) -> FeatureKey | None:
        """A stored key that may have been meant by one that is not, e.g. after a typing error.  Remembered."""
        if key not in self._nearest:
            keys = {str(other): other for other in self.keys()}
            close = near_names(str(key), keys)
            self._nearest[key] = keys[close[0]] if close else None
        return self._nearest[key]

    def tell_if_mistyped(self, key: FeatureKey) -> None:
        """Log that a key with nothing under it looks like a misspelling of one that is stored.

        Names that differ in digits alone (mer2023, mer2024) are two names.
        """
        near = self.nearest(key)
        pairs = zip(key.parts, near.parts, strict=True) if near is not None else ()
        if near is not None and all(ours == theirs or _is_misspelt(ours, theirs) for ours, theirs in pairs):
            logger.warning("nothing is stored under %s in %s; did you mean %s?", key, self.root, near)

    def opened(self) -> list[FeatureSet]:
        """The feature sets that were used so far."""
        return list(self._feature_sets.values())

    def forget(self) -> None:
        """Decide anew which recipe a call means."""
        self._resolved.clear()
        self._nearest.clear()

    def _resolve(self, key: FeatureKey, fingerprint: str | None) -> FeatureSet | None:
        prefix = fingerprint if fingerprint is not None else self.pins.get(str(key))
        if prefix is not None:
            return self._named(key, prefix)
        own = self.own_recipe(key)
        if own is not None:
            return self.exact(key, own.fingerprint, own)
        stored = self.fingerprints(key)
        if len(stored) > 1:
            # A writer that was killed before its first commit leaves a recipe without rows.
            stored = [name for name in stored if self._has_rows(key, name)] or stored
        if len(stored) > 1:
            raise self._ambiguous(key, stored)
        return self.exact(key, stored[0]) if stored else None

    def _named(self, key: FeatureKey, prefix: str) -> FeatureSet:
        if len(prefix) < 6 or prefix.strip("0123456789abcdef"):
            raise RecipeError(f"recipe {prefix!r} is not a prefix of at least 6 hex digits of a fingerprint")
        stored = self.fingerprints(key)
        matches = [fingerprint for fingerprint in stored if fingerprint.startswith(prefix)]
        if len(matches) == 1:
            return self.exact(key, matches[0])
        # Only now, because a compute without its weights cannot say its recipe.
        own = self.own_recipe(key) if not matches else None
        if own is not None and own.fingerprint.startswith(prefix):
            return self.exact(key, own.fingerprint, own)
        what = "several recipes begin" if matches else "no recipe begins"
        raise UnknownRecipeError(f"{what} with {prefix!r} under {key}; stored: {', '.join(stored) or 'none'}")

    def _has_rows(self, key: FeatureKey, fingerprint: str) -> bool:
        reader = self.exact(key, fingerprint).reader
        with reading(key):
            return len(reader) > 0 or bool(reader.problems)

    def _ambiguous(self, key: FeatureKey, stored: Sequence[str]) -> AmbiguousRecipeError:
        lines = []
        for fingerprint in stored:
            feature_set = self.exact(key, fingerprint)
            origin = feature_set.recipe.data.get("origin", "computed")
            dates = [str(segment.header["made_with"].get("time", "?")) for segment in feature_set.reader.segments]
            lines.append(f"  {fingerprint[:8]}  {origin}  {len(feature_set.reader)} samples  {max(dates, default='?')}")
        return AmbiguousRecipeError(
            f"{key} is stored under {len(stored)} recipes:\n" + "\n".join(lines),
            advice="say which with fingerprint=, the first 6 or more of its digits",
            key=key,
            root=self.root,
        )


def as_key(key: FeatureKey | str) -> FeatureKey:
    """A key as it is, its text parsed."""
    return FeatureKey.parse(key) if isinstance(key, str) else key


def _is_misspelt(name: str, other: str) -> bool:
    close = difflib.SequenceMatcher(None, name.casefold(), other.casefold()).ratio() >= 0.85
    return close and re.sub(r"\d", "", name) != re.sub(r"\d", "", other)


def _folders(path: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _walk(path: Path, depth: int, parts: tuple[str, ...] = ()) -> Iterator[tuple[Path, tuple[str, ...]]]:
    if depth == 0:
        yield path, parts
        return
    for name in sorted(_folders(path)):
        yield from _walk(path / name, depth - 1, (*parts, name))

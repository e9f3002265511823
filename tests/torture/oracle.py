"""What a store must answer: every acknowledged value, bit for bit, and of an operation in flight all or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featurestore import FeatureKey, FeatureStore, Recipe
from featurestore.errors import FeatureStoreError, MissingFeatureError, UnknownRecipeError

KEY = FeatureKey("mer2023", "frame", "CLIP_VIT_LARGE", "uniform", 4)
ALL = FeatureKey("mer2023", "au", "CLIP_TEXT", "au_summary", "all")
RECIPE = Recipe({"weights": "torture", "layer": 1})
SECOND_RECIPE = Recipe({"weights": "torture", "layer": 2})
DIM = 8
AXES = {ALL: ("token", "feature")}  # of keys whose frames have more than one
ITEMS = {ALL: (2, 4)}
ABSENT = 0  # the version of an id that is not stored


def value(id: str, version: int, key: FeatureKey = KEY) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(n_frames, 8), under `all` (n_frames, 2, 4), that nothing else has: id and version can be read off the bits."""
    rows = key.n_frames if isinstance(key.n_frames, int) else 1 + (len(id) + version) % 3
    raw = hashlib.shake_128(f"{id}\0{version}".encode()).digest(rows * DIM)
    return np.frombuffer(raw, np.uint8).astype(np.float32).reshape(rows, *ITEMS.get(key, (DIM,)))


@dataclass(frozen=True)
class Op:
    """put | overwrite | delete | compact | gc | remove | get, of some ids; `version` is what is written."""

    name: str
    ids: tuple[str, ...] = ()
    version: int = ABSENT
    key: FeatureKey = KEY
    recipe: Recipe = RECIPE

    def run(self, store: FeatureStore) -> None:
        if self.name in ("put", "overwrite"):
            store.put_many(
                self.key,
                self.ids,
                [value(id, self.version, self.key) for id in self.ids],
                recipe=self.recipe,
                provenance=[{"version": self.version} for _ in self.ids],
                axes=AXES.get(self.key),
                overwrite=self.name == "overwrite",
            )
            return
        feature_set = store.feature_set(self.key, fingerprint=self.recipe.fingerprint)
        assert feature_set is not None
        if self.name == "delete":
            feature_set.delete(self.ids)
        elif self.name == "compact":
            feature_set.compact(grace_s=0)
        elif self.name == "gc":
            feature_set.gc(0)
        elif self.name == "remove":
            feature_set.remove()
        else:
            for id in self.ids:
                store.get(self.key, id, slice(0, None, 2), fingerprint=self.recipe.fingerprint)
                store.get(self.key, id, fingerprint=self.recipe.fingerprint)


class Oracle:
    """The versions that a store must hold, and those that it may hold while an operation is in doubt."""

    def __init__(self) -> None:
        self.held: dict[tuple[FeatureKey, Recipe], dict[str, int]] = {}
        self.doubt: Op | None = None
        self.acknowledged = 0
        self.merged: set[tuple[FeatureKey, Recipe]] = set()  # with nothing done since

    def begin(self, op: Op) -> None:
        assert self.doubt is None, "settle the operation before"
        self.doubt = op
        self.merged.discard((op.key, op.recipe))

    def done(self) -> None:
        """The operation was acknowledged."""
        assert self.doubt is not None
        self._of(self.doubt).update(self._after(self.doubt))
        if self.doubt.name == "compact":
            self.merged.add((self.doubt.key, self.doubt.recipe))
        self.acknowledged += len(self.doubt.ids) if self.doubt.name in ("put", "overwrite") else 0
        self.doubt = None

    def settle(self, root: Path, store: FeatureStore | None = None) -> list[str]:
        """What is lost or wrong in the store at `root`, read by a new object.  Afterwards nothing is in doubt."""
        store = store or FeatureStore(root)
        found: list[str] = []
        observed = {place: self._read(store, *place, found) for place in self.places()}
        for place, versions in observed.items():
            before, after = self.held.get(place, {}), {}
            if self.doubt is not None and place == (self.doubt.key, self.doubt.recipe):
                after = self._after(self.doubt)
            changed = {id for id in after if versions.get(id, ABSENT) != before.get(id, ABSENT)}
            for id, version in versions.items():
                if version not in (before.get(id, ABSENT), after.get(id, before.get(id, ABSENT))):
                    found.append(f"{place[0]} {id}: version {version}, not {before.get(id)} or {after.get(id)}")
            if changed:  # one segment holds all rows of a put
                missed = {id for id in after if versions.get(id, ABSENT) != after[id]}
                if missed:
                    found.append(f"{place[0]}: {self.doubt} applies to {sorted(changed)} and not to {sorted(missed)}")
            self.held[place] = {id: version for id, version in versions.items() if version is not None}
        self.doubt = None
        return found

    def places(self) -> set[tuple[FeatureKey, Recipe]]:
        return set(self.held) | ({(self.doubt.key, self.doubt.recipe)} if self.doubt else set())

    def _of(self, op: Op) -> dict[str, int]:
        return self.held.setdefault((op.key, op.recipe), {})

    def _after(self, op: Op) -> dict[str, int]:
        if op.name in ("put", "overwrite"):
            return dict.fromkeys(op.ids, op.version)
        ids = self._of(op) if op.name == "remove" else op.ids
        return dict.fromkeys(ids, ABSENT) if op.name in ("delete", "remove") else {}

    def _read(self, store: FeatureStore, key: FeatureKey, recipe: Recipe, found: list[str]) -> dict[str, int]:
        """The version of every id that was ever named, by get of some frames and of all, get_many, get_features and
        ids, which must agree."""
        ids = sorted(self.held.get((key, recipe), {}))
        if self.doubt is not None and (self.doubt.key, self.doubt.recipe) == (key, recipe):
            ids = sorted({*ids, *self.doubt.ids})
        versions: dict[str, int] = {}
        arrays = {}
        for id in ids:
            try:
                some = store.get(key, id, [0], fingerprint=recipe.fingerprint)  # before any of it was checked
                arrays[id] = store.get(key, id, fingerprint=recipe.fingerprint)
                assert np.array_equal(some, arrays[id][:1]), f"{id}: its first frame differs from that of the whole"
                versions[id] = version_of(store, key, recipe, id, arrays[id])
            except (MissingFeatureError, UnknownRecipeError):
                versions[id] = ABSENT
            except (FeatureStoreError, AssertionError) as error:
                found.append(f"{key} {id}: {type(error).__name__}: {error}")
        if not arrays:
            return versions
        present = sorted(arrays)
        try:
            batch = store.get_ragged(key, present, fingerprint=recipe.fingerprint)
            array = store.get_many(key, present, fingerprint=recipe.fingerprint) if key.n_frames != "all" else batch
        except FeatureStoreError as error:  # of a broken writer that is still at work on the store
            found.append(f"{key}: get_many does not find what get found: {type(error).__name__}: {error}")
            return versions
        for name, many in (("get_many", array), ("get_ragged", batch)):
            if not all(np.array_equal(one, arrays[id]) for one, id in zip(many, present, strict=True)):
                found.append(f"{key}: {name} differs from get")
        feature_set = store.feature_set(key, fingerprint=recipe.fingerprint)
        assert feature_set is not None
        listed = [id for id in feature_set.reader.ids() if id in versions]
        if listed != present:
            found.append(f"{key}: ids() lists {listed}, get finds {present}")
        found += [f"{key}: {name}: {why}" for name, why in feature_set.reader.problems.items()]
        return versions


def version_of(store: FeatureStore, key: FeatureKey, recipe: Recipe, id: str, values: np.ndarray[Any, Any]) -> int:
    """The version whose bits these are; the line of the row must say the same."""
    version = store.get_features(key, id, fingerprint=recipe.fingerprint).provenance
    assert version is not None
    number = int(version["version"])
    assert np.array_equal(values, value(id, number, key)), f"{id}: its bits are not those of version {number}"
    return number


def run(store: FeatureStore, oracle: Oracle, ops: Sequence[Op]) -> None:
    """Each operation acknowledged to the oracle as it returns."""
    for op in ops:
        oracle.begin(op)
        op.run(store)
        oracle.done()

"""Parity: compare stored frame features with what this run would compute, and keep what was found."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from affect_infer.run.certificate import Certificate, write_certificate
from affect_infer.run.hybrid import make_extractor
from affect_infer.settings.settings import Settings, Task
from featurestore.compute.extractor import Extractor
from featurestore.errors import ConfigError, InputError, MissingFeatureError
from featurestore.features import Failure, Features
from featurestore.key import FeatureKey
from featurestore.quality.compare import bound, farthest
from featurestore.recipe import Recipe
from featurestore.store import FeatureStore


def certify(settings: Settings, samples: int) -> list[tuple[Certificate, Path]]:
    """One certificate per dataset and stored recipe, written beside the features.

    samples   how many stored samples are computed again and compared; chosen by chance, the same each time
    Without `frame_recipe` every stored recipe but the run's own is compared, and that one where it is alone.
    Raises MissingFeatureError where nothing is stored, InputError where nothing could be computed.
    """
    found = []
    with make_extractor(settings) as extractor:
        for task in settings.tasks:
            key = task.keys.get("frame")
            if key is None:
                raise ConfigError(f"mode {task.mode.name} of {task.name} has no frames: there is nothing to compare")
            own = Recipe.of(extractor.recipe(key))
            for recipe in _recipes(task, key, settings.frame_recipe, own.fingerprint):
                certificate = _compare(task, key, recipe, own, extractor, samples)
                found.append((certificate, write_certificate(task.store, key, certificate)))
    return found


def _recipes(task: Task, key: FeatureKey, asked: str | None, own: str) -> list[str]:
    store = FeatureStore(task.store)
    held = [name for name in store.recipes(key) if store.ids(key, fingerprint=name)]
    chosen = [name for name in held if (name.startswith(asked) if asked else name != own)]
    if not chosen and not asked:
        chosen = held
    if not chosen:
        raise MissingFeatureError(
            f"nothing is stored under {key}{'@' + asked if asked else ''} in {task.store}: extract or import it first",
            advice="`FeatureStore.keys` lists what is",
            key=key,
            root=task.store,
        )
    return chosen


def _compare(task: Task, key: FeatureKey, recipe: str, own: Recipe, extractor: Extractor, samples: int) -> Certificate:
    store = FeatureStore(task.store)
    ids = [id for id in store.ids(key, fingerprint=recipe) if id in task.samples]
    chosen = sorted(random.Random(0).sample(ids, min(samples, len(ids))))
    made = dict(extractor(key, chosen))
    failed = {id: outcome for id, outcome in made.items() if isinstance(outcome, Failure)}
    good = [id for id in chosen if id not in failed]
    if not good:
        why = f"e.g. {next(iter(failed.values())).message}" if failed else "none of the stored ids is in the dataset"
        raise InputError(f"no stored sample of {key}@{recipe[:8]} could be computed again: {why}")
    pairs = [(store.get_features(key, id, fingerprint=recipe), made[id]) for id in good]
    both = [(stored, computed) for stored, computed in pairs if isinstance(computed, Features)]
    for stored, computed in both:
        if stored.values.shape != computed.values.shape:
            raise InputError(
                f"{key}@{recipe[:8]} has rows of {stored.values.shape}, computed ones are {computed.values.shape}: "
                "these are features of another encoder"
            )
    require_finite(both)
    dtypes = [features.values.dtype for pair in both for features in pair]
    off = farthest((one.values, other.values) for one, other in both)
    same = _same_rows(both)
    tolerance = _tolerance(own, store.recipes(key)[recipe], dtypes)
    return Certificate(
        key=str(key),
        stored=recipe,
        computed=own.fingerprint,
        dtype="float16" if np.float16 in dtypes else "float32",
        samples=len(both),
        max_abs=off.max_abs,
        scale=off.scale,
        min_cosine=off.cosine,
        same_rows=same,
        tolerance=tolerance,
        may_mix=same and off.within(tolerance),
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def require_finite(pairs: Sequence[tuple[Features, Features]]) -> None:
    """InputError where a value is not finite: NaN is neither larger nor smaller than any tolerance."""
    if not all(np.isfinite(features.values).all() for pair in pairs for features in pair):
        raise InputError("rows to be compared hold NaN or infinities: verify the store in full, which names them")


def _tolerance(own: Recipe, stored: Recipe, dtypes: Sequence[np.dtype[Any]]) -> float:
    """What rounding explains in the more exact of two recipes; imported ones do not say what they were computed in."""
    said = [recipe.data for recipe in (own, stored) if "compute_dtype" in recipe.data] or [own.data]
    return min(bound(data, *dtypes) for data in said)


def _same_rows(pairs: Sequence[tuple[Features, Features]]) -> bool:
    """False where both sides say which frames they took, and those differ; imported rows do not say."""
    for stored, computed in pairs:
        if stored.frame_indices is None or computed.frame_indices is None:
            continue
        if not np.array_equal(stored.frame_indices, computed.frame_indices):
            return False
    return True

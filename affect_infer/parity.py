"""Parity: compare stored frame features with what this run would compute, and keep what was found."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from affect_infer.certificate import TOLERANCES, Certificate, compare, write_certificate
from affect_infer.config import Settings, Task
from affect_infer.run import make_extractor
from featurestore.errors import ConfigError, InputError, MissingFeatureError
from featurestore.extractor import Extractor
from featurestore.features import Failure, Features
from featurestore.key import FeatureKey
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
            own = Recipe.of(extractor.recipe(key)).fingerprint
            for recipe in _recipes(task, key, settings.frame_recipe, own):
                certificate = _compare(task, key, recipe, own, extractor, samples)
                found.append((certificate, write_certificate(task.store, key, certificate)))
    return found


def _recipes(task: Task, key: FeatureKey, asked: str | None, own: str) -> list[str]:
    store = FeatureStore(task.store)
    held = [name for name in store.recipes(key) if store.ids(key, recipe=name)]
    chosen = [name for name in held if (name.startswith(asked) if asked else name != own)]
    if not chosen and not asked:
        chosen = held
    if not chosen:
        raise MissingFeatureError(
            f"nothing is stored under {key}{'@' + asked if asked else ''} in {task.store}; run `fstore extract` or "
            "`fstore import` first"
        )
    return chosen


def _compare(task: Task, key: FeatureKey, recipe: str, own: str, extractor: Extractor, samples: int) -> Certificate:
    store = FeatureStore(task.store)
    ids = [id for id in store.ids(key, recipe=recipe) if id in task.samples]
    chosen = sorted(random.Random(0).sample(ids, min(samples, len(ids))))
    made = dict(extractor(key, chosen))
    failed = {id: outcome for id, outcome in made.items() if isinstance(outcome, Failure)}
    good = [id for id in chosen if id not in failed]
    if not good:
        why = f"e.g. {next(iter(failed.values())).message}" if failed else "none of the stored ids is in the dataset"
        raise InputError(f"no stored sample of {key}@{recipe[:8]} could be computed again: {why}")
    pairs = [(store.get_features(key, id, recipe=recipe), made[id]) for id in good]
    both = [(stored, computed) for stored, computed in pairs if isinstance(computed, Features)]
    for stored, computed in both:
        if stored.values.shape != computed.values.shape:
            raise InputError(
                f"{key}@{recipe[:8]} has rows of {stored.values.shape}, computed ones are {computed.values.shape}: "
                "these are features of another encoder"
            )
    half = any(features.values.dtype == np.float16 for pair in both for features in pair)
    dtype = "float16" if half else "float32"
    max_abs, scale, cosine = compare([one.values for one, _ in both], [other.values for _, other in both])
    same = _same_rows(both)
    tolerance = TOLERANCES[dtype]
    return Certificate(
        key=str(key),
        stored=recipe,
        computed=own,
        dtype=dtype,
        samples=len(both),
        max_abs=max_abs,
        scale=scale,
        min_cosine=cosine,
        same_rows=same,
        tolerance=tolerance,
        may_mix=same and max_abs <= tolerance * scale,
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _same_rows(pairs: Sequence[tuple[Features, Features]]) -> bool:
    """False where both sides say which frames they took, and those differ; imported rows do not say."""
    for stored, computed in pairs:
        if stored.frame_indices is None or computed.frame_indices is None:
            continue
        if not np.array_equal(stored.frame_indices, computed.frame_indices):
            return False
    return True

"""Some samples made again, and compared with what is stored."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from featurestore.errors import ConfigError
from featurestore.features import Compute, Failure, Features
from featurestore.quality.compare import bound, distance
from featurestore.quality.findings import Findings
from featurestore.recipe import Recipe
from featurestore.storage.feature_set import FeatureSet

ADVICE = "find out which is right; `store.delete(key, [id])` removes it, then extract makes it again"


def check_again(feature_set: FeatureSet, compute: Compute, ids: Sequence[str], where: str, findings: Findings) -> None:
    """Make samples again under the same recipe; values may differ by rounding, frames not at all."""
    answers = dict(compute(feature_set.key, ids))
    for id in ids:
        made = answers.get(id)
        if made is None:
            advice = "the code that computes leaves samples out: mend it, then run this again"
            findings.add("not_made", where, "no answer for it", id, advice=advice)
            continue
        if isinstance(made, Failure):
            findings.add("not_made", where, f"{made.reason}: {made.message}", id, advice="are its media still there?")
            continue
        found = feature_set.reader.find(id)
        stored = feature_set.reader.get(id)
        if found is None or stored is None:
            continue  # removed by another process meanwhile
        frames = found[0].line(found[1]).get("frame_indices")
        what = difference(stored, frames, made, bound(feature_set.recipe.data, stored.dtype))
        if what is not None:
            findings.add("differs", where, what, id, advice=ADVICE, key=feature_set.key)


def choose(feature_set: FeatureSet, samples: Mapping[str, Any], count: int) -> list[str]:
    """Up to `count` stored samples of the source, at random."""
    ids = [id for id in feature_set.reader.ids() if id in samples]
    return sorted(random.sample(ids, min(count, len(ids))))


def difference(stored: NDArray[Any], frames: list[int] | None, made: Features, allowed: float) -> str | None:
    """What differs, or None."""
    if frames is not None and made.frame_indices is not None and frames != made.frame_indices.tolist():
        return f"other frames: {made.frame_indices.tolist()}, stored {frames}"
    if made.values.shape != stored.shape:
        return f"other shape: {made.values.shape}, stored {stored.shape}"
    off = distance(stored, made.values)
    if off.within(allowed):
        return None
    return f"values differ by up to {off.relative:.2g} of the largest, allowed are {allowed:.2g}"


def require_same_recipe(feature_set: FeatureSet, own: Recipe) -> None:
    """ConfigError that says what the settings given here change."""
    if own.fingerprint != feature_set.fingerprint:
        raise ConfigError(
            f"{feature_set.key}@{feature_set.fingerprint[:8]} cannot be made again with these settings: "
            f"{'; '.join(differences(feature_set.recipe.data, own.data))}"
        )


def differences(stored: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`weights.digest is 'x' in the store and 'y' here` for every leaf that differs."""
    found = []
    for name in sorted({*stored, *here}):
        ours, theirs = stored.get(name), here.get(name)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            found += differences(ours, theirs, f"{prefix}{name}.")
        elif ours != theirs:
            found.append(f"{prefix}{name} is {ours!r} in the store and {theirs!r} here")
    return found

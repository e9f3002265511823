"""Absence: what to say of samples that cannot be had, as the errors that reads raise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from featurestore.errors import CorruptSegmentError, FailedSampleError, FailedSamplesError, MissingFeatureError
from featurestore.features import Failure
from featurestore.key import FeatureKey
from featurestore.storage.failures import FailureRecord
from featurestore.storage.feature_set import FeatureSet


def failure_of(
    feature_set: FeatureSet,
    failed: Mapping[str, FailureRecord | Failure],
    asked: int,
    one: bool,
    good: Mapping[str, NDArray[Any]] | None = None,
) -> Exception:
    """What to raise for samples that cannot be made; `one` where a single one was asked for, not a batch."""
    key = feature_set.key
    id, first = next(iter(failed.items()))
    why, advice = f"{first.message}; it may work when tried again", ""
    if isinstance(first, FailureRecord):
        why, advice = first.message, f"`featurestore.extract(store, {str(key)!r}, retry=True)` tries again"
    facts: dict[str, Any] = {"advice": advice, "key": key, "ids": failed, "root": feature_set.layout.root}
    if one:
        return FailedSampleError(f"sample {id!r} of {key} cannot be made: {why}", first, **facts)
    return FailedSamplesError(
        f"{len(failed)} of {asked} samples of {key} cannot be made, the others are stored; e.g. {id!r}: {why}",
        failed,
        good,
        **facts,
    )


def absence(
    root: Path,
    key: FeatureKey | str,
    ids: Sequence[str],
    feature_set: FeatureSet | None,
    meant: FeatureKey | None = None,
) -> Exception:
    """What to raise for samples that are not stored and cannot be computed here; `meant`: a stored key that is near."""
    count = f"sample {ids[0]!r} is" if len(ids) == 1 else f"{len(ids)} samples, e.g. {ids[0]!r}, are"
    where = f"{key}@{feature_set.fingerprint[:8]}" if feature_set is not None else str(key)
    # A copy: another thread may find them repaired meanwhile.
    problems = dict(feature_set.reader.problems) if feature_set is not None else {}
    if feature_set is not None and problems:
        name, why = next(iter(problems.items()))
        number = len(problems)
        return CorruptSegmentError(
            f"{count} not to be had under {where} in {root}: {number} segment{'s are' if number > 1 else ' is'} "
            f"damaged, e.g. {name}: {why}",
            key=key,
            ids=ids,
            root=root,
        )
    dataset = str(key).partition("/")[0]
    hint = f" (nothing is; did you mean {meant}?)" if meant is not None else ""
    return MissingFeatureError(
        f"{count} not stored under {where} in {root}{hint}, and this store has no compute for it",
        advice=f"open it with one: `FeatureStore({str(root)!r}, compute=Extractor({{{dataset!r}: samples}}))`",
        key=key,
        ids=ids,
        root=root,
    )

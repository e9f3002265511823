"""Absence: what to say of samples that cannot be had, as the errors that reads raise."""

from __future__ import annotations

import shlex
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
    advice = "it may work when tried again"
    if isinstance(first, FailureRecord):
        advice = (
            f"`fstore retry {key} --manifest FILE.csv --store {shlex.quote(str(feature_set.layout.root))}` tries again"
        )
    if one:
        return FailedSampleError(f"sample {id!r} of {key} cannot be made: {first.message}; {advice}", first)
    return FailedSamplesError(
        f"{len(failed)} of {asked} samples of {key} cannot be made, the others are stored; "
        f"e.g. {id!r}: {first.message}; {advice}",
        failed,
        good,
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
            f"damaged, e.g. {name}: {why}; run `fstore verify {key} --store {shlex.quote(str(root))} --full --repair`"
        )
    hint = f" (nothing is; did you mean {meant}?)" if meant is not None else ""
    return MissingFeatureError(
        f"{count} not stored under {where} in {root}{hint}, and this store has no compute for it; run "
        f"`fstore extract {key} --manifest FILE.csv --store {shlex.quote(str(root))}`"
    )

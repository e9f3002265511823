"""Verification: what is wrong with a store, asked from Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from featurestore.errors import ConfigError
from featurestore.key import FeatureKey
from featurestore.quality.findings import Finding
from featurestore.quality.store_check import check_store
from featurestore.sample import Sample
from featurestore.storage.catalog import as_key
from featurestore.store import FeatureStore


def verify(
    store: FeatureStore,
    keys: FeatureKey | str | Iterable[FeatureKey | str] | None = None,
    samples: Mapping[str, Sample] | Mapping[str, Mapping[str, Sample]] | None = None,
    full: bool = False,
) -> list[Finding]:
    """Say what is wrong with a store, or with some of its keys, and what to do about it.  Changes nothing.

    Args:
        store: The store; nothing of it is computed.
        keys: A key, its text, or several; by default everything.
        samples: {id: Sample} of the one dataset that the keys are of, or {dataset: {id: Sample}}.  With them coverage
            is checked in both directions, and whether samples were made of other files than these.
        full: Read every byte and look at every value; else one look at the documents of each segment.

    Returns:
        The findings; none where nothing is wrong.

    Raises:
        ConfigError: `samples` are {id: Sample}, and the keys are of several datasets.

    Example:
        >>> for finding in verify(store, samples=read_manifest("mine.csv"), full=True):         # doctest: +SKIP
        ...     print(finding)
    """
    asked = None
    if keys is not None:
        asked = [as_key(key) for key in ([keys] if isinstance(keys, FeatureKey | str) else keys)]
        if not asked:
            return []
    sources = _by_dataset(samples or {}, store.keys() if asked is None else asked)
    return check_store(store.root, dict.fromkeys(asked or ()), sources=sources, full=full).findings


def _by_dataset(samples: Mapping[str, Any], keys: Iterable[FeatureKey]) -> dict[str, Any]:
    """{dataset: {id: Sample}}."""
    if not any(isinstance(one, Sample) for one in samples.values()):
        return dict(samples)
    names = sorted({key.dataset for key in keys})
    if len(names) != 1:
        raise ConfigError(
            f"the samples are of one dataset, and the keys of {', '.join(names) or 'none'}: "
            "pass {dataset: samples}, or the keys to verify"
        )
    return {names[0]: samples}

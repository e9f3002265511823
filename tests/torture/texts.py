"""A dataset of texts: the one modality that needs no decode workers, so that an extraction starts in milliseconds."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from encoders_odd import NAME, row_of

from featurestore import Extractor, FeatureKey, FeatureStore
from featurestore.compute.extraction import ExtractionReport, extract
from featurestore.sample import Sample

KEY = FeatureKey("talk", "au", NAME, "au_summary", "all")


def texts_of(id: str) -> list[str]:
    """One to three of them."""
    return [f"{id} {number}" for number in range(1 + len(id) % 3)]


def write_texts(folder: Path, count: int) -> dict[str, Sample]:
    """Samples with a file of descriptions each."""
    folder.mkdir()
    samples = {}
    for number in range(count):
        id = f"s{number}" + "x" * (number % 5)
        path = folder / f"{id}.json"
        frames = {str(frame): text for frame, text in enumerate(texts_of(id), 1)}
        path.write_text(json.dumps({"fine_grained_descriptions": frames}))
        samples[id] = Sample(id, au_json=path)
    return samples


def make(
    root: Path,
    samples: dict[str, Sample],
    log: Path,
    progress: Callable[[int], object] = lambda count: None,
    weights: str | None = None,
) -> ExtractionReport:
    """Extract all of them in this process."""
    os.environ["ENCODE_LOG"] = str(log)
    with Extractor({"talk": samples}, workers=1, batch_size=4, weights={NAME: weights} if weights else None) as made:
        return extract(FeatureStore(root, compute=made), KEY, list(samples), progress=progress)


def job(root: Path, samples: dict[str, Sample], log: Path, **options: Any) -> Callable[[], ExtractionReport]:
    return functools.partial(make, root, samples, log, **options)


def wrong(root: Path, ids: Iterable[str], weights: str = "") -> list[str]:
    """Stored samples whose values are not those of their texts."""
    store = FeatureStore(root)
    return [
        id
        for id in store.available(KEY, ids)
        if not np.array_equal(store.get(KEY, id), np.stack([row_of(text, weights) for text in texts_of(id)]))
    ]


def encoded(log: Path) -> list[str]:
    """Texts in the order in which they were encoded."""
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []

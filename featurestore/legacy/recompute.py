"""Make a few imported samples again from their media, and measure how far they are from what was imported."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.errors import FeatureStoreError, LegacyTreeError
from featurestore.extractor import Extractor
from featurestore.features import Compute, Failure
from featurestore.key import FeatureKey
from featurestore.legacy.findings import Findings
from featurestore.legacy.intake import open_folder
from featurestore.legacy.npy import read_npy
from featurestore.legacy.sources import Sources
from featurestore.legacy.tree import FeatureFolder, scan_tree
from featurestore.samplers import get_sampler

SAME = 0.999
"""cosine of a row and its counterpart; float16 encoding and another decoder stay above it, another frame does not"""


@dataclass(frozen=True, slots=True)
class Match:
    """One sample made again."""

    folder: str
    id: str
    max_abs: float | None = None
    """largest absolute difference of a value"""
    cosine: float | None = None
    """the smallest over the rows"""
    problem: str | None = None
    """why there is nothing to compare"""

    @property
    def good(self) -> bool:
        return self.cosine is not None and self.cosine >= SAME

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def recompute_tree(
    root: str | Path,
    sources: Sources,
    count: int,
    *,
    dataset: str | None = None,
    only: tuple[str, ...] = (),
    sampling: str | None = None,
    weights: str | None = None,
    device: str | None = None,
) -> list[Match]:
    """Make `count` random samples of each folder again, of those whose media `sources` knows.

    sampling         another than the folder says: what is called emotion_peak may be emotion_peak_fork
    weights, device  as `Extractor` takes them
    Which samples are chosen depends on the ids alone, so that running it again compares the same ones.
    A folder of which nothing can be made has one match, of id "-", that says why.
    """
    matches: list[Match] = []
    for folder in scan_tree(root, Findings(), dataset, only).folders:
        if folder.key.modality == "multi":
            continue  # fused vectors depend on a checkpoint, which nobody recorded
        key = _key(folder, sampling)
        found: list[Match] = []
        try:
            samples = sources.samples(folder)
            if samples is None:
                continue
            ids = choose([id for id in open_folder(folder, Findings()).ids if id in samples], count)
            weights_of = {key.encoder: weights} if weights else {}
            with Extractor({key.dataset: samples}, weights=weights_of, device=device) as compute:
                found.extend(recompute(folder, key, ids, compute))
        except FeatureStoreError as error:  # no weights of one encoder, no media of one dataset: the others have theirs
            found.append(Match(folder.name, "-", problem=str(error)))
        # Made in any order, as workers are ready.
        matches += sorted(found, key=lambda match: match.id)
    return matches


def check_recompute(
    root: str | Path,
    *,
    dataset: str | None = None,
    only: tuple[str, ...] = (),
    sampling: str | None = None,
    weights: str | None = None,
    device: str | None = None,
) -> None:
    """Raise what keeps every folder from being made again, such as UnknownSamplerError or WeightsNotFoundError.

    For before a long import.  What concerns some folders only is for `recompute_tree` to report.
    """
    if sampling is not None:
        get_sampler(sampling)
    problems = []
    for folder in scan_tree(root, Findings(), dataset, only).folders:
        if folder.key.modality == "multi":
            continue
        key = _key(folder, sampling)
        try:
            with Extractor({}, weights={key.encoder: weights} if weights else {}, device=device) as compute:
                compute.recipe(key)
        except FeatureStoreError as error:
            problems.append(error)
        else:
            return
    if problems:
        raise problems[0]


def _key(folder: FeatureFolder, sampling: str | None) -> FeatureKey:
    return dataclasses.replace(folder.key, sampling=sampling) if sampling else folder.key


def choose(ids: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """`count` of the ids at random, the same for the same seed, in order."""
    return sorted(random.Random(seed).sample(sorted(ids), min(count, len(ids))))


def recompute(folder: FeatureFolder, key: FeatureKey, ids: Sequence[str], compute: Compute) -> Iterator[Match]:
    """Compare files of a folder with what `compute` makes of the same samples under `key`."""
    for id, made in compute(key, ids):
        if isinstance(made, Failure):
            yield Match(folder.name, id, problem=made.message)
            continue
        try:
            old = read_npy(folder.path / f"{id}.npy").astype(np.float64)
        except LegacyTreeError as error:
            yield Match(folder.name, id, problem=f"the file {error}")
            continue
        new = np.asarray(made.values, np.float64)
        if old.shape != new.shape:
            yield Match(folder.name, id, problem=f"imported {old.shape}, made again {new.shape}")
            continue
        length = np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)
        cosine = np.divide((old * new).sum(axis=1), length, out=np.zeros(len(old)), where=length > 0)
        yield Match(folder.name, id, float(np.abs(old - new).max()), float(cosine.min()))

"""Make a few imported samples again from their media, and measure how far they are from what was imported."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.affectgpt.intake import open_folder
from featurestore.affectgpt.npy import read_npy
from featurestore.affectgpt.sources import Sources
from featurestore.affectgpt.tree import FeatureFolder, scan_tree
from featurestore.compute.extractor import Extractor
from featurestore.errors import FeatureStoreError, LegacyTreeError
from featurestore.features import Compute, Failure
from featurestore.key import FeatureKey
from featurestore.quality.compare import alike, distance
from featurestore.quality.findings import Findings
from featurestore.samplers import get_sampler


@dataclass(frozen=True, slots=True)
class Match:
    """One sample made again."""

    folder: str
    id: str
    max_abs: float | None = None
    """largest absolute difference of a value"""
    cosine: float | None = None
    """the smallest over the rows"""
    length: float | None = None
    """the largest ratio of a row's length and that of its counterpart, the longer by the shorter"""
    problem: str | None = None
    """why there is nothing to compare"""

    @property
    def good(self) -> bool:
        """Whether another decoder, or computing in half precision, explains the difference."""
        return self.cosine is not None and self.length is not None and alike(self.cosine, self.length)

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
    answers = dict(compute(key, ids))
    for id in ids:
        made = answers.get(id, Failure("encoding", "the code that computes did not answer for it"))
        if isinstance(made, Failure):
            yield Match(folder.name, id, problem=made.message)
            continue
        try:
            old = read_npy(folder.path / f"{id}.npy")
        except LegacyTreeError as error:
            yield Match(folder.name, id, problem=f"the file {error}")
            continue
        new = made.values
        if old.shape != new.shape:
            yield Match(folder.name, id, problem=f"imported {old.shape}, made again {new.shape}")
            continue
        off = distance(old, new)
        yield Match(folder.name, id, off.max_abs, off.cosine, off.length)

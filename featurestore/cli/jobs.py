"""Jobs: what one `fstore extract` is to make, by a key, by a settings file, or for all test sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.hints import message_of
from featurestore.cli.options import SamplesFrom, read_key

if TYPE_CHECKING:  # they cost more than the whole of `fstore --help`
    from featurestore.key import FeatureKey
    from featurestore.sample import Sample


@dataclass(frozen=True)
class Job:
    """One key with the samples it is to be made of."""

    key: FeatureKey
    prefix: str | None
    """of the recipe that the settings must make, or None"""
    store: Path
    samples: Mapping[str, Sample]
    more: tuple[str, ...] = ()
    """words that a line for this key alone needs besides what was given"""

    @property
    def name(self) -> str:
        """The key as a line names it."""
        return f"{self.key}@{self.prefix}" if self.prefix else str(self.key)


@dataclass(frozen=True)
class Jobs:
    """What is to be made, and what cannot even be begun."""

    jobs: list[Job]
    absent: dict[str, str]
    """dataset -> why its samples cannot be listed"""
    device: str | None = None


def of_key(text: str, store: Path, samples_from: SamplesFrom) -> Jobs:
    """`KEY --manifest FILE` or `KEY --dataset NAME --root DIR`."""
    key, prefix = read_key(text, store)
    return Jobs([Job(key, prefix, store, samples_from.require(key.dataset))], {})


def of_config(path: Path, store: Path | None, samples_from: SamplesFrom) -> Jobs:
    """`--config FILE.yaml`: every modality that the file says is to be stored, of each of its datasets."""
    from featurestore.affectgpt.guide import read_guide
    from featurestore.datasets import resolve_dataset
    from featurestore.errors import FeatureStoreError

    if samples_from.manifest is not None or samples_from.mer_factory is not None:
        raise click.UsageError("a settings file says which samples: --manifest and --mer-factory do not go with it")
    asked = [] if samples_from.dataset is None else [samples_from.dataset]
    guide = read_guide(path, datasets=asked if samples_from.root is not None else ()).check()
    wanted = None if samples_from.dataset is None else resolve_dataset(samples_from.dataset).name
    jobs, absent = [], {}
    for name, entry in guide.datasets.items():
        stored = [key for modality, key in entry.keys.items() if entry.policies[modality] == "store"]
        if not stored or wanted not in (None, name):
            continue
        place = store or entry.store
        assert place is not None  # a file that stores something without saying where contradicts itself
        try:
            samples = entry.samples(samples_from.root, samples_from.split)
        except FeatureStoreError as error:
            absent[name] = message_of(error)
        else:
            more = ("--dataset", name, *(() if samples_from.root else ("--root", "DIR")))
            more += () if store else ("--store", str(place))
            jobs += [Job(key, None, place, samples, more) for key in stored]
    if not jobs and not absent:
        if not guide.datasets:
            raise click.UsageError(f"{path} has no datasets: add --dataset NAME --root DIR")
        which = ", ".join(guide.datasets) if wanted is None else str(samples_from.dataset)
        raise click.UsageError(
            f"{path} has nothing to store of {which}: neither use_preextracted_features nor use_preextracted_frame, "
            "..._face, ..._audio or ..._au is True for an input of its mode"
        )
    return Jobs(jobs, absent, guide.device)


def of_all_datasets(text: str, store: Path, samples_from: SamplesFrom) -> Jobs:
    """`MODALITY/ENCODER/SAMPLING/N_FRAMES --all-datasets --root DIR`: the nine test sets of MER-UniBench."""
    from featurestore.datasets import load_dataset, resolve_dataset, unibench_names
    from featurestore.errors import FeatureStoreError

    if samples_from.root is None or samples_from.manifest is not None or samples_from.dataset is not None:
        raise click.UsageError("--all-datasets needs --root DIR, the folder with those of all datasets, and no other")
    if text.count("/") != 3:
        raise click.UsageError(f"with --all-datasets KEY is MODALITY/ENCODER/SAMPLING/N_FRAMES, not {text!r}")
    jobs, absent = [], {}
    for dataset in map(resolve_dataset, unibench_names()):
        try:
            samples = load_dataset(dataset, samples_from.root, samples_from.split, samples_from.mer_factory)
        except FeatureStoreError as error:
            absent[dataset.name] = message_of(error)
        else:
            key, prefix = read_key(f"{dataset.name}/{text}", store)
            jobs.append(Job(key, prefix, store, samples, ("--dataset", dataset.name)))
    return Jobs(jobs, absent)

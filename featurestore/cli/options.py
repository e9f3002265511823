"""Options and arguments that several commands share, and what they are turned into."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:  # each costs more than the whole of `fstore --help`
    from featurestore.key import FeatureKey
    from featurestore.samples import Sample

ROOT_VARIABLE = "FEATURESTORE_ROOT"

store_option = click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: Path(os.environ.get(ROOT_VARIABLE) or "features"),
    metavar="DIR",
    help=f"The store.  [default: ${ROOT_VARIABLE}, else ./features]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def ids_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """`[ID]...` and `--ids-from FILE`; the body turns both into one list with `gather_ids`."""
    command = click.option(
        "--ids-from",
        type=click.Path(exists=True, dir_okay=False, allow_dash=True),
        metavar="FILE",
        help="One id per line; - is standard input.",
    )(command)
    return click.argument("ids", nargs=-1, metavar="[-- ID...]")(command)


def gather_ids(ids: Sequence[str], ids_from: str | None) -> list[str]:
    """Ids from the line and from a file, each once, in the order given.  InvalidIdError names a bad one."""
    from featurestore.key import check_id

    found = list(ids)
    if ids_from is not None:
        raw = sys.stdin.buffer.read() if ids_from == "-" else Path(ids_from).read_bytes()
        # Ids are never normalised: only the ends of lines are taken off, not spaces.
        found += [line for line in raw.decode("utf-8-sig", "surrogateescape").splitlines() if line]
    return list(dict.fromkeys(check_id(id) for id in found))


def bundle(name: str, into: type[Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """A decorator that adds options and hands them to the command as one argument, an object of a dataclass."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def gathered(**values: Any) -> Any:
            own = {field.name: values.pop(field.name) for field in fields(into)}
            return command(**values, **{name: into(**own)})

        for option in reversed(options):
            gathered = option(gathered)
        return gathered

    return decorate


@dataclass(frozen=True)
class SamplesFrom:
    """What `samples_options` were given."""

    manifest: Path | None
    dataset: str | None
    root: Path | None
    split: str | None
    mer_factory: Path | None

    def load(self, of: str) -> dict[str, Sample] | None:
        """{id: Sample}, or None where nothing was given.  UsageError for half of it.

        of   the dataset of the keys in question
        """
        if self.manifest is not None and self.dataset is not None:
            raise click.UsageError("give either --manifest or --dataset, not both")
        if self.dataset is None and (self.root is not None or self.split is not None):
            raise click.UsageError("--root and --split say where the files of --dataset NAME are: name it")
        if self.dataset is not None:
            from featurestore.datasets import load_dataset, resolve_dataset

            declared = resolve_dataset(self.dataset)
            if declared.name != of:
                raise click.UsageError(f"--dataset {self.dataset} is {declared.name}, but the key is one of {of}")
            return load_dataset(declared, self.root, self.split, self.mer_factory)
        if self.manifest is None:
            if self.mer_factory is not None:
                raise click.UsageError("--mer-factory needs samples: give --manifest or --dataset")
            return None
        from featurestore.samples import read_manifest

        samples = read_manifest(self.manifest)
        return samples if self.mer_factory is None else with_descriptions(samples, of, self.mer_factory)

    def require(self, of: str) -> dict[str, Sample]:
        """The same, where there must be some."""
        samples = self.load(of)
        if samples is None:
            raise click.UsageError("say which samples: --manifest FILE, or --dataset NAME --root DIR")
        return samples


_folder = click.Path(exists=True, file_okay=False, path_type=Path)
samples_options = bundle(
    "samples_from",
    SamplesFrom,
    [
        click.option(
            "--manifest",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Samples as CSV or JSONL: id, video, face, audio, subtitle, au_json, au_csv, label.",
        ),
        click.option("--dataset", metavar="NAME", help="Samples of a known dataset, or of a .toml declaration."),
        click.option("--root", type=_folder, metavar="DIR", help="The folder with the files of the dataset."),
        click.option("--split", metavar="NAME", help="Of the dataset: a declared one, or all.  [default: test]"),
        click.option(
            "--mer-factory",
            type=_folder,
            metavar="DIR",
            help="Where MER-Factory wrote, with or without a level for the dataset.",
        ),
    ],
)


def with_descriptions(samples: dict[str, Sample], of: str, mer_factory: Path) -> dict[str, Sample]:
    """Samples of a manifest with the MER-Factory files found under a directory, where it names none itself."""
    from dataclasses import replace

    from featurestore.datasets import Dataset, resolve_dataset
    from featurestore.datasets.files import MerFactoryFolder
    from featurestore.errors import UnknownDatasetError

    try:
        dataset = resolve_dataset(of)
    except UnknownDatasetError:
        dataset = Dataset(of, of)  # one of the user's own: its level is called as it is in keys
    folder = MerFactoryFolder(mer_factory, dataset)
    found = {}
    for id, sample in samples.items():
        au_json, au_csv, _ = folder.find(id)
        found[id] = replace(sample, au_json=sample.au_json or au_json, au_csv=sample.au_csv or au_csv)
    return found


def read_key(text: str, store: Path) -> tuple[FeatureKey, str | None]:
    """`KEY` or `KEY@PREFIX` -> (key, prefix of the recipe).  InvalidKeyError says what a key looks like.

    The dataset may be named by an alias (`MER2023`), unless something is stored under that very name.
    """
    from featurestore.key import FeatureKey

    name, _, prefix = text.partition("@")
    key = FeatureKey.parse(name)
    if not (store / "data" / key.dataset).is_dir():
        key = FeatureKey(canonical_dataset(key.dataset), *_rest(key))
    return key, prefix or None


def canonical_dataset(name: str) -> str:
    """The short name of a known dataset; any other name as it is."""
    from featurestore.datasets import resolve_dataset
    from featurestore.errors import UnknownDatasetError

    try:
        return resolve_dataset(name).name
    except UnknownDatasetError:
        return name


def _rest(key: FeatureKey) -> tuple[str, str, str, int | str]:
    return key.modality, key.encoder, key.sampling, key.n_frames

"""Options and arguments that several commands share, and what they are turned into."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.program import AFTER_DASHES

if TYPE_CHECKING:  # each costs more than the whole of `fstore --help`
    from featurestore.key import FeatureKey
    from featurestore.sample import Sample

ROOT_VARIABLE = "FEATURESTORE_ROOT"


class GivenPath(click.Path):
    """A path on the command line, where shells leave `~` as it is in `--store=~/features`."""

    name = "path"

    def __init__(self, **checks: bool) -> None:
        super().__init__(path_type=Path, **checks)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from featurestore.errors import ConfigError  # as above
        from featurestore.untrusted_io.files import expand_path

        try:
            return super().convert(str(expand_path(value)), param, ctx)  # of a text, `-` is standard input
        except ConfigError as error:
            self.fail(str(error), param, ctx)


def default_store() -> Path:
    """$FEATURESTORE_ROOT, else `features` in the working directory."""
    from featurestore.errors import ConfigError
    from featurestore.untrusted_io.files import expand_path

    try:
        return expand_path(os.environ.get(ROOT_VARIABLE) or "features")
    except ConfigError as error:
        raise ConfigError(f"${ROOT_VARIABLE} is {error}") from error


def _local_store(ctx: click.Context, parameter: click.Parameter, store: Path) -> Path:
    from featurestore.storage.location import local

    local(store)
    return store


def _stored(ctx: click.Context, parameter: click.Parameter, store: Path) -> Path:
    from featurestore.storage.location import missing

    _local_store(ctx, parameter, store)
    assert parameter.name is not None
    typed = ctx.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE
    if typed and not store.is_dir():
        raise click.UsageError(missing(store))
    return store


def _store_option(callback: Callable[..., Path]) -> Callable[..., Any]:
    return click.option(
        "--store",
        type=GivenPath(file_okay=False),
        default=default_store,
        callback=callback,
        metavar="DIR",
        help=f"The store.  [default: ${ROOT_VARIABLE}, else ./features]",
    )


store_option = _store_option(_local_store)
"""of commands that make the store where it is not there yet"""
stored_option = _store_option(_stored)
"""of commands that look into a store: a path that was typed must be there"""
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def ids_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """`[ID]...` and `--ids-from FILE`; the body turns both into one list with `gather_ids`."""
    command = click.option(
        "--ids-from",
        type=GivenPath(exists=True, dir_okay=False, allow_dash=True),
        metavar="FILE",
        help="One id per line; - is standard input.",
    )(command)
    return click.argument("ids", nargs=-1, metavar="[-- ID...]")(command)


def looks_like_key(text: str) -> bool:
    """Whether a word of the command line is taken for a key: four or five parts between slashes."""
    parts = text.split("/")
    return len(parts) in (4, 5) and all(parts)


def refuse_keys(ctx: click.Context, key: str | None, ids: Sequence[str], *more: str) -> None:
    """UsageError where a key stands among the ids, with the lines to run instead, which end in `more`.

    After `--` all are ids.
    """
    typed = ids[: max(0, len(ids) - ctx.meta.get(AFTER_DASHES, 0))]
    keys = [word for word in typed if looks_like_key(word)]
    if not keys:
        return
    from featurestore.cli.hints import again

    every = dict.fromkeys([*([key] if key is not None else []), *keys])
    more += ("--all-datasets",) if ctx.params.get("all_datasets") else ()
    lines = "".join(f"\n  {again(str(ctx.info_name), each, *more)}" for each in every)
    raise click.UsageError(
        f"{keys[0]} is a key and no id, and one run takes one key. Run it once for each:{lines}\n"
        "An id that looks like a key goes after `--`, or into --ids-from FILE."
    )


def gather_ids(ids: Sequence[str], ids_from: Path | None) -> list[str]:
    """Ids from the line and from a file, each once, in the order given.  InvalidIdError names a bad one."""
    from featurestore.key import check_id

    found = list(ids)
    if ids_from is not None:
        raw = sys.stdin.buffer.read() if str(ids_from) == "-" else ids_from.read_bytes()
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
        from featurestore.sample import read_manifest

        samples = read_manifest(self.manifest)
        return samples if self.mer_factory is None else with_descriptions(samples, of, self.mer_factory)

    def require(self, of: str) -> dict[str, Sample]:
        """The same, where there must be some."""
        samples = self.load(of)
        if samples is None:
            raise click.UsageError("say which samples: --manifest FILE, or --dataset NAME --root DIR")
        return samples


_folder = GivenPath(exists=True, file_okay=False)
samples_options = bundle(
    "samples_from",
    SamplesFrom,
    [
        click.option(
            "--manifest",
            type=GivenPath(exists=True, dir_okay=False),
            metavar="FILE",
            help="Samples as CSV, XLSX or JSONL: id, video, face, audio, subtitle, au_json, au_csv, label.",
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
        key = replace(key, dataset=canonical_dataset(key.dataset))
    return key, prefix or None


def canonical_dataset(name: str) -> str:
    """The short name of a known dataset; any other name as it is."""
    from featurestore.datasets import resolve_dataset
    from featurestore.errors import UnknownDatasetError

    try:
        return resolve_dataset(name).name
    except UnknownDatasetError:
        return name

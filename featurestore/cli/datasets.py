"""`fstore datasets`: what is declared about datasets."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.options import json_option
from featurestore.cli.output import echo_json, echo_table


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME|FILE.toml]...")
@json_option
def datasets(names: tuple[str, ...], as_json: bool) -> None:
    """List the datasets that are known by name, or what is declared about some of them.

    A dataset of one's own is a TOML file like those of the package; its path is accepted wherever a name is.
    """
    from featurestore.datasets import dataset_names, resolve_dataset
    from featurestore.datasets.declaration import as_json as declaration

    found = [resolve_dataset(name) for name in names or dataset_names()]
    if as_json:
        echo_json([declaration(dataset) for dataset in found])
        return
    if names:
        for dataset in found:
            click.echo(_source(dataset.declared_in, dataset.name).read_text(encoding="utf-8"), nl=False)
        return
    rows = []
    for dataset in found:
        split = dataset.split()
        labels = dataset.labels
        others = ", ".join(name for name in dataset.names if name.casefold() != dataset.name)
        rows.append([dataset.name, dataset.default_split, split.count, labels.kind if labels else None, others])
    echo_table(["NAME", "SPLIT", "SAMPLES", "LABELS", "ALSO KNOWN AS"], rows)


def _source(declared_in: Path | None, name: str) -> Path:
    import featurestore.datasets

    return declared_in or Path(featurestore.datasets.__file__).parent / f"{name}.toml"

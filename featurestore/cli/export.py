"""`fstore export`: write stored features for code that reads `.npy` folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featurestore.cli.hints import message_of
from featurestore.cli.options import json_option, looks_like_key, read_key, stored_option
from featurestore.cli.output import echo_json, echo_table
from featurestore.cli.progress import Bars


@click.command()
@click.argument("words", nargs=-1, metavar="[KEY[@RECIPE]]... [DIR]")
@stored_option
@click.option(
    "--layout",
    type=click.Choice(["affectgpt", "mertools"]),
    help="Write .npy folders into DIR as that code reads them.",
)
@click.option("--sampling-as", metavar="SAMPLING", help="Name the folder as if this were the sampling.")
@click.option("--overwrite", is_flag=True, help="Replace files that hold other values.")
@json_option
@click.pass_context
def export(
    ctx: click.Context,
    words: tuple[str, ...],
    store: Path,
    layout: str | None,
    sampling_as: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write stored features for other code.

    \b
    fstore export KEY... --layout affectgpt DIR   .npy folders, float32; without KEY all that have a name there
    fstore export KEY... --layout mertools DIR    the same as MODEL-UTT and MODEL-FRA

    What was imported comes back as it was, byte for byte, in the folders that it had.

    `fstore pack KEY -o DIR` writes a Zarr group instead.
    """
    from featurestore.affectgpt.exporting import ExportReport, export_tree, exportable
    from featurestore.errors import RecipeError
    from featurestore.store import FeatureStore
    from featurestore.untrusted_io.files import expand_path

    source = FeatureStore(store, read_only=True)
    if layout is None:
        raise click.UsageError(
            "say for which code: --layout affectgpt DIR, or mertools; `fstore pack KEY -o DIR` is for any other"
        )
    if not words:
        raise click.UsageError("name the folder to write into: fstore export [KEY]... --layout affectgpt DIR")
    stored = store / "data" / words[-1].partition("@")[0]
    if looks_like_key(words[-1]) and stored.is_dir():
        raise click.UsageError(f"{words[-1]} is a key that is stored; name the folder to write into after the keys")
    folder = expand_path(words[-1])
    keys = [read_key(word, store) for word in words[:-1]]
    keys = keys or [(key, None) for key in exportable(source, layout)]
    if not keys:
        raise click.UsageError(f"{store} holds nothing that has a folder name in the old layout; `fstore ls` lists it")
    options: dict[str, Any] = {"layout": layout, "sampling_as": sampling_as, "overwrite": overwrite}
    reports = []
    with Bars() as bars:
        for key, prefix in keys:
            try:
                reports.append(export_tree(source, key, folder, fingerprint=prefix, progress=bars, **options))
            except RecipeError as error:
                if len(keys) == 1:
                    raise
                # The others are clear.
                reports.append(ExportReport(str(key), str(key), problems=[message_of(error)]))
    if as_json:
        echo_json([report.as_json() for report in reports])
    else:
        rows = [[report.folder, report.written, report.present, len(report.problems)] for report in reports]
        echo_table(["FOLDER", "WRITTEN", "PRESENT", "PROBLEMS"], rows)
    for report in reports:
        for problem in report.problems:
            click.echo(problem, err=True)
    if any(report.problems for report in reports):
        ctx.exit(1)

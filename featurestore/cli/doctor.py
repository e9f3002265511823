"""`fstore doctor`: what of this machine, file system or dataset will get in the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.options import SamplesFrom, json_option, samples_options, store_option
from featurestore.cli.output import counted, echo_json, echo_table

if TYPE_CHECKING:
    from featurestore.cli.checkup import Check
    from featurestore.datasets import Survey


@click.command()
@store_option
@samples_options
@json_option
@click.pass_context
def doctor(ctx: click.Context, store: Path, samples_from: SamplesFrom, as_json: bool) -> None:
    """Check this machine and the place of the store, or the files of a dataset or manifest.

    \b
    fstore doctor --store /nfs/features
    fstore doctor --dataset mer2023 --root /data/mer2023-dataset-process
    fstore doctor --manifest samples.csv

    Tries what a store needs of its file system (rename, fsync, locks, times) in a folder that is
    removed again, and says which promise would not hold. Looks for packages, decoders, a GPU, caches
    and weights. With a dataset: what is found and missing of each kind of file, against the number of
    samples that the published split has. With a manifest: which of the files that it names are there.

    Exit code 1 where there is a problem; a note is none.
    """
    if samples_from.dataset is not None and samples_from.manifest is not None:
        raise click.UsageError("give either --manifest or --dataset, not both")
    if samples_from.manifest is not None:
        ctx.exit(_look_at_manifest(samples_from, samples_from.manifest, as_json))
    if samples_from.dataset is not None:
        survey = _survey(samples_from)
        echo_json(survey.as_json()) if as_json else _show_survey(survey)
        ctx.exit(1 if survey.findings else 0)
    if samples_from != SamplesFrom(None, None, None, None, None):
        raise click.UsageError(
            "--root, --split and --mer-factory say where the files of a dataset are: name it with --dataset"
        )
    checks = []
    for check in _checks(store.absolute()):
        checks.append(check)
        if not as_json:
            click.echo(str(check))  # at once: loading torch takes a while
    problems = sum(check.state == "problem" for check in checks)
    if as_json:
        echo_json({"problems": problems, "checks": [check.as_json() for check in checks]})
    else:
        click.echo(f"{counted(problems, 'problem')}.")
    ctx.exit(1 if problems else 0)


def _checks(store: Path) -> Iterator[Check]:
    from featurestore.cli.environment import check_caches, check_imports, check_packages, check_weights
    from featurestore.cli.filesystem import check_location

    yield from check_packages()
    yield from check_imports()
    yield from check_location(store)
    yield from check_caches()
    yield from check_weights()


def _look_at_manifest(given: SamplesFrom, manifest: Path, as_json: bool) -> int:
    """The exit code."""
    from featurestore.cli.named_files import look_for_files
    from featurestore.sample import read_manifest

    if given.root is not None or given.split is not None or given.mer_factory is not None:
        raise click.UsageError("--root, --split and --mer-factory go with --dataset: a manifest names its files itself")
    samples = read_manifest(manifest)
    columns = look_for_files(samples)
    findings = [finding for column in columns if (finding := column.finding()) is not None]
    if not columns:
        findings.append(f"{manifest} names no files, in none of the columns video, face, audio, au_json, au_csv")
    if as_json:
        kinds = {column.column: column.as_json() for column in columns}
        echo_json({"manifest": str(manifest), "samples": len(samples), "columns": kinds, "findings": findings})
        return 1 if findings else 0
    click.echo(f"{manifest}: {counted(len(samples), 'sample')} listed")
    rows = [(each.column, each.named, each.named - len(each.absent), len(each.absent)) for each in columns]
    echo_table(("COLUMN", "NAMED", "FOUND", "MISSING"), rows)
    for finding in findings:
        click.echo(finding)
    return 1 if findings else 0


def _survey(given: SamplesFrom) -> Survey:
    from featurestore.datasets import resolve_dataset, survey_dataset

    assert given.dataset is not None
    return survey_dataset(resolve_dataset(given.dataset), given.root, given.split, given.mer_factory)


def _show_survey(survey: Survey) -> None:
    expected = f" of {survey.expected:,} that the published split has" if survey.expected is not None else ""
    click.echo(f"{survey.dataset}, split {survey.split}, in {survey.root}: {survey.listed:,} samples listed{expected}")
    rows = [(part.name, part.found, part.missing, part.place) for part in survey.parts]
    echo_table(("KIND", "FOUND", "MISSING", "WHERE"), rows)
    for finding in survey.findings:
        click.echo(finding)

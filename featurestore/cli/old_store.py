"""`fstore import OLD_STORE`: a store of an earlier format, copied into one of now."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.output import counted, echo_json, echo_table
from featurestore.cli.progress import Bar


def import_old_store(ctx: click.Context, old: Path, new: Path, dry_run: bool, as_json: bool) -> None:
    """Copy all of a store, report, and exit with 1 where anything of it was left out."""
    from featurestore.affectgpt.old_store import copy_store

    given = [
        option.opts[0]
        for option in ctx.command.params
        if isinstance(option, click.Option)
        and option.name not in ("store", "dry_run", "as_json", "debug")
        and ctx.get_parameter_source(option.name or "") is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"{given[0]} is for folders of .npy files: {old} is a store, which is copied whole")
    with _Copying() as progress:
        report = copy_store(old, new, dry_run=dry_run, progress=progress)
    stored, failures = (sum(getattr(one, name) for one in report.sets) for name in ("stored", "failures"))
    if as_json:
        echo_json(report.as_json() | {"store": None if dry_run else str(new)})
    else:
        header = ["KEY", "RECIPE", "SAMPLES", "WOULD STORE" if dry_run else "STORED", "PRESENT", "FAILURES"]
        rows = [[s.key, s.recipe[:8], s.samples, s.stored, s.present, s.failures] for s in report.sets]
        echo_table(header, rows)
        if report.findings:
            click.echo("")
            echo_table(["FINDING", "KEY", "WHAT"], [[f.kind, f.where, f.named] for f in report.findings])
        click.echo("")
        what = f"{counted(stored, 'sample')} and {counted(failures, 'record')} of failures of {old}"
        click.echo(f"Nothing was stored (--dry-run): {what} would be." if dry_run else f"{what} are now in {new}.")
    if report.findings:
        ctx.exit(1)


class _Copying:
    """Progress on stderr."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._done = 0

    def __call__(self, done: int, total: int) -> None:
        self._bar = self._bar or Bar(total, "copying")
        self._bar(done - self._done)
        self._done = done

    def __enter__(self) -> _Copying:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)

"""The summary of `fstore extract` and `retry`: failures under their reasons, then the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.hints import again
from featurestore.cli.output import counted

if TYPE_CHECKING:  # they import numpy
    from featurestore.compute.extraction import ExtractionReport
    from featurestore.storage.failures import FailureRecord

UNCHECKED = {
    "gone": "their media are not there",
    "unnamed": "files they were made of are not named any more",
}
"""why nobody can say whether a stored sample is of the media as they are now"""
SHOWN = 10  # failures of one reason; a wall of lines hides the reasons, and the numbers below it


def show(
    report: ExtractionReport, records: Mapping[str, FailureRecord], name: str, workers: int, more: tuple[str, ...]
) -> None:
    """Print it: the numbers are the last lines.

    records  of the samples that failed, as the store has them
    name     of the key in lines to paste, with @PREFIX where the user gave one
    more     words that such a line needs besides what the user gave
    """
    now = {id: (failure.reason, failure.message) for id, failure in report.failed.items()}
    every = f"`{again('ls', name, '--failures')}` lists all" if set(now) <= set(records) else "--json lists all"
    _show_failures("failed", now, every)
    before = {id: ("", message) for id, message in report.failed_before.items()}
    before |= {id: (records[id].reason, message) for id, (_, message) in before.items() if id in records}
    _show_failures("failed before", before, f"`{again('ls', name, '--failures')}` lists all")
    if before:
        click.echo(f"Those that failed before were not tried: `{again('retry', name, *more)}` does.")
    if known := {id: seconds for id, seconds in report.cut_off.items() if seconds is not None}:
        ends = "video ends" if len(known) == 1 else "videos end"
        first = _few([f"{id} ({seconds:.1f} s)" for id, seconds in known.items()])
        click.echo(f"{len(known):,} {ends} before the header says so, and what is there was used: {first}.")
    if pieces := [id for id, seconds in report.cut_off.items() if seconds is None]:
        has = "audio track begins or ends" if len(pieces) == 1 else "audio tracks begin or end"
        click.echo(f"{len(pieces):,} {has} with a piece of a packet, and what is whole was used: {_few(pieces)}.")
    if report.stale:
        click.echo(f"{counted(len(report.stale), 'sample')} made again, because the media changed.")
    for why in ("gone", "unnamed"):
        if ids := getattr(report, why):
            click.echo(not_checked(why, ids))
    parts = [f"{report.computed:,} computed", f"{report.stored_before:,} stored before"]
    if report.waited:
        parts.append(f"{report.waited:,} made by another process")
    parts.append(f"{len(report.failed) + len(report.failed_before):,} failed")
    click.echo(f"{report.key}@{report.recipe[:8]}: {counted(report.asked, 'sample')}: {', '.join(parts)}.")
    if report.computed or report.failed:
        times = report.seconds
        click.echo(
            f"  {times['wall']:.1f} s, of which load {times['load']:.1f}, encode {times['encode']:.1f} and write "
            f"{times.get('write', 0.0):.1f}; decode {times['decode']:.1f} on {counted(workers, 'worker')} beside them."
        )


def not_checked(why: str, ids: Sequence[str]) -> str:
    """`2 stored samples were not checked for changes: their media are not there (a, b).`"""
    were = "sample was" if len(ids) == 1 else "samples were"
    return f"{len(ids):,} stored {were} not checked for changes: {UNCHECKED[why]} ({_few(list(ids))})."


def show_total(reports: Sequence[Mapping[str, Any]], absent: int) -> None:
    """Several keys in one line, below what `show` printed of each.

    reports  what `ExtractionReport.as_dict` gave
    absent   datasets that were not begun
    """
    asked, computed, before = (sum(each[name] for each in reports) for name in ("asked", "computed", "stored_before"))
    failed = sum(len(each["failed"]) + len(each["failed_before"]) for each in reports)
    not_begun = f"; {counted(absent, 'dataset')} not begun" if absent else ""
    numbers = f"{computed:,} computed, {before:,} stored before, {failed:,} failed{not_begun}"
    click.echo(f"Together {counted(asked, 'sample')} under {counted(len(reports), 'key')}: {numbers}.")


def _show_failures(what: str, failures: Mapping[str, tuple[str, str]], every: str) -> None:
    """A heading for each reason, below it a line for each sample, {id: (reason, message)}."""
    for reason in sorted({reason for reason, _ in failures.values()}):
        lines = {id: message for id, (own, message) in failures.items() if own == reason}
        click.echo(f"{what}: {f'{reason}: ' if reason else ''}{counted(len(lines), 'sample')}")
        for id, message in sorted(lines.items())[:SHOWN]:
            click.echo(f"  {id}: {' '.join(message.split())}")
        if len(lines) > SHOWN:
            click.echo(f"  ... and {len(lines) - SHOWN:,} more; {every}")


def _few(texts: list[str]) -> str:
    return ", ".join(texts[:5]) + (", ..." if len(texts) > 5 else "")

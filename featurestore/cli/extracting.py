"""`fstore extract` and `retry`: make what is not stored yet."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.making import Making, making_options
from featurestore.cli.options import (
    SamplesFrom,
    gather_ids,
    ids_arguments,
    json_option,
    read_key,
    samples_options,
    store_option,
)
from featurestore.cli.output import counted, echo_json
from featurestore.cli.progress import Bar

if TYPE_CHECKING:  # they import numpy
    from featurestore.extract import Extractor, Plan, Report
    from featurestore.key import FeatureKey
    from featurestore.store import FeatureStore

PROBE_SAMPLES = 8  # made by --dry-run, to measure


@click.command()
@click.argument("key")
@ids_arguments
@store_option
@samples_options
@making_options
@click.option("--dry-run", is_flag=True, help="Say what would be done, and how long it would take; store nothing.")
@json_option
@click.pass_context
def extract(
    ctx: click.Context,
    key: str,
    ids: Sequence[str],
    ids_from: str | None,
    store: Path,
    samples_from: SamplesFrom,
    making: Making,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Compute the features of samples that are not stored under KEY yet, and store them.

    \b
    fstore extract mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8 --manifest samples.csv
    fstore extract mer2023/frame/CLIP_VIT_LARGE/uniform/8 --dataset mer2023 --root /data/mer2023-dataset-process
    fstore extract my/frame/ViT-S-32.none/uniform/8 --manifest samples.csv --weights random:0

    All samples of the source, or those with the IDs. What is stored stays as it is, unless its media
    changed; it may be interrupted at any moment, and several may run side by side. A sample that
    failed before is not tried again: see `fstore retry`. Exit code 1 where any sample failed.
    """
    parsed, prefix = read_key(key, store)
    samples = samples_from.require(parsed.dataset)
    wanted = gather_ids(ids, ids_from) if ids or ids_from is not None else list(samples)
    with making.extractor(parsed, samples) as extractor:
        opened = _open(store, parsed, prefix, extractor)
        if dry_run:
            _dry_run(opened, parsed, wanted, extractor, as_json)
            return
        report = _run(opened, parsed, wanted, retry=False)
    _show(report, extractor.workers, as_json)
    ctx.exit(0 if report.ok else 1)


@click.command()
@click.argument("key")
@ids_arguments
@store_option
@samples_options
@making_options
@json_option
@click.pass_context
def retry(
    ctx: click.Context,
    key: str,
    ids: Sequence[str],
    ids_from: str | None,
    store: Path,
    samples_from: SamplesFrom,
    making: Making,
    as_json: bool,
) -> None:
    """Try samples again that have a record that they cannot be made under KEY: all, or those with the IDs.

    Settings that are not given are those of what is stored. A record goes when its sample is stored.
    Exit code 1 where any sample failed again.
    """
    from featurestore.store import FeatureStore

    parsed, prefix = read_key(key, store)
    samples = samples_from.require(parsed.dataset)
    recipes = FeatureStore(store, read_only=True).recipes(parsed)
    stored = next(iter(recipes.values())) if len(recipes) == 1 else None
    if prefix is not None:
        stored = next((recipe for name, recipe in recipes.items() if name.startswith(prefix)), None)
    with making.extractor(parsed, samples, stored) as extractor:
        opened = _open(store, parsed, prefix, extractor)
        records = opened.failures(parsed)
        chosen = gather_ids(ids, ids_from) if ids or ids_from is not None else list(records)
        report = _run(opened, parsed, [id for id in chosen if id in records], retry=True)
    for id in chosen:
        if id not in records:
            click.echo(f"{id}: no record of a failure under {parsed}@{report.recipe[:8]}", err=True)
    _show(report, extractor.workers, as_json)
    ctx.exit(0 if report.ok else 1)


def _open(store: Path, key: FeatureKey, prefix: str | None, extractor: Extractor) -> FeatureStore:
    from featurestore.store import FeatureStore

    opened = FeatureStore(store, compute=extractor)
    own = extractor.recipe(key).fingerprint
    if prefix is not None and not own.startswith(prefix):
        raise click.UsageError(f"with these settings the recipe of {key} is {own[:8]}, not {prefix}")
    return opened


def _run(store: FeatureStore, key: FeatureKey, ids: list[str], retry: bool) -> Report:
    from featurestore.extract import extract as run

    with Bar(len(ids), key.encoder) as bar:
        return run(store, key, ids, retry=retry, progress=bar)


def _show(report: Report, workers: int, as_json: bool) -> None:
    if as_json:
        echo_json(report.as_dict())
        return
    parts = [f"{report.computed:,} computed", f"{report.stored_before:,} stored before"]
    if report.waited:
        parts.append(f"{report.waited:,} made by another process")
    failed = len(report.failed) + len(report.failed_before)
    parts.append(f"{failed:,} failed")
    click.echo(f"{report.key}@{report.recipe[:8]}: {counted(report.asked, 'sample')}: {', '.join(parts)}.")
    if report.stale:
        click.echo(f"  {counted(len(report.stale), 'sample')} made again, because the media changed.")
    for id, failure in report.failed.items():
        click.echo(f"  failed: {id}: {failure.reason}: {failure.message}")
    for id, message in report.failed_before.items():
        click.echo(f"  failed before: {id}: {message}")
    if report.failed_before:
        click.echo(f"  `fstore retry {report.key}` tries those that failed before again.")
    if report.computed or report.failed:
        times = report.seconds
        click.echo(
            f"  {times['wall']:.1f} s, of which encode {times['encode']:.1f} and write {times.get('write', 0.0):.1f}; "
            f"decode {times['decode']:.1f} on {counted(workers, 'worker')} beside them."
        )


def _dry_run(store: FeatureStore, key: FeatureKey, ids: list[str], extractor: Extractor, as_json: bool) -> None:
    from featurestore.extract import plan

    wanted: Plan = plan(store, key, ids, extractor.sources[key.dataset])
    result: dict[str, Any] = {
        "key": str(key),
        "recipe": extractor.recipe(key).fingerprint,
        "stored": len(wanted.stored),
        "stale": len(wanted.stale),
        "failed_before": len(wanted.failed_before),
        "to_do": len(wanted.todo),
        "seconds": None,
    }
    if wanted.todo:
        extractor.probe(key, wanted.todo)
        result |= _measure(key, wanted.todo, extractor)
    if as_json:
        echo_json(result)
        return
    click.echo(f"{key}@{result['recipe'][:8]}: {counted(len(ids), 'sample')}")
    click.echo(f"  {result['stored']:,} stored, {result['failed_before']:,} failed before, {result['to_do']:,} to do")
    if wanted.stale:
        click.echo(f"  of these {len(wanted.stale):,} because the media changed")
    if result["seconds"] is not None:
        click.echo(
            f"  about {_duration(result['seconds'])}, going by {counted(result['measured'], 'sample')} made just now "
            "and not stored"
        )


def _measure(key: FeatureKey, ids: list[str], extractor: Extractor) -> dict[str, Any]:
    """Make some samples, the first to warm up, and scale."""
    start = time.perf_counter()
    for _ in extractor(key, ids[:1]):
        pass
    warm_up_s = time.perf_counter() - start
    some = ids[1 : 1 + PROBE_SAMPLES] or ids
    start = time.perf_counter()
    failed = {id for id, result in extractor(key, some) if not hasattr(result, "values")}
    each_s = (time.perf_counter() - start) / len(some)
    return {
        "seconds": round(warm_up_s + each_s * (len(ids) - 1), 1),
        "measured": len(some),
        "failed_now": sorted(failed),
    }


def _duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"

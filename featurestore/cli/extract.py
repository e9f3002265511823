"""`fstore extract` and `retry`: make what is not stored yet."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.extractor_options import Making, making_options, stored_options
from featurestore.cli.hints import again, message_of
from featurestore.cli.jobs import Job, of_all_datasets, of_config, of_key
from featurestore.cli.options import (
    ROOT_VARIABLE,
    GivenPath,
    SamplesFrom,
    gather_ids,
    ids_arguments,
    json_option,
    read_key,
    refuse_keys,
    samples_options,
    store_option,
    stored_option,
)
from featurestore.cli.output import counted, echo_json
from featurestore.cli.progress import Bar, Stages
from featurestore.cli.summary import show, show_total
from featurestore.errors import InputError

if TYPE_CHECKING:  # they import numpy
    from featurestore.compute.extraction import ExtractionPlan, ExtractionReport
    from featurestore.compute.extractor import Extractor
    from featurestore.key import FeatureKey
    from featurestore.recipe import Recipe
    from featurestore.store import FeatureStore

# What --dry-run makes, to measure: samples for some seconds, but neither too few to tell nor too many.
LEAST_SAMPLES, PROBE_SAMPLES, PROBE_S = 8, 64, 5.0


@click.command()
@click.argument("key", required=False)
@ids_arguments
@store_option
@samples_options
@click.option("--all-datasets", is_flag=True, help="The nine test sets of MER-UniBench, in folders below --root DIR.")
@click.option(
    "--config",
    type=GivenPath(exists=True, dir_okay=False),
    metavar="FILE.yaml",
    help="What a settings file of the old code says is to be stored; see `fstore config explain`.",
)
@making_options
@click.option("--dry-run", is_flag=True, help="Say what would be done, and how long it would take; store nothing.")
@json_option
@click.pass_context
def extract(
    ctx: click.Context,
    key: str | None,
    ids: Sequence[str],
    ids_from: Path | None,
    store: Path,
    samples_from: SamplesFrom,
    all_datasets: bool,
    config: Path | None,
    making: Making,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Compute the features of samples that are not stored under KEY yet, and store them.

    \b
    fstore extract mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8 --manifest samples.csv
    fstore extract mer2023/frame/CLIP_VIT_LARGE/uniform/8 --dataset mer2023 --root /data/mer2023-dataset-process
    fstore extract my/frame/ViT-S-32.none/uniform/8 --manifest samples.csv --weights random:0
    fstore extract frame/CLIP_VIT_LARGE/emotion_peak/8 --all-datasets --root /data
    fstore extract --config eval_mer2023.yaml --root /data

    All samples of the source, or those with the IDs. What is stored stays as it is, unless its media
    changed; it may be interrupted at any moment, and several may run side by side. A sample that
    failed before is not tried again: see `fstore retry`. Exit code 1 where any sample failed.
    """
    refuse_keys(ctx, key, ids)
    if (key is None) != (config is not None):
        raise click.UsageError("give either a KEY or --config FILE.yaml")
    if (ids or ids_from is not None) and (all_datasets or config is not None):
        raise click.UsageError("ids are of one KEY")
    if config is not None:
        given = ctx.get_parameter_source("store") is not click.core.ParameterSource.DEFAULT
        jobs = of_config(config, store if given or os.environ.get(ROOT_VARIABLE) else None, samples_from)
    elif all_datasets:
        jobs = of_all_datasets(str(key), store, samples_from)
    else:
        jobs = of_key(str(key), store, samples_from)
    making = replace(making, device=making.device or jobs.device)
    chosen = gather_ids(ids, ids_from) if ids or ids_from is not None else None
    sources = {job.key.dataset: job.samples for job in jobs.jobs}
    absent, results = dict(jobs.absent), []
    stages = Stages()
    with making.extractor([job.key for job in jobs.jobs], sources, on_stage=stages) as extractor:
        for job in jobs.jobs:
            try:
                results.append(_one(job, chosen, extractor, stages, dry_run, as_json))
            except InputError as error:
                if len(jobs.jobs) == 1:
                    raise
                absent[job.key.dataset] = message_of(error)  # the files of one dataset do not keep the others back
    for name, why in absent.items():
        click.echo(f"{name}: {why}", err=True)
    documents = [document for document, _ in results]
    if as_json:
        documents += [{"dataset": name, "error": why} for name, why in absent.items()]
        echo_json(documents if all_datasets or config is not None else documents[0])
    elif len(documents) + len(absent) > 1 and not dry_run:
        show_total(documents, len(absent))
    ctx.exit(0 if all(fine for _, fine in results) and not absent else 1)


def _one(
    job: Job, ids: list[str] | None, extractor: Extractor, stages: Stages, dry_run: bool, as_json: bool
) -> tuple[dict[str, Any], bool]:
    """(JSON, whether all went well) of one key."""
    wanted = list(job.samples) if ids is None else ids
    opened = _open(job.store, job.key, job.prefix, extractor)
    if dry_run:
        planned = _dry_run(opened, job.key, wanted, extractor)
        if not as_json:
            _show_plan(planned, len(wanted), extractor.workers)
        return planned, True
    report = _run(opened, job.key, wanted, stages, retry=False)
    if not as_json:
        show(report, opened.failures(job.key), job.name, extractor.workers, job.more)
    return report.as_dict(), report.ok


@click.command()
@click.argument("key")
@ids_arguments
@stored_option
@samples_options
@making_options
@json_option
@click.pass_context
def retry(
    ctx: click.Context,
    key: str,
    ids: Sequence[str],
    ids_from: Path | None,
    store: Path,
    samples_from: SamplesFrom,
    making: Making,
    as_json: bool,
) -> None:
    """Try samples again that have a record that they cannot be made under KEY: all, or those with the IDs.

    Settings that are not given are those of what is stored; others would be another recipe, which extract
    makes. A record goes when its sample is stored. Exit code 1 where any sample failed again.
    """
    from featurestore.store import FeatureStore

    refuse_keys(ctx, key, ids)
    parsed, prefix = read_key(key, store)
    samples = samples_from.require(parsed.dataset)
    recipes = FeatureStore(store, read_only=True).recipes(parsed)
    stored = next(iter(recipes.values())) if len(recipes) == 1 else None
    if prefix is not None:
        stored = next((recipe for name, recipe in recipes.items() if name.startswith(prefix)), None)
    stages = Stages()
    with making.extractor([parsed], {parsed.dataset: samples}, stored, stages) as extractor:
        opened = _open(store, parsed, prefix, extractor)
        records = opened.failures(parsed)
        if stored is not None and not records:
            _require_same_settings(parsed, stored, extractor)
        chosen = gather_ids(ids, ids_from) if ids or ids_from is not None else list(records)
        report = _run(opened, parsed, [id for id in chosen if id in records], stages, retry=True)
    for id in chosen:
        if id not in records:
            click.echo(f"{id}: no record of a failure under {parsed}@{report.recipe[:8]}", err=True)
    if as_json:
        echo_json(report.as_dict())
    else:
        show(report, opened.failures(parsed), key, extractor.workers, ())
    ctx.exit(0 if report.ok else 1)


def _open(store: Path, key: FeatureKey, prefix: str | None, extractor: Extractor) -> FeatureStore:
    from featurestore.store import FeatureStore

    opened = FeatureStore(store, compute=extractor)
    own = extractor.recipe(key).fingerprint
    if prefix is not None and not own.startswith(prefix):
        raise click.UsageError(f"with these settings the recipe of {key} is {own[:8]}, not {prefix}")
    return opened


def _require_same_settings(key: FeatureKey, stored: Recipe, extractor: Extractor) -> None:
    """UsageError where what is to be tried again would be another recipe, under which nothing failed yet."""
    from featurestore.quality.recompute import differences

    own = extractor.recipe(key)
    if own.fingerprint != stored.fingerprint:
        raise click.UsageError(
            f"these settings make another recipe of {key}, {own.fingerprint[:8]}, not {stored.fingerprint[:8]}, whose "
            f"failures are on record ({'; '.join(differences(stored.data, own.data))}). Under another recipe the "
            f"whole key is extracted again: `{again('extract', key, stored=stored_options(key, stored))}`"
        )


def _run(store: FeatureStore, key: FeatureKey, ids: list[str], stages: Stages, retry: bool) -> ExtractionReport:
    from featurestore.compute.extraction import extract as run
    from featurestore.errors import FeatureStoreError

    try:
        with Bar(len(ids), f"{key.encoder} of {key.dataset}", begun_with="starting") as bar:
            stages.bar = bar  # loading may take longer than anything else
            return run(store, key, ids, retry=retry, progress=bar)
    except KeyboardInterrupt as interrupt:
        try:
            stored = len(store.available(key, ids))
        except FeatureStoreError:
            raise interrupt from None  # a disk that cannot be read now must not hide why this ended
        told = f"{stored:,} of {counted(len(ids), 'sample')} of {key} are stored, the same command goes on from there"
        interrupt.args = (told,)
        raise interrupt from None


def _dry_run(store: FeatureStore, key: FeatureKey, ids: list[str], extractor: Extractor) -> dict[str, Any]:
    from featurestore.compute.extraction import plan

    wanted: ExtractionPlan = plan(store, key, ids, extractor.sources[key.dataset])
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
    return result


def _show_plan(planned: dict[str, Any], asked: int, workers: int) -> None:
    click.echo(f"{planned['key']}@{planned['recipe'][:8]}: {counted(asked, 'sample')}")
    click.echo(
        f"  {planned['stored']:,} stored, {planned['failed_before']:,} failed before, {planned['to_do']:,} to do"
    )
    if planned["stale"]:
        click.echo(f"  of these {planned['stale']:,} because the media changed")
    if planned["seconds"] is not None:
        measured = f"{counted(planned['measured'], 'sample')} made just now and not stored"
        times = f"{planned['start_s']:.1f} s to start, then {planned['each_s']:.2g} s each"
        on = counted(workers, "worker")
        click.echo(f"  about {_duration(planned['seconds'])}, going by {measured} ({times} on {on}, without writing)")
    for id, why in planned.get("failed_now", {}).items():
        click.echo(f"  would fail: {id}: {why}")


def _measure(key: FeatureKey, ids: list[str], extractor: Extractor) -> dict[str, Any]:
    """Make some samples, from all over the list because its beginning may be of one kind, and scale.

    The first starts the workers and loads the encoder, which is counted once.  The others go through
    decoding and encoding as all would; writing, which takes little, is not measured.
    """
    from featurestore.features import Failure

    click.echo(f"Loading {key.encoder} and making some samples to measure, which are not stored ...", err=True)
    spread = ids[:: max(1, len(ids) // (PROBE_SAMPLES + 1))]
    start = time.perf_counter()
    for _ in extractor(key, spread[:1]):
        pass
    started = time.perf_counter()

    def some() -> Iterator[str]:
        for count, id in enumerate(spread[1:] or spread):
            if count >= LEAST_SAMPLES and time.perf_counter() - started > PROBE_S:
                return
            yield id

    results = dict(extractor(key, some()))
    each_s = (time.perf_counter() - started) / len(results)
    return {
        "seconds": round(started - start + each_s * (len(ids) - 1), 1),
        "start_s": round(started - start, 3),
        "each_s": round(each_s, 4),
        "measured": len(results),
        "failed_now": {id: result.message for id, result in results.items() if isinstance(result, Failure)},
    }


def _duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"

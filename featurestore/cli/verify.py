"""`fstore verify`: what is wrong with a store."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.extractor_options import Making, making_options
from featurestore.cli.findings import advise
from featurestore.cli.hints import again
from featurestore.cli.options import SamplesFrom, json_option, read_key, samples_options, stored_option
from featurestore.cli.output import counted, echo_json
from featurestore.cli.progress import Bar
from featurestore.cli.summary import UNCHECKED, not_checked

if TYPE_CHECKING:  # they import numpy
    from featurestore.compute.extractor import Extractor
    from featurestore.key import FeatureKey
    from featurestore.quality import VerifyReport
    from featurestore.sample import Sample


@click.command()
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@stored_option
@samples_options
@click.option("--full", is_flag=True, help="Read every byte, and check every value.")
@click.option(
    "--recompute",
    type=click.IntRange(min=1),
    metavar="N",
    help="Make N samples again, chosen at random, and compare. One KEY.",
)
@click.option("--repair", is_flag=True, help="Move what is damaged aside, keeping intact rows. Nothing is deleted.")
@making_options
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    keys: Sequence[str],
    store: Path,
    samples_from: SamplesFrom,
    full: bool,
    recompute: int | None,
    repair: bool,
    making: Making,
    as_json: bool,
) -> None:
    """Check a store, or some KEYs of it, and say what is wrong and what to do.

    \b
    fstore verify
    fstore verify mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8 --manifest samples.csv --full
    fstore verify mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8 --manifest samples.csv --recompute 5

    Always: seals, sizes, fingerprints, documents of the levels, stray files, and media that changed since
    they were read, where they were. With a manifest or a dataset also coverage in both directions, and
    samples that were made of other files than it names. With --full every checksum
    and digest, and content that cannot be right: zero rows, equal rows of different frames, the same
    values under several ids. Settings for --recompute that are not given are those of what is stored.

    Exit code 0 where nothing was found, 1 where something was, also if it was repaired.
    """
    from featurestore.quality import check_store

    if not store.is_dir():
        from featurestore.storage.location import missing

        raise click.UsageError(missing(store))
    chosen: dict[FeatureKey, str | None] = dict(read_key(text, store) for text in keys)
    sources = _sources(chosen, store, samples_from)
    if recompute is not None:
        chosen = _one_key(chosen, store)
    if recompute is not None and not sources:
        raise click.UsageError("--recompute needs samples: --manifest FILE, or --dataset NAME --root DIR")
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        bar = stack.enter_context(Bar(_total(chosen, store) if full else 0, "verify"))
        compute: Extractor | None = None
        if recompute is not None or (repair and chosen):
            compute = stack.enter_context(_extractor(chosen, sources, store, making))
        report = check_store(
            store,
            chosen,
            sources=sources,
            full=full,
            recompute=recompute or 0,
            compute=compute,
            repair=repair,
            progress=bar,
        )
    advise(report.findings)
    if as_json:
        echo_json({"store": str(store), **report.as_json()})
    else:
        _show(report, store)
    ctx.exit(0 if report.clean else 1)


def _sources(
    chosen: dict[FeatureKey, str | None], store: Path, samples_from: SamplesFrom
) -> dict[str, dict[str, Sample]]:
    """The samples that were given, under the one dataset that they are of."""
    if samples_from == SamplesFrom(None, None, None, None, None):
        return {}
    from featurestore.store import FeatureStore

    names = {key.dataset for key in chosen or FeatureStore(store, read_only=True).keys()}
    if samples_from.dataset is not None:
        from featurestore.datasets import resolve_dataset

        names &= {resolve_dataset(samples_from.dataset).name} if not chosen else names
    if len(names) != 1:
        which = ", ".join(sorted(names)) or "no dataset"
        raise click.UsageError(f"the samples are of one dataset, but there is {which}: say which KEY to verify")
    name = names.pop()
    samples = samples_from.load(name)
    return {} if samples is None else {name: samples}


def _one_key(chosen: dict[FeatureKey, str | None], store: Path) -> dict[FeatureKey, str | None]:
    from featurestore.store import FeatureStore

    found = chosen or dict.fromkeys(FeatureStore(store, read_only=True).keys())
    if len(found) != 1:
        raise click.UsageError("--recompute makes samples of one KEY: say which")
    return found


def _extractor(
    chosen: dict[FeatureKey, str | None], sources: dict[str, dict[str, Sample]], store: Path, making: Making
) -> Extractor:
    """With the settings of what is stored, where it can still be read."""
    from featurestore.errors import MissingFeatureError, UnknownRecipeError
    from featurestore.store import FeatureStore

    key, prefix = next(iter(chosen.items()))
    try:
        recipe = FeatureStore(store, read_only=True).info(key, fingerprint=prefix).recipe
    except (MissingFeatureError, UnknownRecipeError):
        recipe = None
    return making.extractor([key], sources, recipe)


def _total(chosen: dict[FeatureKey, str | None], store: Path) -> int:
    from featurestore.cli.inventory import key_holdings, take_inventory

    holdings = [held for key in chosen for held in key_holdings(store, key)] if chosen else take_inventory(store)
    return sum(held.samples for held in holdings)


@contextmanager
def _quiet() -> Iterator[None]:
    """Readers warn of what is about to be reported."""
    logger = logging.getLogger("featurestore")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _show(report: VerifyReport, store: Path) -> None:
    from featurestore.quality.findings import REPAIRABLE

    for finding in report.findings:
        click.echo(str(finding))
    looked = f"{counted(report.samples, 'sample')}, {counted(report.segments, 'segment')}"
    how = "every byte was read" if report.full else "fast; --full reads every byte"
    click.echo(f"{store}: {counted(report.recipes, 'recipe')}, {looked}: {_verdict(report)} ({how}).")
    given = click.get_current_context().params
    if not given["repair"] and any(finding.kind in REPAIRABLE for finding in report.findings):
        words = (*given["keys"], *(["--full"] if report.full else []), "--repair")
        click.echo(
            f"To repair: `{again('verify', None, *words)}`. What is intact stays, the rest is moved aside, "
            "nothing is deleted."
        )
    if report.no_coverage:
        names = ", ".join(report.no_coverage[:3]) + (", ..." if len(report.no_coverage) > 3 else "")
        click.echo(f"Coverage was not checked of {names}: give --manifest FILE, or --dataset NAME --root DIR.")
    for why in UNCHECKED:
        for where, ids in getattr(report, why).items():
            click.echo(f"{where}: {not_checked(why, ids)}")
    if unrecorded := sum(map(len, report.unrecorded.values())):
        what = "what they were made of was not recorded, as with imported ones"
        click.echo(f"{counted(unrecorded, 'stored sample')} not checked for changes: {what}.")
    if report.made_again:
        click.echo(f"{counted(report.made_again, 'sample')} made again and compared.")


def _verdict(report: VerifyReport) -> str:
    if report.clean:
        return "nothing wrong"
    repaired = sum(finding.repaired for finding in report.findings)
    return counted(len(report.findings), "finding") + (f", {repaired} of them repaired" if repaired else "")

"""`fstore ls`, `info` and `explain`: what is stored, and where it comes from."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.options import json_option, read_key, refuse_keys, stored_option
from featurestore.cli.output import counted, echo_json, echo_table, size_text

if TYPE_CHECKING:  # it imports `dataclasses`, which the list of commands does not need
    from featurestore.cli.inventory import Holding
    from featurestore.key import FeatureKey


@click.command()
@click.argument("key", required=False)
@stored_option
@click.option("--failures", is_flag=True, help="Samples under KEY that cannot be made, and why.")
@json_option
def ls(key: str | None, store: Path, failures: bool, as_json: bool) -> None:
    """List the keys of a store, or the ids of the samples under one KEY.

    \b
    fstore ls
    fstore ls mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8
    fstore ls mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8@9756228b --failures

    SAMPLES are counted once each, BYTES are those of the segments in use, FAILED are samples with a
    record that they cannot be made. The figures are what the store's documents say; `fstore verify`
    checks that they are true.
    """
    if key is None:
        if failures:
            raise click.UsageError("--failures are of one KEY: say which")
        _list_keys(store, as_json)
    elif failures:
        _list_failures(key, store, as_json)
    else:
        _list_ids(key, store, as_json)


def _list_keys(store: Path, as_json: bool) -> None:
    from featurestore.cli.inventory import take_inventory

    holdings = take_inventory(store)
    if as_json:
        echo_json([holding.as_json() for holding in holdings])
    else:
        header = ("KEY", "RECIPE", "ORIGIN", "SAMPLES", "DTYPE", "BYTES", "SEGMENTS", "FAILED")
        echo_table(header, [_row(holding) for holding in holdings])
    if not holdings:
        what = "is not there yet" if not store.exists() else "holds nothing"
        click.echo(f"The store {store} {what}.", err=True)
    for holding in holdings:
        _say_damage(holding, store)


def _row(holding: Holding) -> tuple[object, ...]:
    size = size_text(holding.bytes)
    head = (str(holding.key), holding.fingerprint[:8], holding.origin)
    return (*head, holding.samples, holding.dtype, size, holding.segments, holding.failures)


def _say_damage(holding: Holding, store: Path) -> None:
    if holding.damaged or holding.recipe is None:
        what = counted(holding.damaged, "damaged segment") if holding.damaged else "a recipe that cannot be read"
        name = f"{holding.key}@{holding.fingerprint[:8]}"
        click.echo(f"{name} has {what}: run `fstore verify {holding.key} --store {shlex.quote(str(store))}`", err=True)


def _list_ids(text: str, store: Path, as_json: bool) -> None:
    from featurestore.store import FeatureStore

    key, prefix = read_key(text, store)
    opened = FeatureStore(store, read_only=True)
    opened.info(key, fingerprint=prefix)  # an error where nothing is stored
    ids = opened.ids(key, fingerprint=prefix)
    if as_json:
        echo_json(ids)
    elif ids:
        click.echo("\n".join(ids))


def _list_failures(text: str, store: Path, as_json: bool) -> None:
    """By the records alone: where every sample failed there is no row, and no recipe among the data."""
    from featurestore.cli.inventory import fingerprints
    from featurestore.store import FeatureStore

    key, prefix = read_key(text, store)
    found = [name for name in fingerprints(store, key) if name.startswith(prefix or "")]
    if not found:
        raise nothing_stored(key, store, prefix)
    opened = FeatureStore(store, read_only=True)
    records = {name: opened.failures(key, fingerprint=name) for name in found}
    if as_json:
        echo_json([vars(record) for each in records.values() for record in each.values()])
        return
    for name, each in records.items():
        for record in each.values():
            where = f"{key}@{name[:8]}: " if len(found) > 1 else ""
            click.echo(f"{where}{record.id}: {record.reason}: {' '.join(record.message.split())}")
    if not any(records.values()):
        click.echo(f"No sample of {text} has a record of a failure.", err=True)


def nothing_stored(key: FeatureKey, store: Path, prefix: str | None = None) -> Exception:
    """What to raise where a key that was typed holds nothing; names one that may have been meant."""
    from featurestore.errors import MissingFeatureError, UnknownRecipeError
    from featurestore.storage.catalog import Catalog

    catalog = Catalog(store, None, {})
    stored = catalog.fingerprints(key)
    if stored:
        names = f"there {'are' if len(stored) > 1 else 'is'} {', '.join(name[:8] for name in stored)}"
        return UnknownRecipeError(f"no recipe of {key} in {store} begins with {prefix!r}; {names}")
    close = catalog.nearest(key)
    hint = f"did you mean {close}?" if close else "`fstore ls` lists what is"
    return MissingFeatureError(f"nothing is stored under {key} in {store}; {hint}")


@click.command()
@click.argument("key")
@stored_option
@json_option
def info(key: str, store: Path, as_json: bool) -> None:
    """Show the recipes under KEY in full, with sizes and the versions that made them."""
    from featurestore.cli.inventory import key_holdings

    parsed, prefix = read_key(key, store)
    holdings = [
        holding for holding in key_holdings(store, parsed) if prefix is None or holding.fingerprint.startswith(prefix)
    ]
    if not holdings:
        raise nothing_stored(parsed, store, prefix)
    if as_json:
        echo_json([_info(holding) for holding in holdings])
        return
    for number, holding in enumerate(holdings):
        if number:
            click.echo()
        _show_info(holding)
        _say_damage(holding, store)


def _info(holding: Holding) -> dict[str, Any]:
    return {**holding.as_json(), "made_with": _made_with(holding), "recipe_document": holding.recipe}


def _made_with(holding: Holding) -> list[dict[str, Any]]:
    """Distinct sets of versions with how many segments each made, and from when to when."""
    groups: dict[str, dict[str, Any]] = {}
    for made in holding.made_with:
        versions = {name: value for name, value in made.items() if name != "time"}
        when = made.get("time", "?")
        fresh = {**versions, "segments": 0, "first": when, "last": when}
        group = groups.setdefault(json.dumps(versions, sort_keys=True), fresh)
        group["segments"] += 1
        group["first"], group["last"] = min(group["first"], when), max(group["last"], when)
    return list(groups.values())


def _show_info(holding: Holding) -> None:
    shapes = ", ".join(map(str, holding.shapes[:4])) + (", ..." if len(holding.shapes) > 4 else "")
    click.echo(f"{holding.key}@{holding.fingerprint}")
    lines = [
        ("samples", f"{holding.samples:,} x {shapes or 'no shape yet'} {holding.dtype or ''}".rstrip()),
        ("size", f"{size_text(holding.bytes)} in {counted(holding.segments, 'segment')}"),
        (
            "to free",
            f"{size_text(holding.replaced_bytes)} in {counted(holding.replaced, 'replaced segment')}; see `fstore gc`",
        ),
        ("failures", f"{counted(holding.failures, 'sample')} that cannot be made"),
    ]
    for name, value in lines:
        if name not in ("to free", "failures") or not value.startswith("0 "):
            click.echo(f"  {name:<9} {value}")
    for made in _made_with(holding):
        versions = ", ".join(
            f"{name} {value}" for name, value in made.items() if name not in ("segments", "first", "last", "host")
        )
        when = made["first"] if made["first"] == made["last"] else f"{made['first']} to {made['last']}"
        click.echo(f"  made      {when} on {made.get('host', '?')}: {versions}")
    click.echo("  recipe")
    text = "cannot be read" if holding.recipe is None else json.dumps(holding.recipe, ensure_ascii=False, indent=2)
    click.echo("\n".join(f"    {line}" for line in text.splitlines()))


@click.command()
@click.argument("key")
@click.argument("id", metavar="ID")
@stored_option
@json_option
@click.pass_context
def explain(ctx: click.Context, key: str, id: str, store: Path, as_json: bool) -> None:
    """Show where the features of one sample come from: frames, sources, recipe, segment.

    An ID that begins with "-" goes after "--":

    \b
    fstore explain mer2023/frame/CLIP_VIT_LARGE/uniform/8 -- -6aNcD3dYJg_00

    Exit code 1 where the sample is not stored, cannot be made, is damaged, or its sources changed since.
    """
    from featurestore.cli.explanation import Explanation
    from featurestore.store import FeatureStore

    refuse_keys(ctx, key, [id], "ID")
    parsed, prefix = read_key(key, store)
    found = Explanation.of(FeatureStore(store, read_only=True).explain(parsed, id, fingerprint=prefix))
    if as_json:
        echo_json(found.as_json())
    else:
        click.echo(found.as_text())
    ctx.exit(0 if found.sound else 1)

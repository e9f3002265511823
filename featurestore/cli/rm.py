"""`fstore rm`: remove samples, or everything under a key."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.listing import nothing_stored
from featurestore.cli.options import gather_ids, ids_arguments, json_option, read_key, refuse_keys, stored_option
from featurestore.cli.output import counted, echo_json, size_text

if TYPE_CHECKING:  # it imports numpy
    from featurestore.key import FeatureKey


@click.command()
@click.argument("key")
@ids_arguments
@stored_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def rm(
    ctx: click.Context, key: str, ids: Sequence[str], ids_from: Path | None, store: Path, yes: bool, as_json: bool
) -> None:
    """Remove samples from KEY, or with no ids everything under it, all its recipes.

    \b
    fstore rm mer2023/frame/CLIP_VIT_LARGE/uniform/8@9756228b -- sample_00000001 -6aNcD3dYJg_00
    fstore rm mer2023/frame/CLIP_VIT_LARGE/uniform/8 --ids-from bad.txt
    fstore rm mer2023/frame/CLIP_VIT_LARGE/uniform/8

    Ids are removed under one recipe, which KEY@PREFIX names where there are several. What would go is
    listed before you are asked. Exit code 1 where some of the ids were not stored.
    """
    refuse_keys(ctx, key, ids)
    parsed, prefix = read_key(key, store)
    if ids or ids_from is not None:
        _remove_samples(ctx, parsed, prefix, gather_ids(ids, ids_from), store, yes, as_json)
    else:
        _remove_key(ctx, parsed, prefix, store, yes, as_json)


def _remove_samples(
    ctx: click.Context, key: FeatureKey, prefix: str | None, ids: list[str], store: Path, yes: bool, as_json: bool
) -> None:
    from featurestore.store import FeatureStore

    opened = FeatureStore(store)
    fingerprint = opened.info(key, fingerprint=prefix).fingerprint
    where = f"{key}@{fingerprint[:8]}"
    present = opened.available(key, ids, fingerprint=fingerprint)
    absent = opened.missing(key, ids, fingerprint=fingerprint)
    if present:
        _confirm(ctx, [f"{where}: {id}" for id in present], counted(len(present), "sample"), yes)
        opened.delete(key, present, fingerprint=fingerprint)
    if as_json:
        echo_json({"key": str(key), "recipe": fingerprint, "removed": present, "not_stored": absent})
    else:
        freed = f"; `fstore gc` frees {'its' if len(present) == 1 else 'their'} space" if present else ""
        click.echo(f"{where}: {counted(len(present), 'sample')} removed{freed}.")
        if absent:
            click.echo(f"{where}: not stored: {counted(len(absent), 'id')}, e.g. {absent[0]!r}.", err=True)
    ctx.exit(1 if absent else 0)


def _remove_key(ctx: click.Context, key: FeatureKey, prefix: str | None, store: Path, yes: bool, as_json: bool) -> None:
    from featurestore.cli.inventory import key_holdings
    from featurestore.store import FeatureStore

    holdings = [held for held in key_holdings(store, key) if held.fingerprint.startswith(prefix or "")]
    if not holdings:
        raise nothing_stored(key, store, prefix)
    lines = [
        f"{key}@{held.fingerprint[:8]}: {counted(held.samples, 'sample')}, {held.origin}, "
        f"{size_text(held.bytes + held.replaced_bytes)}"
        for held in holdings
    ]
    _confirm(ctx, lines, f"{counted(len(holdings), 'recipe')} with everything in it", yes)
    opened = FeatureStore(store)
    for held in holdings:
        opened.remove(key, fingerprint=held.fingerprint)
    if as_json:
        echo_json([held.as_json() for held in holdings])
    else:
        click.echo(f"{key}: {counted(sum(held.samples for held in holdings), 'sample')} removed.")


def _confirm(ctx: click.Context, lines: list[str], what: str, yes: bool) -> None:
    """List what would go, then ask.  An answer that is not yes ends the command with exit code 1."""
    shown = lines[:20]
    click.echo("\n".join(shown), err=True)
    if len(lines) > len(shown):
        click.echo(f"... and {len(lines) - len(shown)} more", err=True)
    if yes:
        return
    try:
        sure = click.confirm(f"Remove {what}?", err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise click.UsageError("nobody is there to ask: pass --yes") from None
    if not sure:
        click.echo("Nothing was removed.", err=True)
        ctx.exit(1)

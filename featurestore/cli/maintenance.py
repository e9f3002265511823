"""`fstore compact`, `rm` and `gc`: fewer files, fewer samples, less space."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.listing import nothing_stored
from featurestore.cli.options import gather_ids, ids_arguments, json_option, read_key, refuse_keys, stored_option
from featurestore.cli.output import counted, echo_json, size_text

if TYPE_CHECKING:  # it imports numpy
    from featurestore.key import FeatureKey
    from featurestore.store import FeatureStore


@click.command()
@click.argument("key")
@stored_option
@click.option(
    "--codec", type=click.Choice(["zstd", "none"]), help="Compress all rows, or none; else each stays as it is."
)
@json_option
def compact(key: str, store: Path, codec: str | None, as_json: bool) -> None:
    """Merge the small segments under KEY into few large ones.

    Readers see every sample at every moment. The merged segments stay for 15 minutes, for readers
    that have them open; `fstore gc` frees their space after that. Compression saves about a tenth of
    real features and makes reads several times slower.
    """
    from featurestore.store import FeatureStore

    parsed, prefix = read_key(key, store)
    opened = FeatureStore(store)
    before = opened.info(parsed, fingerprint=prefix)
    name = before.fingerprint
    merged = opened.compact(parsed, fingerprint=name, codec=codec)
    after = opened.info(parsed, fingerprint=name).segments
    if as_json:
        echo_json({"key": str(parsed), "recipe": name, "merged": merged, "segments": after})
    elif merged:
        click.echo(f"{parsed}@{name[:8]}: {merged} of {before.segments} segments merged, {after} now.")
    else:
        click.echo(f"{parsed}@{name[:8]}: nothing to merge, {counted(after, 'segment')}.")


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
        click.echo(f"{where}: {counted(len(present), 'sample')} removed; `fstore gc` frees their space.")
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


@click.command()
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@stored_option
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=900.0,
    show_default=True,
    metavar="SECONDS",
    help="Leave what was replaced more recently: a reader may have it open.",
)
@json_option
def gc(keys: Sequence[str], store: Path, grace: float, as_json: bool) -> None:
    """Free the space of what compact, rm and overwriting replaced, and of writers that were killed.

    Without KEY the whole store. Files that a writer may still be at work on stay for 15 minutes
    whatever --grace says. What waits for its grace to be over is listed with the time.
    """
    from featurestore.store import FeatureStore

    opened, done = FeatureStore(store), []
    for key, fingerprint in _feature_sets(keys, store):
        removed = opened.gc(key, fingerprint=fingerprint, grace_s=grace)
        found = {"key": str(key), "recipe": fingerprint, "removed": removed}
        found |= _waiting(opened, key, fingerprint, grace)
        if not (found["removed"] or found["waiting"]):
            continue
        done.append(found)
        if not as_json:
            _show_freed(found, f"{key}@{fingerprint[:8]}")
    if as_json:
        echo_json(done)
    elif not any(found["removed"] for found in done):
        click.echo("Nothing to remove." if not done else "Nothing to remove yet.")


def _waiting(opened: FeatureStore, key: FeatureKey, fingerprint: str, grace: float) -> dict[str, Any]:
    """What is replaced and stays for now: number, bytes, and when the last of it may go (UTC)."""
    from featurestore.errors import MissingFeatureError, UnknownRecipeError

    try:
        info = opened.info(key, fingerprint=fingerprint)
    except (MissingFeatureError, UnknownRecipeError):  # it was removed, and had left files
        return {"waiting": 0, "waiting_bytes": 0, "until": None}
    until = None
    if info.replaced_at is not None:
        until = datetime.fromtimestamp(info.replaced_at + grace, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"waiting": info.replaced, "waiting_bytes": info.replaced_bytes, "until": until}


def _show_freed(found: dict[str, Any], where: str) -> None:
    if found["removed"]:
        click.echo(f"{where}: {counted(found['removed'], 'replaced segment')} removed.")
    if found["waiting"]:
        click.echo(
            f"{where}: {counted(found['waiting'], 'replaced segment')} ({size_text(found['waiting_bytes'])}) kept "
            f"until {found['until']} for readers that opened before; --grace 0 frees the space now."
        )


def _feature_sets(keys: Sequence[str], store: Path) -> Iterator[tuple[FeatureKey, str]]:
    """(key, fingerprint) of all that is meant, also of what is gone and may have left files."""
    from featurestore.cli.inventory import fingerprints, walk
    from featurestore.key import FeatureKey

    for text in keys:
        key, prefix = read_key(text, store)
        found = [name for name in fingerprints(store, key) if name.startswith(prefix or "")]
        if not found:
            raise nothing_stored(key, store, prefix)
        yield from ((key, name) for name in found)
    if not keys:
        for _, parts in walk(store / ".fstore", 5):
            try:
                key = FeatureKey.parse("/".join(parts))
            except ValueError:
                continue
            yield from ((key, name) for name in fingerprints(store, key))

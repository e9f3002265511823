"""`fstore compact` and `gc`: fewer files, less space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.listing import nothing_stored
from featurestore.cli.options import json_option, read_key, stored_option
from featurestore.cli.output import counted, echo_json, size_text

if TYPE_CHECKING:  # it imports numpy
    from featurestore.key import FeatureKey
    from featurestore.store import FeatureStore


@click.command()
@click.argument("key")
@stored_option
@click.option("--codec", hidden=True)
@json_option
def compact(key: str, store: Path, codec: str | None, as_json: bool) -> None:
    """Merge the small segments under KEY into few large ones.

    Readers see every sample at every moment. The merged segments stay for 15 minutes, for readers
    that have them open; `fstore gc` frees their space after that.
    """
    from featurestore.store import FeatureStore

    if codec is not None:
        raise click.UsageError(
            "a store is not compressed any more: it saved about a tenth of real features and made reads many times "
            f"slower; `fstore pack {key} -o DIR` writes a compressed copy for an archive"
        )
    parsed, prefix = read_key(key, store)
    opened = FeatureStore(store)
    before = opened.info(parsed, fingerprint=prefix)
    name = before.fingerprint
    merged = opened.compact(parsed, fingerprint=name)
    after = opened.info(parsed, fingerprint=name).segments
    if as_json:
        echo_json({"key": str(parsed), "recipe": name, "merged": merged, "segments": after})
    elif merged:
        click.echo(f"{parsed}@{name[:8]}: {merged} of {before.segments} segments merged, {after} now.")
    else:
        click.echo(f"{parsed}@{name[:8]}: nothing to merge, {counted(after, 'segment')}.")


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

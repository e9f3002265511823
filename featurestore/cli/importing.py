"""`fstore import`: take in the folders of `.npy` files that other code wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.findings import advise
from featurestore.cli.options import GivenPath, json_option, read_key, store_option
from featurestore.cli.output import echo_json, echo_table
from featurestore.cli.progress import Bars

if TYPE_CHECKING:
    from featurestore.affectgpt.importing import ImportReport
    from featurestore.affectgpt.recompute import Match
    from featurestore.key import FeatureKey
    from featurestore.quality.findings import Finding


@click.command("import")
@click.argument("tree", type=GivenPath(), metavar="TREE")
@store_option
@click.option("--dataset", metavar="NAME|FILE.toml", help="Whose features these are, where the path does not say it.")
@click.option(
    "--origin",
    metavar="NAME",
    help="What the recipe calls this tree; default that of the same rows, else the last two parts of its path.",
)
@click.option("--folder", "only", multiple=True, metavar="NAME", help="Take only this feature folder (repeatable).")
@click.option("--as", "key_text", metavar="KEY", help="What TREE is, one folder or file of any name, as a key.")
@click.option("--skip-means", is_flag=True, help="Do not store utterances that are the mean of frames beside them.")
@click.option("--audit", is_flag=True, help="Also report all that is suspicious; exit 1 if there is anything.")
@click.option("--dry-run", is_flag=True, help="Only check and report; store nothing.")
@click.option("--root", type=GivenPath(), metavar="DIR", help="Folder with the datasets' files: ids, media.")
@click.option("--manifest", type=GivenPath(), metavar="FILE", help="The same for one dataset, as a manifest.")
@click.option("--recompute", type=click.IntRange(1), metavar="N", help="Make N random samples of each folder again.")
@click.option("--recompute-as", metavar="SAMPLING", help="With this sampling, e.g. emotion_peak_fork.")
@click.option("--weights", metavar="SPEC", help="For --recompute: random:SEED, a directory, or a hub id[@revision].")
@click.option("--mer-factory", type=GivenPath(), metavar="DIR", help="For --recompute: MER-Factory's output.")
@click.option("--device", help="For --recompute, e.g. cuda:0.")
@json_option
@click.pass_context
def import_(
    ctx: click.Context,
    tree: Path,
    store: Path,
    dataset: str | None,
    origin: str | None,
    only: tuple[str, ...],
    key_text: str | None,
    skip_means: bool,
    audit: bool,
    dry_run: bool,
    root: Path | None,
    manifest: Path | None,
    recompute: int | None,
    recompute_as: str | None,
    weights: str | None,
    mer_factory: Path | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Take in a TREE of feature folders: {dataset}/{feature folder}/{sample}.npy, as published scripts write it.

    TREE may also be one dataset's folder, or one feature folder: frame_ENCODER_SAMPLING_8frms and its like, MODEL-UTT,
    MODEL-FRA, or with --as KEY one of any name. Values are kept bit for bit, under a recipe that says where they came
    from. What cannot be imported is named and left where it is; the exit code is then 1.

    TREE may also be a store of format 1: all of it is copied into --store, as it is and under the same recipes.
    """
    from featurestore.storage.format_1 import is_old_store

    if is_old_store(tree):
        from featurestore.cli.old_store import import_old_store

        return import_old_store(ctx, tree, store, dry_run, as_json)
    from featurestore.affectgpt.importing import import_tree
    from featurestore.affectgpt.sources import Sources
    from featurestore.store import FeatureStore

    if root is not None and manifest is not None:
        raise click.UsageError("give --root or --manifest, not both")
    if recompute is not None and root is None and manifest is None and not (dataset or "").endswith(".toml"):
        raise click.UsageError("--recompute needs the media: --root DIR or --manifest FILE")
    key = _as_key(key_text, dataset, only, recompute, store)
    if dataset is not None:
        _tell_unknown(dataset)
    if recompute is not None:
        from featurestore.affectgpt.recompute import check_recompute

        check_recompute(tree, dataset=dataset, only=only, sampling=recompute_as, weights=weights, device=device)
    sources = Sources(root, manifest, mer_factory)
    target = None
    if not dry_run:
        target = FeatureStore(store)
    elif (store / "data" / "zarr.json").is_file():  # else there is nothing to look into, and nothing is made
        target = FeatureStore(store, read_only=True)
    with Bars() as bars:
        report = import_tree(
            tree,
            target,
            dataset=dataset,
            origin=origin,
            only=only,
            audit=audit,
            dry_run=dry_run,
            key=key,
            skip_means=skip_means,
            known=sources.known,
            progress=bars,
        )
    advise(report.findings)
    if not as_json:
        _print_report(report, dry_run)
    matches = []
    if recompute is not None:
        from featurestore.affectgpt.recompute import recompute_tree

        matches = recompute_tree(
            tree, sources, recompute, dataset=dataset, only=only, sampling=recompute_as, weights=weights, device=device
        )
    if as_json:
        more = {"store": None if dry_run else str(store), "recomputed": [match.as_json() for match in matches]}
        echo_json(report.as_json() | more)
    else:
        _print_matches(matches)
        if recompute is not None and not matches:
            click.echo("\nNothing was made again: none of the samples is one whose media are known. Exit code 1.")
        click.echo("")
        if dry_run:
            would = sum(folder.would_store for folder in report.folders)
            place = f"in {store} under {_origins(report)}"
            click.echo(f"Nothing was stored (--dry-run): {would:,} samples would be, {place}.")
        else:
            stored = sum(folder.stored for folder in report.folders)
            click.echo(f"{stored:,} samples stored in {store} under {_origins(report)}.")
    compared = recompute is None or (len(matches) > 0 and all(match.good for match in matches))
    if report.findings or not compared:
        ctx.exit(1)


def _as_key(
    text: str | None, dataset: str | None, only: tuple[str, ...], recompute: int | None, store: Path
) -> FeatureKey | None:
    if text is None:
        return None
    if dataset is not None or only or recompute is not None:
        raise click.UsageError("--as KEY says all of one folder: leave --dataset, --folder and --recompute out")
    key, recipe = read_key(text, store)
    if recipe is not None:
        raise click.UsageError(f"--as {text}: a key without @RECIPE, which follows from where the files come from")
    return key


def _tell_unknown(dataset: str) -> None:
    """A name that is no known dataset's is one of the user's own; it may be a slip, so it is said."""
    from featurestore.datasets import resolve_dataset
    from featurestore.datasets.declaration import nearest_name
    from featurestore.errors import UnknownDatasetError

    try:
        resolve_dataset(dataset)
    except UnknownDatasetError:
        hint = f" (did you mean {near}?)" if (near := nearest_name(dataset)) else ""
        click.echo(f"{dataset} is not a known dataset: taken as your own{hint}", err=True)


def _origins(report: ImportReport) -> str:
    """`origin 'a/b'`, and why it is another than that of the path."""
    found = list(dict.fromkeys(folder.origin for folder in report.folders)) or [report.origin]
    text = f"origin{'s' if len(found) > 1 else ''} {', '.join(map(repr, found))}"
    if set(found) == {report.origin}:
        return text
    return f"{text}, where the same rows are stored already (--origin {report.origin} keeps them apart)"


def _print_report(report: ImportReport, dry_run: bool) -> None:
    header = ["folder", "files", "expected", "would_store" if dry_run else "stored", "present", "refused", "suspect"]
    echo_table(
        [name.upper().replace("_", " ") for name in header],
        [[getattr(folder, name) for name in header] for folder in report.folders],
    )
    for folder in report.folders:
        if folder.means is not None:
            which = f"the {folder.means} of {folder.files}" if folder.means < folder.files else f"all {folder.files}"
            kept = "left out, as they can be made of them" if folder.derived else "stored as well"
            click.echo(f"{folder.folder}: {which} are the mean of their frames to the bit; {kept}.")
    if report.findings:
        if report.folders:
            click.echo("")
        echo_table(["FINDING", "FOLDER", "WHAT"], [_finding_row(finding) for finding in report.findings])


def _finding_row(finding: Finding) -> list[str]:
    to_do = f"; {finding.to_do}" if finding.to_do else ""
    return [finding.kind, finding.where, f"{finding.named}{to_do}"]


def _print_matches(matches: list[Match]) -> None:
    if matches:
        click.echo("")
        echo_table(["MADE AGAIN", "SAMPLE", "MAX ABS", "COSINE", ""], [_match_row(match) for match in matches])
    bad = [match for match in matches if not match.good]
    if bad:
        from featurestore.quality.compare import SAME_DIRECTION, SAME_LENGTH

        differ = sum(match.problem is None for match in bad)
        click.echo(
            f"\nOf {len(matches)} made again {differ} differ (a row has a cosine below {SAME_DIRECTION}, or a length "
            f"more than {SAME_LENGTH - 1:.0%} off) and {len(bad) - differ} could not be compared: exit code 1."
        )


def _match_row(match: Match) -> list[object]:
    if match.max_abs is None or match.cosine is None:
        return [match.folder, match.id, None, None, match.problem]
    return [match.folder, match.id, f"{match.max_abs:.1e}", f"{match.cosine:.6f}", "" if match.good else "DIFFERS"]

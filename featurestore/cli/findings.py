"""Findings on the command line: what `fstore verify` and `import` advise, by lines to paste."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from featurestore.cli.extractor_options import stored_options
from featurestore.cli.hints import again

if TYPE_CHECKING:  # it imports numpy
    from featurestore.quality.findings import Finding


def advise(findings: Iterable[Finding]) -> None:
    """Put what the command line advises in the place of what a program is advised."""
    for finding in findings:
        if finding.kind in ADVICE and finding.advice:
            finding.advice = ADVICE[finding.kind](finding)


def _extract(finding: Finding) -> str:
    stored = stored_options(finding.key, finding.recipe) if finding.key is not None else ()
    return f"`{again('extract', finding.key, stored=stored)}`"


def _failed(finding: Finding) -> str:
    # Only extract has to be told under which settings: retry takes those of what is stored by itself.
    mend = f"mend the cause, then `{again('retry', finding.key)}`"
    return f"`{again('ls', finding.key, '--failures')}` says of each why; {mend}" if len(finding.ids) > 1 else mend


def _remove(finding: Finding) -> str:
    return f"`{again('rm', finding.key, '--', 'ID')}` removes it, then extract makes it again"


def _import(finding: Finding) -> str:
    (tree, name), *meant = finding.datasets
    own = "if it is your own: " if name != "NAME" else ""
    lines = [f"{own}`{again('import', tree, '--dataset', name)}`"]
    return "; ".join(
        lines + [f"if {near} is meant: `{again('import', path, '--dataset', near)}`" for path, near in meant]
    )


def _duplicate(finding: Finding) -> str:
    line = again("explain", finding.key, "--", "ID")
    return f"does the source name one file under several ids? `{line}` shows which was read"


def _extra(finding: Finding) -> str:
    return f"the source may be of one split; else `{again('rm', finding.key, '--', 'ID')}` removes them"


ADVICE: dict[str, Callable[[Finding], str]] = {
    "missing": lambda finding: f"run {_extract(finding)}",
    "stale": lambda finding: f"{_extract(finding)} makes them again",
    "failed": _failed,
    "extra": _extra,
    "nonfinite": lambda finding: f"check its media; {_remove(finding)}",
    "zero": lambda finding: f"check its media; {_remove(finding)}",
    "differs": lambda finding: f"find out which is right; {_remove(finding)}",
    "duplicate": _duplicate,
    "unknown_dataset": _import,
    "two_folders": lambda finding: (
        f"take one with --folder {finding.where}, another with --folder and an --origin of its own"
    ),
    "exists": lambda finding: "give another tree another --origin",
    "identical": lambda finding: "name them with --root DIR or --manifest FILE",
}

"""verify: everything that is wrong with a store, as findings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featurestore.errors import ConfigError, FeatureStoreError
from featurestore.features import Compute
from featurestore.key import FeatureKey
from featurestore.reader import UnknownFormatError
from featurestore.recipe import Recipe
from featurestore.samples import Sample
from featurestore.shelf import Shelf
from featurestore.verify.content import Content
from featurestore.verify.coverage import check_coverage
from featurestore.verify.damage import Damage
from featurestore.verify.findings import Finding, Findings
from featurestore.verify.remaking import check_again, choose, require_same_recipe
from featurestore.verify.tree import Tree

Progress = Callable[[int], object]
Line = Callable[[str, FeatureKey, Recipe | None], str]
"""(command, key, recipe where there is one) -> the line that an advice names"""


def plain_line(command: str, key: FeatureKey, recipe: Recipe | None) -> str:
    return f"fstore {command} {key}"


@dataclass
class Report:
    """What `verify` looked at and found."""

    findings: list[Finding] = field(default_factory=list)
    recipes: int = 0
    segments: int = 0
    samples: int = 0
    full: bool = False
    coverage: list[str] = field(default_factory=list)
    """`KEY@PREFIX` of the recipes that were compared with a source"""
    no_coverage: list[str] = field(default_factory=list)
    """those for which no source was given"""
    gone: dict[str, list[str]] = field(default_factory=dict)
    """`KEY@PREFIX` -> stored samples whose media are not there any more, so that a change of them cannot be seen"""
    made_again: int = 0
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        rest = {name: value for name, value in vars(self).items() if name != "findings"}
        return {"clean": self.clean, **rest, "findings": [finding.as_json() for finding in self.findings]}


def verify(
    root: Path,
    keys: Mapping[FeatureKey, str | None] | None = None,
    *,
    sources: Mapping[str, Mapping[str, Sample]] | None = None,
    full: bool = False,
    recompute: int = 0,
    compute: Compute | None = None,
    repair: bool = False,
    progress: Progress = lambda count: None,
    line: Line = plain_line,
) -> Report:
    """Check a store, or some keys of it, and say what is wrong.

    keys       {key: prefix of a recipe, or None for all its recipes}; by default everything
    sources    {dataset: {id: Sample}}; without one for its dataset the coverage of a key is not checked
    full       read every byte and look at every value; fast otherwise: one look at each segment's documents
    recompute  make this many samples of each recipe again; needs `compute` and a source
    compute    also gives back a recipe whose document was lost, with `repair`
    repair     write documents anew and move what is damaged into `.fstore/.../quarantine`; nothing is deleted
    progress   called with the number of rows that were just read, with `full`
    line       what an advice calls a command line: `fstore verify` repeats the options that it was given

    Cost, fast: about 0.1 ms a segment, and with a source what listing the ids and one stat per sample
    take.  Raises ConfigError where something cannot be made again for the settings given.
    """
    started = time.perf_counter()
    keys, sources = keys or {}, sources or {}
    if recompute and compute is None:
        raise ConfigError("recompute needs a compute that makes samples again")
    findings, report = Findings(), Report(full=full)
    tree = Tree(root.absolute(), findings)
    tree.check(keys)
    shelves = [Shelf(place.root, place.key, place.fingerprint) for place in tree.places]
    own = _own_recipes(shelves, compute, required=recompute > 0)
    if repair:
        tree.repair({shelf.place.recipe_dir: recipe for shelf, recipe in own.items() if _is_of(recipe, shelf)})
    for shelf in shelves:
        _check_shelf(shelf, sources.get(shelf.key.dataset), full, repair, findings, report, progress, line)
    for key, prefix in keys.items():
        if not any(shelf.key == key for shelf in shelves):
            what = f"nothing is stored{f' under a recipe {prefix}' if prefix else ''}"
            findings.add("missing", key, what, f"run `{line('extract', key, None)}`", *sources.get(key.dataset, ()))
    if recompute and compute is not None:
        report.made_again = _make_again(shelves, own, compute, sources, recompute, findings)
    report.findings = list(findings)
    report.seconds = round(time.perf_counter() - started, 3)
    return report


def _check_shelf(
    shelf: Shelf,
    samples: Mapping[str, Sample] | None,
    full: bool,
    repair: bool,
    findings: Findings,
    report: Report,
    progress: Progress,
    line: Line,
) -> None:
    where = name_of(shelf)
    damage = Damage(shelf, where, findings)
    try:
        damage.check()
    except UnknownFormatError as error:
        findings.add("format", where, str(error), "upgrade featurestore")
        return
    report.recipes += 1
    report.segments += len(shelf.reader.segments)
    report.samples += len(shelf.reader)
    if full:
        content = Content(shelf.key.modality, where, findings)
        for row, values in damage.rows():
            content.look(row, values)
            progress(1)
        content.finish()
    if repair:
        damage.repair()
    if samples is None:
        report.no_coverage.append(where)
    else:
        report.coverage.append(where)
        gone = check_coverage(shelf, samples, where, damage, findings, lambda command: _line_of(line, command, shelf))
        if gone:
            report.gone[where] = gone


def _line_of(line: Line, command: str, shelf: Shelf) -> str:
    try:
        recipe = shelf.recipe
    except FeatureStoreError:
        recipe = None  # a finding of its own
    return line(command, shelf.key, recipe)


def _own_recipes(shelves: Sequence[Shelf], compute: Compute | None, required: bool) -> dict[Shelf, Recipe]:
    """The compute's recipe of each key, as far as it can tell."""
    own: dict[FeatureKey, Recipe] = {}
    for key in {shelf.key for shelf in shelves} if compute is not None else ():
        assert compute is not None
        try:
            own[key] = Recipe.of(compute.recipe(key))
        except FeatureStoreError:
            if required:
                raise
    return {shelf: own[shelf.key] for shelf in shelves if shelf.key in own}


def _is_of(recipe: Recipe, shelf: Shelf) -> bool:
    return recipe.fingerprint == shelf.fingerprint


def _make_again(
    shelves: Sequence[Shelf],
    own: Mapping[Shelf, Recipe],
    compute: Compute,
    sources: Mapping[str, Mapping[str, Sample]],
    count: int,
    findings: Findings,
) -> int:
    made = 0
    for key in dict.fromkeys(shelf.key for shelf in shelves):
        ours = [shelf for shelf in shelves if shelf.key == key]
        # Of several recipes the one that these settings make; with none of them the first says what differs.
        shelf = next((shelf for shelf in ours if _is_of(own[shelf], shelf)), ours[0])
        require_same_recipe(shelf, own[shelf])
        ids = choose(shelf, sources.get(key.dataset, {}), count)
        check_again(shelf, compute, ids, name_of(shelf), findings)
        made += len(ids)
    return made


def name_of(shelf: Shelf) -> str:
    """`KEY@PREFIX`."""
    return f"{shelf.key}@{shelf.fingerprint[:8]}"

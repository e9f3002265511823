"""check_store: everything that is wrong with a store, as findings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featurestore.errors import ConfigError, FeatureStoreError
from featurestore.features import Compute
from featurestore.key import FeatureKey
from featurestore.quality.content import ContentCheck
from featurestore.quality.coverage import check_coverage, check_media, in_python
from featurestore.quality.findings import Finding, Findings
from featurestore.quality.integrity import Damage
from featurestore.quality.published import check_published
from featurestore.quality.recompute import check_again, choose, require_same_recipe
from featurestore.quality.tree import Tree
from featurestore.recipe import Recipe
from featurestore.sample import Sample
from featurestore.storage.feature_set import FeatureSet
from featurestore.storage.reader import UnknownFormatError

Progress = Callable[[int], object]


@dataclass
class VerifyReport:
    """What `check_store` looked at and found."""

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
    """`KEY@PREFIX` -> stored samples whose media are not there, so that a change of them cannot be seen"""
    unnamed: dict[str, list[str]] = field(default_factory=dict)
    """... for which the source does not name what they were made of"""
    unrecorded: dict[str, list[str]] = field(default_factory=dict)
    """... with which it was not recorded what they were made of"""
    made_again: int = 0
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        rest = {name: value for name, value in vars(self).items() if name != "findings"}
        return {"clean": self.clean, **rest, "findings": [finding.as_json() for finding in self.findings]}


def check_store(
    root: Path,
    keys: Mapping[FeatureKey, str | None] | None = None,
    *,
    sources: Mapping[str, Mapping[str, Sample]] | None = None,
    full: bool = False,
    recompute: int = 0,
    compute: Compute | None = None,
    repair: bool = False,
    progress: Progress = lambda count: None,
) -> VerifyReport:
    """Check a store, or some keys of it, and say what is wrong.

    keys       {key: prefix of a recipe, or None for all its recipes}; by default everything
    sources    {dataset: {id: Sample}}; without one for its dataset the coverage of a key is not checked
    full       read every byte and look at every value; fast otherwise: one look at each segment's documents
    recompute  make this many samples of each recipe again; needs `compute` and a source
    compute    also gives back a recipe whose document was lost, with `repair`
    repair     write documents anew and move what is damaged into `.fstore/.../quarantine`; nothing is deleted
    progress   called with the number of rows that were just read, with `full`

    Cost, fast: about 0.1 ms a segment, and what reading the line of each sample and looking at its files (one
    stat each) takes.  Raises ConfigError where something cannot be made again for the settings given.
    """
    started = time.perf_counter()
    keys, sources = keys or {}, sources or {}
    if recompute and compute is None:
        raise ConfigError("recompute needs a compute that makes samples again")
    findings, report = Findings(), VerifyReport(full=full)
    tree = Tree(root.absolute(), findings)
    tree.check(keys)
    feature_sets = [FeatureSet(place.root, place.key, place.fingerprint) for place in tree.places]
    own = _own_recipes(feature_sets, compute, required=recompute > 0)
    if repair:
        tree.repair(
            {
                feature_set.layout.recipe_dir: recipe
                for feature_set, recipe in own.items()
                if _is_of(recipe, feature_set)
            }
        )
    for feature_set in feature_sets:
        _check_feature_set(feature_set, sources.get(feature_set.key.dataset), full, repair, findings, report, progress)
    check_published(tree.root, feature_sets, repair, findings)
    for key, prefix in keys.items():
        if not any(feature_set.key == key for feature_set in feature_sets):
            what = f"nothing is stored{f' under a recipe {prefix}' if prefix else ''}"
            advice = f"{in_python('extract', key)} makes them"
            findings.add("missing", key, what, *sources.get(key.dataset, ()), advice=advice, key=key)
    if recompute and compute is not None:
        report.made_again = _make_again(feature_sets, own, compute, sources, recompute, findings)
    report.findings = list(findings)
    report.seconds = round(time.perf_counter() - started, 3)
    return report


def _check_feature_set(
    feature_set: FeatureSet,
    samples: Mapping[str, Sample] | None,
    full: bool,
    repair: bool,
    findings: Findings,
    report: VerifyReport,
    progress: Progress,
) -> None:
    where = name_of(feature_set)
    damage = Damage(feature_set, where, findings)
    try:
        damage.check()
    except UnknownFormatError as error:
        what, _, advice = str(error).rpartition(": ")
        findings.add("format", where, what, advice=advice)
        return
    report.recipes += 1
    report.segments += len(feature_set.reader.segments)
    report.samples += len(feature_set.reader)
    if full:
        content = ContentCheck(feature_set.key, where, findings)
        for row, values in damage.rows():
            content.look(row, values)
            progress(1)
        content.finish()
    if repair:
        damage.repair()

    if samples is None:
        report.no_coverage.append(where)
        unchecked = check_media(damage, where, findings)
    else:
        report.coverage.append(where)
        unchecked = check_coverage(feature_set, samples, where, damage, findings)
    for why, ids in vars(unchecked).items():
        if ids:
            getattr(report, why)[where] = ids


def _own_recipes(
    feature_sets: Sequence[FeatureSet], compute: Compute | None, required: bool
) -> dict[FeatureSet, Recipe]:
    """The compute's recipe of each key, as far as it can tell."""
    own: dict[FeatureKey, Recipe] = {}
    for key in {feature_set.key for feature_set in feature_sets} if compute is not None else ():
        assert compute is not None
        try:
            own[key] = Recipe.of(compute.recipe(key))
        except FeatureStoreError:
            if required:
                raise
    return {feature_set: own[feature_set.key] for feature_set in feature_sets if feature_set.key in own}


def _is_of(recipe: Recipe, feature_set: FeatureSet) -> bool:
    return recipe.fingerprint == feature_set.fingerprint


def _make_again(
    feature_sets: Sequence[FeatureSet],
    own: Mapping[FeatureSet, Recipe],
    compute: Compute,
    sources: Mapping[str, Mapping[str, Sample]],
    count: int,
    findings: Findings,
) -> int:
    made = 0
    for key in dict.fromkeys(feature_set.key for feature_set in feature_sets):
        ours = [feature_set for feature_set in feature_sets if feature_set.key == key]
        # Of several recipes the one that these settings make; with none of them the first says what differs.
        feature_set = next((feature_set for feature_set in ours if _is_of(own[feature_set], feature_set)), ours[0])
        require_same_recipe(feature_set, own[feature_set])
        ids = choose(feature_set, sources.get(key.dataset, {}), count)
        check_again(feature_set, compute, ids, name_of(feature_set), findings)
        made += len(ids)
    return made


def name_of(feature_set: FeatureSet) -> str:
    """`KEY@PREFIX`."""
    return f"{feature_set.key}@{feature_set.fingerprint[:8]}"

"""Plan: where every input of a run will come from, and all that is wrong with them, before a model is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from affect_infer.run.certificate import read_certificate
from affect_infer.run.checks import check_media
from affect_infer.run.inputs import Captions, Fetched, Live, Source, Supply, Text
from affect_infer.settings.settings import Settings, Task
from featurestore.errors import (
    AmbiguousRecipeError,
    ConfigError,
    InputError,
    MissingFeatureError,
    RecipeError,
    UnknownRecipeError,
    WeightsNotFoundError,
)
from featurestore.features import Failure
from featurestore.key import FeatureKey

if TYPE_CHECKING:
    from featurestore.compute.extractor import Extractor
    from featurestore.store import FeatureStore

SHOWN = 20  # problems listed per modality in the one message


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one modality of a dataset comes from, and why."""

    modality: str
    policy: str
    key: FeatureKey | None
    """None for a text"""
    recipe: str | None
    """fingerprint of what is read or computed; None for a text"""
    stored: int
    """how many samples are stored"""
    to_compute: tuple[str, ...]
    """ids whose media will be read in this run"""
    why: str
    certificate: str | None = None
    """what a parity certificate says, where rows of two recipes are mixed"""


@dataclass
class RunPlan:
    """One dataset of a run."""

    task: Task
    settings: Settings
    extractor: Extractor
    origins: dict[str, Origin] = field(default_factory=dict)
    problems: dict[str, dict[str, Failure]] = field(default_factory=dict)
    """sample id -> modality or `subtitle` -> what is wrong"""

    def supply(self, ids: Sequence[str]) -> Supply:
        """Sources of these samples, to be taken in this order."""
        return Supply({modality: self._source(modality, ids) for modality in self.origins})

    @property
    def computes(self) -> bool:
        """Whether anything is made in this run.  Reading rows alone is faster than handing them between threads."""
        return any(origin.to_compute for origin in self.origins.values())

    def usable(self, id: str, modality: str) -> bool:
        """Whether the check found nothing wrong."""
        return modality not in self.problems.get(id, {})

    def _source(self, modality: str, ids: Sequence[str]) -> Source:
        from featurestore.store import FeatureStore

        task, key = self.task, self.origins[modality].key
        ids = [id for id in ids if self.usable(id, modality)]
        if key is None:
            return Text(task.samples) if task.captions is None else Captions(task.captions)
        if task.policies[modality] == "live":
            return Live(self.extractor, key, ids)
        pinned = self._pinned(modality)
        reading = FeatureStore(task.store), pinned
        if task.policies[modality] == "store_only" or (pinned and not self.settings.allow_mix):
            return Fetched(key, reading)
        # A store that cannot be written is still read; what is computed is then not kept, and counted.
        read_only = task.store.exists() and not os.access(task.store, os.W_OK)
        own = FeatureStore(task.store, compute=self.extractor, read_only=read_only), None
        return Fetched(key, reading, own) if pinned else Fetched(key, own)

    def _pinned(self, modality: str) -> str | None:
        return self.settings.frame_recipe if modality == "frame" else None


def make_plan(task: Task, settings: Settings, extractor: Extractor) -> RunPlan:
    """Decide where every modality comes from.  No media are read, no model or encoder is loaded.

    Raises RecipeError with the ways out where rows are stored only under another recipe than this run's,
    WeightsNotFoundError where something must be computed without weights, ConfigError.
    """
    plan = RunPlan(task, settings, extractor)
    for modality in task.wanted():
        if modality in task.policies:
            plan.origins[modality] = _origin(plan, modality)
    return plan


def check_inputs(plan: RunPlan, ids: Sequence[str]) -> None:
    """Fill in the problems of these samples, and forget those of others.

    Raises ConfigError where the frame counts of descriptions and videos disagree.
    """
    task = plan.task
    chosen = set(ids)
    plan.problems = {id: found for id, found in plan.problems.items() if id in chosen}
    if "subtitle" in task.mode.needs:
        why = (
            "no subtitle; add it to the manifest or the dataset's table of transcripts ('' means that nothing is said)"
        )
        for id in ids:
            if task.samples[id].subtitle is None:
                plan.problems.setdefault(id, {})["subtitle"] = Failure("subtitle", f"sample {id!r} has {why}")
    for modality, origin in plan.origins.items():
        reading = [id for id in origin.to_compute if id in chosen]
        for id, failure in check_media(origin.key, reading, plan.extractor, task.samples).items():
            plan.problems.setdefault(id, {})[modality] = failure


def problems_text(plans: Sequence[RunPlan]) -> str | None:
    """One message for everything that is wrong, or None."""
    parts = []
    for plan in plans:
        if not plan.problems:
            continue
        parts.append(f"{len(plan.problems)} of {len(plan.task.samples)} samples of {plan.task.name} lack an input:")
        for name in [*plan.origins, "subtitle"]:
            found = [wrong[name].message for wrong in plan.problems.values() if name in wrong]
            if found:
                parts.append(f"  {name}: {len(found)}")
                parts += [f"    {message}" for message in found[:SHOWN]]
                parts += [f"    ... and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    if not parts:
        return None
    parts.append(
        "Mend them; or leave these samples out with --on-missing skip, or the sentences about what they lack with "
        "--on-missing mask (each is counted and recorded)"
    )
    return "\n".join(parts)


def check_problems(plans: Sequence[RunPlan], settings: Settings) -> None:
    """InputError with all problems, unless the settings say what to do about them."""
    if settings.on_missing == "error" and (text := problems_text(plans)) is not None:
        raise InputError(text)


def _origin(plan: RunPlan, modality: str) -> Origin:
    task = plan.task
    policy, key, ids = task.policies[modality], task.keys.get(modality), tuple(task.samples)
    if key is None and task.captions is not None:
        have = sum(id in task.captions for id in ids)
        why = f"texts of nonverbal_json, put into the prompt; {have} of {len(ids)} samples have one"
        return Origin(modality, policy, None, None, 0, (), why)
    if key is None:
        return Origin(modality, policy, None, None, 0, ids, "descriptions by MER-Factory, put into the prompt as text")
    if policy == "live":
        fingerprint = _own_recipe(plan, key)
        why = "computed for this run, neither looked up nor kept (policy live)"
        return Origin(modality, policy, key, fingerprint, 0, ids, why)
    return _stored_origin(plan, modality, key)


def _stored_origin(plan: RunPlan, modality: str, key: FeatureKey) -> Origin:
    from featurestore.store import FeatureStore

    task, settings, ids = plan.task, plan.settings, list(plan.task.samples)
    store, policy, pinned = FeatureStore(task.store), task.policies[modality], plan._pinned(modality)
    held = {name: count for name in store.recipes(key) if (count := store.info(key, fingerprint=name).samples)}
    certificate = None
    if pinned is not None:
        recipe = _one_of(held, pinned, key, task)
        why = f"rows of recipe {recipe[:8]} as asked for; what it lacks is an error (--frame-recipe)"
        if settings.allow_mix:
            own = _own_recipe(plan, key)
            certificate = read_certificate(task.store, key, recipe, own).require()
            why = f"rows of recipe {recipe[:8]}; what it lacks is computed into {own[:8]} (--frame-recipe --allow-mix)"
    elif policy == "store_only":
        if not held:
            raise MissingFeatureError(
                f"nothing is stored under {key} in {task.store}, and its policy is store_only",
                advice="run `featurestore.extract` first",
                key=key,
                ids=ids,
                root=task.store,
            )
        recipe = _only_recipe(store, key)
        why = "only what is stored; a miss is an error (policy store_only)"
    else:
        recipe = _own_recipe(plan, key)
        why = "a miss is computed with the same recipe and kept (policy store)"
        if held and recipe not in held and not settings.recompute:
            raise _other_recipe(task, key, held, recipe)
    missing = store.missing(key, ids, fingerprint=recipe) if recipe in held else ids
    computes = policy == "store" and (pinned is None or settings.allow_mix)
    if computes:
        for id, record in FeatureStore(task.store, compute=plan.extractor).failures(key).items():
            if id in task.samples and not record.is_void():
                plan.problems.setdefault(id, {})[modality] = Failure(record.reason, record.message, False)
    to_compute = tuple(id for id in missing if plan.usable(id, modality)) if computes else ()
    if policy == "store_only" or (pinned is not None and not settings.allow_mix):
        for id in missing:
            message = f"sample {id!r} is not stored under {key}@{recipe[:8]}"
            plan.problems.setdefault(id, {})[modality] = Failure("not stored", message, False)
    if to_compute and settings.skip_encoders:
        raise ConfigError(
            f"skip_encoders is True, but {len(to_compute)} samples of {task.name} are not stored under {key} and need "
            f"its encoder: set skip_encoders to False, or extract them first"
        )
    return Origin(modality, policy, key, recipe, len(ids) - len(missing), to_compute, why, certificate)


def _only_recipe(store: FeatureStore, key: FeatureKey) -> str:
    """The one that is stored; AmbiguousRecipeError lists several."""
    try:
        return store.info(key).fingerprint
    except AmbiguousRecipeError as error:
        way = "\nSay which with --frame-recipe PREFIX" if key.modality == "frame" else ""
        raise AmbiguousRecipeError(f"{error.problem}{way}") from error


def _own_recipe(plan: RunPlan, key: FeatureKey) -> str:
    """Fingerprint of what this run would compute."""
    from featurestore.recipe import Recipe

    try:
        return Recipe.of(plan.extractor.recipe(key)).fingerprint
    except WeightsNotFoundError as error:
        raise WeightsNotFoundError(
            f"{error.problem}. Give them with --weights {key.encoder}=DIR, or --weights {key.encoder}=random:0 to try "
            f"things out; where all of {key} is stored, --policy {key.modality}=store_only reads it without weights"
        ) from error


def _one_of(held: Mapping[str, int], prefix: str, key: FeatureKey, task: Task) -> str:
    found = [name for name in held if name.startswith(prefix)]
    if len(found) != 1 or len(prefix) < 6:
        rows = ", ".join(f"{name[:8]} ({count} samples)" for name, count in held.items())
        raise UnknownRecipeError(
            f"--frame-recipe {prefix}: give a unique prefix of 6 or more hex digits; under {key} {task.store} has "
            f"{rows or 'nothing'}"
        )
    return found[0]


def _other_recipe(task: Task, key: FeatureKey, held: Mapping[str, int], own: str) -> RecipeError:
    rows = "\n".join(f"  {name[:8]}  {count} samples" for name, count in held.items())
    first = next(iter(held))[:8]
    ways = (
        f"  --frame-recipe {first}              read those rows; a miss is an error\n"
        f"  --frame-recipe {first} --allow-mix  and compute misses into {own[:8]}, once `affect-infer parity` has "
        "certified that the two agree\n"
        if key.modality == "frame"
        else f"  --policy {key.modality}=store_only   read those rows; a miss is an error\n"
    )
    return RecipeError(
        f"{key} is stored in {task.store}, but not with the recipe that this run computes, {own[:8]}:\n{rows}\n"
        f"They may differ in more than rounding. Choose:\n{ways}"
        f"  --recompute                          compute all of it with {own[:8]} and keep it beside those",
        advice="`FeatureStore.recipes` has them to compare",
        key=key,
        root=task.store,
    )

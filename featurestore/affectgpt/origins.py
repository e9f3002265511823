"""Origins: whether the rows of a tree are stored already, as those of a tree that was somewhere else then."""

from __future__ import annotations

import dataclasses
from typing import Any

from featurestore.affectgpt.intake import Intake, read_batches
from featurestore.quality.findings import Findings
from featurestore.recipe import Recipe
from featurestore.store import FeatureStore

LAYOUT = "affectgpt"


def recipe_for(intake: Intake, origin: str) -> Recipe:
    """The recipe of a folder's rows: where they came from, and what its name says of how they were made."""
    folder, form = intake.folder, intake.form
    own = imported_recipe(origin, str(intake.dtype or "float32"))
    if folder.strict:
        return own
    facts: dict[str, Any] = {"folder": folder.set_name, "file_rank": form.rank if form is not None else 1}
    if intake.files.kind != ".npy":
        facts["files"] = intake.files.kind or "folders"
    if intake.files.prefix:
        facts["id_prefix"] = intake.files.prefix
    more = folder.model.facts if folder.model is not None else {}
    return Recipe({**own.data, "layout": folder.layout, **facts, **more})


def beside(recipe: Recipe, dtype: str) -> Recipe:
    """The recipe of the files of a folder whose dtype is another, and would be rounded in that of the others."""
    return Recipe({**recipe.data, "stored_dtype": dtype, "beside": recipe.fingerprint})


def imported_recipe(origin: str, dtype: str) -> Recipe:
    """The recipe of imported rows: where they came from is all that is known about how they were made."""
    return Recipe({"imported": True, "layout": LAYOUT, "origin": origin, "stored_dtype": dtype})


def recipe_of(store: FeatureStore | None, intake: Intake, origin: str) -> Recipe:
    """The recipe under which the rows of a folder belong.

    That of an origin already there, where every row that it shares with the folder has the same bits: the tree was
    moved, renamed, is seen through a link, or holds another part of the same samples.  One row that differs, or
    none that is shared, and it is another tree.  Reads the folder once where there are other origins to compare with.
    """
    own = recipe_for(intake, origin)
    recipes = store.recipes(intake.folder.key) if store is not None else {}
    if store is None or own.fingerprint in recipes:
        return own
    shared = {name: 0 for name, recipe in recipes.items() if _is_like(recipe, own)}
    batches = read_batches(dataclasses.replace(intake, taken=[]), Findings()) if shared else ()
    for batch in batches:
        rows = batch.rows() if batch.dtype == intake.dtype else {}
        for name in list(shared):
            there = store.available(intake.folder.key, rows, fingerprint=name)
            held = store.get_ragged(intake.folder.key, there, fingerprint=name)
            for id, stored in zip(there, held, strict=True):
                if stored.tobytes() != rows[id].tobytes():
                    del shared[name]
                    break
                shared[name] += bool(stored.any())  # rows of zeros are the same in all trees, and prove nothing
        if not shared:
            break
    most = max(shared, key=lambda name: shared[name], default=None)
    return recipes[most] if most is not None and shared[most] else own


def _is_like(recipe: Recipe, own: Recipe) -> bool:
    """Whether two recipes differ in the origin alone."""
    return {**recipe.data, "origin": None} == {**own.data, "origin": None}

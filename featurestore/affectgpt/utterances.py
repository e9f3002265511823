"""Utterances: the mean of stored frames, made where it is asked for, so that it need not be stored beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from featurestore.affectgpt.means import mean_of
from featurestore.affectgpt.model_folders import UTTERANCE, model_folder
from featurestore.errors import MissingFeatureError
from featurestore.features import Failure, Features
from featurestore.key import FeatureKey
from featurestore.recipe import Recipe
from featurestore.store import FeatureStore


class Utterances:
    """A compute: `FeatureStore(root, compute=Utterances(FeatureStore(root)))` has what was left out of an import.

    Example:
        >>> frames = FeatureStore("features")                                           # doctest: +SKIP
        >>> FeatureStore("features", compute=Utterances(frames), read_only=True)        # doctest: +SKIP
    """

    def __init__(self, frames: FeatureStore) -> None:
        self.frames = frames

    def of(self, key: FeatureKey) -> tuple[FeatureKey, Recipe]:
        """The frames that an utterance is the mean of.  MissingFeatureError where none are stored, or several are."""
        found = [
            (each, recipe)
            for each in self.frames.keys()
            if each.parts[:3] == key.parts[:3] and each.n_frames == "all" and key.sampling == UTTERANCE
            for recipe in self.frames.recipes(each).values()
            if recipe.data.get("imported") is True and "beside" not in recipe.data and "folder" in recipe.data
        ]
        if len(found) != 1:
            some = "none" if not found else f"{len(found)} sets of them"
            raise MissingFeatureError(
                f"{key} would be the mean of imported frames of {'/'.join(key.parts[:3])}, and {some} are stored",
                advice="import the folder that ends in -FRA, or the one of utterances itself",
                key=key,
                root=self.frames.root,
            )
        return found[0]

    def recipe(self, key: FeatureKey) -> Recipe:
        """That of an import, of a folder that lay beside that of the frames."""
        frames, recipe = self.of(key)
        name = str(recipe.data["folder"])
        folder = f"{name.removesuffix('FRA')}UTT" if name.endswith("FRA") else name
        model = model_folder(folder)
        more = model.facts if model is not None else {}
        made = {"folder": folder, "file_rank": 1, "made_of": f"{frames}@{recipe.fingerprint}"}
        return Recipe({**{name: recipe.data[name] for name in _SHARED}, **more, **made})

    def __call__(self, key: FeatureKey, ids: Iterable[str]) -> Iterator[tuple[str, Features | Failure]]:
        """Each id with its mean, or with why there is none."""
        frames, recipe = self.of(key)
        for id in ids:
            try:
                values = self.frames.get(frames, id, fingerprint=recipe.fingerprint)
            except MissingFeatureError as error:
                yield id, Failure("missing", error.problem, deterministic=False)
            else:
                yield id, Features(mean_of(values)[None])


_SHARED = ("imported", "layout", "origin", "stored_dtype")

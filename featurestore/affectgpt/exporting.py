"""Export rows of a store as the tree of `.npy` folders that existing code reads."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.affectgpt.model_folders import UTTERANCE, folder_of
from featurestore.affectgpt.npy import npy_header
from featurestore.affectgpt.sample_form import file_of
from featurestore.affectgpt.utterances import Utterances
from featurestore.errors import LegacyNameError, LegacyTreeError, MissingFeatureError
from featurestore.features import Failure
from featurestore.key import FeatureKey
from featurestore.recipe import Recipe
from featurestore.store import FeatureStore
from featurestore.untrusted_io.files import is_file_name, open_untrusted

# The one folder name of descriptions that a reader looks for; keys of another sampling have none.
AU_FOLDER = "au_CLIP_VITB32_8frms"
BATCH = 256


@dataclass(slots=True)
class ExportReport:
    """What `export_tree` wrote."""

    key: str
    folder: str
    written: int = 0
    present: int = 0
    """files that hold the same bytes already"""
    problems: list[str] = field(default_factory=list)
    """one line for each sample that could not be exported"""

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def folder_name(key: FeatureKey, sampling_as: str | None = None, layout: str = "affectgpt") -> str:
    """The folder that existing code looks for.  sampling_as: pretend that this was the sampling.

    Raises LegacyNameError where the layout has no name for the key.
    """
    key = dataclasses.replace(key, sampling=sampling_as) if sampling_as else key
    if layout == "mertools":
        name = folder_of(key.modality, key.encoder, key.sampling, key.n_frames)
        if name is None:
            raise LegacyNameError(
                f"{key} has no folder name in MERTools' layout, which knows utterance/1 (MODEL-UTT) and any sampling "
                "of all frames (MODEL-FRA) of face, audio and text"
            )
        return name
    if FeatureKey.from_legacy(key.dataset, AU_FOLDER) == key:
        return AU_FOLDER
    return key.legacy_name


def exportable(store: FeatureStore, layout: str = "affectgpt") -> list[FeatureKey]:
    """The keys of a store that have a folder name in a layout, or came from a folder of it."""
    found = []
    for key in store.keys():
        try:
            folder_name(key, layout=layout)
        except LegacyNameError:
            if layout == "affectgpt" or not any("folder" in recipe.data for recipe in store.recipes(key).values()):
                continue
        found.append(key)
    return found


def export_tree(
    store: FeatureStore,
    key: FeatureKey,
    root: str | Path,
    *,
    fingerprint: str | None = None,
    layout: str = "affectgpt",
    sampling_as: str | None = None,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] = lambda key, done, total: None,
) -> ExportReport:
    """Write `{root}/{dataset}/{folder}/{id}.npy` for each row of one key, as `np.save` would.

    Values are float32, as the readers of such trees expect; rows that were imported come back as they were, in their
    folder, dtype, shape and header, byte for byte.  Utterances that an import left out are made of their frames.
    Each file appears whole or not at all.  A file that holds other bytes is a problem unless `overwrite`, and so is an
    id that cannot be a file name; the rest is written.
    Raises LegacyNameError, MissingFeatureError (nothing stored), RecipeError.
    """
    parts = _parts(store, key, fingerprint)
    recipe = parts[0].recipe
    name = recipe.data.get("folder")
    name = folder_name(key, sampling_as, layout) if name is None or sampling_as else str(name)
    folder = Path(root) / key.dataset / name
    report = ExportReport(f"{key}@{recipe.fingerprint}", str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".fstore-{os.getpid()}.tmp"
    total, done = sum(len(part.ids) for part in parts), 0
    for part in parts:
        for id, files in part.files(key):
            for path, data in files:
                _one_file(folder, partial, id, path, data, overwrite, report)
            done += 1
            progress(str(key), done, total)
    return report


def _one_file(
    folder: Path, partial: Path, id: str, name: str, data: bytes, overwrite: bool, report: ExportReport
) -> None:
    path = folder / name
    if "/" in id or not all(is_file_name(part) and len(os.fsencode(part)) <= 255 for part in name.split("/")):
        report.problems.append(f"sample {id!r} cannot be a file name")
        return
    try:
        if path.exists():
            with open_untrusted(path) as (file, status):
                same = status.st_size == len(data) and file.read() == data
            if same:
                report.present += 1
                return
            if not overwrite:
                report.problems.append(f"sample {id!r}: {path} holds other bytes; give another folder, or --overwrite")
                return
        if "/" in name:
            path.parent.mkdir(exist_ok=True)
        # A reader takes whatever exists under the final name for complete.
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise LegacyTreeError(f"sample {id!r} cannot be written to {path}: {error}") from error
    report.written += 1


@dataclass(frozen=True, slots=True)
class _Part:
    """What one recipe of a key contributes."""

    source: FeatureStore
    recipe: Recipe
    ids: list[str]

    def files(self, key: FeatureKey) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
        """(id, [(name, bytes)]) of each sample."""
        recipe, prefix = self.recipe.data, str(self.recipe.data.get("id_prefix", ""))
        for start in range(0, len(self.ids), BATCH):
            some = self.ids[start : start + BATCH]
            if "file_rank" not in recipe:
                rows = self.source.get_ragged(key, some, fingerprint=self.recipe.fingerprint)
                for id, values in zip(some, rows, strict=True):
                    yield id, [(f"{id}.npy", _as_affectgpt(key, values, recipe.get("imported") is True))]
                continue
            fetched = self.source.fetch(key, some, fingerprint=self.recipe.fingerprint)
            for id, features in fetched.items():
                if isinstance(features, Failure):  # it went meanwhile
                    raise MissingFeatureError(features.message, key=key, ids=[id], root=self.source.root)
                made = file_of(features.values, features.provenance or {}, int(recipe["file_rank"]))
                name = f"{prefix}{id}"
                yield id, [(f"{name}.npy" if frame is None else f"{name}/{frame}", data) for frame, data in made]


def _as_affectgpt(key: FeatureKey, values: NDArray[Any], imported: bool) -> bytes:
    array = values if imported else values.astype(np.float32)
    array = array.reshape(-1) if key.modality == "multi" else array
    return npy_header(array.dtype, array.shape) + array.tobytes()


def _parts(store: FeatureStore, key: FeatureKey, fingerprint: str | None) -> list[_Part]:
    """What is stored under the recipe that is meant, and under those of files of other dtypes that lay beside."""
    recipes = store.recipes(key)
    if not recipes and key.sampling == UTTERANCE:
        makes = Utterances(store)
        frames, of = makes.of(key)
        ids = store.ids(frames, fingerprint=of.fingerprint)
        return [_Part(FeatureStore(store.root, makes, read_only=True), makes.recipe(key), ids)]
    own = [name for name, recipe in recipes.items() if "beside" not in recipe.data]
    if fingerprint is None and len(own) == 1:
        fingerprint = own[0]
    ids = store.ids(key, fingerprint=fingerprint)
    if not ids:
        raise MissingFeatureError(
            f"nothing is stored under {key} in {store.root}",
            advice="`store.keys()` lists what is",
            key=key,
            root=store.root,
        )
    meant = next(recipe for name, recipe in recipes.items() if name.startswith(fingerprint or ""))
    beside = [recipe for recipe in recipes.values() if recipe.data.get("beside") == meant.fingerprint]
    more = [_Part(store, recipe, store.ids(key, fingerprint=recipe.fingerprint)) for recipe in beside]
    return [_Part(store, meant, ids), *more]

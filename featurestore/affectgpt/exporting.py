"""Export rows of a store as the `.npy` tree that existing code reads."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.affectgpt.npy import npy_header
from featurestore.errors import LegacyNameError, LegacyTreeError, MissingFeatureError
from featurestore.key import FeatureKey
from featurestore.store import FeatureStore
from featurestore.untrusted_io.files import open_untrusted

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


def folder_name(key: FeatureKey, sampling_as: str | None = None) -> str:
    """The folder that existing code looks for.  sampling_as: pretend that this was the sampling.

    Raises LegacyNameError where the old layout has no name for the key.
    """
    key = dataclasses.replace(key, sampling=sampling_as) if sampling_as else key
    if FeatureKey.from_legacy(key.dataset, AU_FOLDER) == key:
        return AU_FOLDER
    return key.legacy_name


def exportable(store: FeatureStore) -> list[FeatureKey]:
    """The keys of a store that have a folder name in the old layout."""
    found = []
    for key in store.keys():
        try:
            folder_name(key)
        except LegacyNameError:
            continue
        found.append(key)
    return found


def export_tree(
    store: FeatureStore,
    key: FeatureKey,
    root: str | Path,
    *,
    fingerprint: str | None = None,
    sampling_as: str | None = None,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] = lambda key, done, total: None,
) -> ExportReport:
    """Write `{root}/{dataset}/{folder}/{id}.npy` for each row of one key, as `np.save` would.

    Values are float32, as the readers of such trees expect; rows that were imported keep the dtype they had, so that
    a tree comes back byte for byte.  Each file appears whole or not at all.  A file that holds other bytes is a
    problem unless `overwrite`, and so is an id that cannot be a file name; the rest is written.
    Raises LegacyNameError, MissingFeatureError (nothing stored), RecipeError.
    """
    folder = Path(root) / key.dataset / folder_name(key, sampling_as)
    ids, prefix, stored = _rows(store, key, fingerprint)
    imported = stored.get("imported") is True
    report = ExportReport(f"{key}@{prefix}", str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".fstore-{os.getpid()}.tmp"
    for done, (id, values) in enumerate(_values(store, key, ids, prefix), 1):
        array = values if imported else values.astype(np.float32)
        array = array.reshape(-1) if key.modality == "multi" else array
        _one_file(folder, partial, id, npy_header(array.dtype, array.shape) + array.tobytes(), overwrite, report)
        progress(str(key), done, len(ids))
    return report


def _one_file(folder: Path, partial: Path, id: str, data: bytes, overwrite: bool, report: ExportReport) -> None:
    path = folder / f"{id}.npy"
    if "/" in id or len(os.fsencode(path.name)) > 255:
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
        # A reader takes whatever exists under the final name for complete.
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise LegacyTreeError(f"sample {id!r} cannot be written to {path}: {error}") from error
    report.written += 1


def _rows(store: FeatureStore, key: FeatureKey, fingerprint: str | None) -> tuple[list[str], str, dict[str, Any]]:
    """(ids, fingerprint, recipe) of what one key holds under the recipe that is meant."""
    ids = store.ids(key, fingerprint=fingerprint)
    if not ids:
        raise MissingFeatureError(
            f"nothing is stored under {key} in {store.root}",
            advice="`store.keys()` lists what is",
            key=key,
            root=store.root,
        )
    found = store.get_features(key, ids[0], fingerprint=fingerprint).recipe
    assert found is not None  # the store fills it in
    return ids, found.fingerprint, found.data


def _values(
    store: FeatureStore, key: FeatureKey, ids: Sequence[str], fingerprint: str
) -> Iterator[tuple[str, NDArray[Any]]]:
    for start in range(0, len(ids), BATCH):
        some = ids[start : start + BATCH]
        yield from zip(some, store.get_ragged(key, some, fingerprint=fingerprint), strict=True)

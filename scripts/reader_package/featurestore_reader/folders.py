"""Folders of `.npy` files, one a sample, answered from a store: the same arrays, by the same names.

    folders = Folders("features", dataset="mer2026")
    folders.read("chinese-hubert-large-FRA", names)                            # a list of arrays
    folders.load("anywhere/chinese-hubert-large-FRA/sample_00000001.npy")      # was: np.load(path)

A folder's name means the key whose encoder it names: `<encoder>-UTT` or `_UTT` that of one row a sample
(`.../utterance/1`), `-FRA` or `_FRA` that of all rows (`.../all`), and AffectGPT's names say the rest
(`frame_CLIP_VIT_LARGE_emotion_peak_8frms`).  Where none or several fit, the error lists what is stored, and `keys=`
decides.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from featurestore_reader.files import Files, recipe_at


class Folders:
    """The feature folders that a store answers for.

    store     its folder
    dataset   whose features these are; without it, a path names it in one of its levels
    keys      {folder: key}, where its name does not say it; `KEY@RECIPE` where a key has several recipes
    means     have utterances (`-UTT`) that are not stored made of their frames, of which they are the mean:
              `fstore import --skip-means` leaves out those that are
    """

    def __init__(
        self,
        store: str,
        dataset: Optional[str] = None,
        keys: Optional[Mapping[str, str]] = None,
        means: bool = False,
    ) -> None:
        self.store = os.fspath(store)
        self.dataset = dataset
        self.keys = dict(keys or {})
        self.means = means
        self._files: Dict[Tuple[Optional[str], str], Files] = {}
        if not os.path.isdir(os.path.join(self.store, "data")):
            raise LookupError(f"{self.store!r} is no feature store: it has no folder `data`; give the store's folder")
        if dataset is not None and dataset not in self.datasets():
            raise LookupError(f"{self.store!r} has nothing of {dataset!r}, but of {_listed(self.datasets())}")

    def datasets(self) -> List[str]:
        """The datasets of which something is stored."""
        return sorted(_folders(self._path()))

    def stored(self, dataset: str) -> List[str]:
        """The keys of a dataset."""
        found: List[Tuple[str, ...]] = [(dataset,)]
        for _ in range(4):
            found = [(*parts, name) for parts in found for name in sorted(_folders(self._path(*parts)))]
        return ["/".join(parts) for parts in found]

    def read(self, folder: str, names: Sequence[str], dataset: Optional[str] = None, copy: bool = True) -> List[Any]:
        """The arrays that np.load gave of `folder/NAME.npy`, in the order of the names; some may share their memory.

        copy   False: they may be read-only views of the store's own files, which takes half the time and no memory

        Raises LookupError naming a sample that is not stored, or where the folder's name means no key or several.
        """
        return self._of(folder, dataset).read(names, copy)

    def load(self, path: str) -> Any:
        """The array of `.../FOLDER/NAME.npy`.  Raises FileNotFoundError where it is not stored, as np.load does."""
        folder, name, dataset = self._split(path)
        try:
            return self.read(folder, [name], dataset)[0]
        except LookupError as error:
            raise FileNotFoundError(f"{os.fspath(path)!r} is not in the store: {error}") from None

    def exists(self, path: str) -> bool:
        """Whether `load` gives an array.  Raises LookupError where the folder means no key."""
        folder, name, dataset = self._split(path)
        return name in self._of(folder, dataset)

    def _of(self, folder: str, dataset: Optional[str]) -> Files:
        """The files of a folder, kept: their tables are read once."""
        dataset = dataset or self.dataset
        files = self._files.get((dataset, folder))
        if files is None:
            files = self._files[dataset, folder] = self._found(folder, dataset)
        return files

    def _found(self, folder: str, dataset: Optional[str]) -> Files:
        if folder in self.keys:
            key, _, recipe = self.keys[folder].partition("@")
            return Files(self._recipes(key, folder, recipe), key)
        if dataset is None:
            raise LookupError(f"whose folder is {folder!r}? pass dataset=, one of {_listed(self.datasets())}")
        stored = self.stored(dataset)
        fitting = [key for key in stored if folder in names_of(key)]
        if not fitting:  # what an import was told with --as
            fitting = [key for key in stored if folder in (one.get("folder") for one in self._all(key).values())]
        if len(fitting) == 1:
            return Files(self._recipes(fitting[0], folder), fitting[0])
        frames, advice = folder[:-3] + "FRA", ""
        if not fitting and folder.endswith("UTT"):
            of_frames = [key for key in stored if frames in names_of(key)]
            if len(of_frames) == 1 and self.means:
                return Files(self._recipes(of_frames[0], frames), of_frames[0], mean=True)
            advice = f", or have it made of {frames!r} with means=True" if of_frames else ""
        what = f"{_listed(fitting)} fit folder" if fitting else f"nothing of {dataset} fits folder"
        raise LookupError(
            f"{what} {folder!r} in {self.store!r}, which has {_listed(stored)}; "
            f"import the folder, or say which it is with keys={{{folder!r}: KEY}}{advice}"
        )

    def _recipes(self, key: str, folder: str, prefix: str = "") -> List[str]:
        """The path of the one recipe that is meant, and of those that an import made beside it."""
        recipes = {name: recipe for name, recipe in self._all(key).items() if name.startswith(prefix)}
        if len(recipes) > 1 and not prefix:  # the others may be of other folders
            recipes = {name: one for name, one in recipes.items() if one.get("folder", folder) == folder}
        meant = [name for name, recipe in recipes.items() if prefix or "beside" not in recipe]
        if len(meant) != 1:
            raise LookupError(
                f"{key} has {len(meant)} recipes for folder {folder!r} in {self.store!r}: {_listed(sorted(meant))}; "
                f"say which with keys={{{folder!r}: 'KEY@RECIPE'}}"
            )
        beside = [name for name, recipe in self._all(key).items() if recipe.get("beside") == meant[0]]
        return [self._path(*key.split("/"), name) for name in [*meant, *sorted(beside)]]

    def _all(self, key: str) -> Dict[str, Dict[str, Any]]:
        parts = key.split("/")
        return {name: recipe_at(self._path(*parts, name)) for name in _folders(self._path(*parts))}

    def _path(self, *parts: str) -> str:
        return os.path.join(self.store, "data", *parts)

    def _split(self, path: str) -> Tuple[str, str, Optional[str]]:
        """(folder, name, dataset) of a path; the dataset is the lowest level that is called like one."""
        *levels, folder, file = os.path.normpath(os.fspath(path)).split(os.sep)
        name = file[:-4] if file.endswith(".npy") else file
        if self.dataset is not None:
            return folder, name, self.dataset
        known = {dataset.casefold(): dataset for dataset in self.datasets()}
        return folder, name, next((known[x.casefold()] for x in reversed(levels) if x.casefold() in known), None)


def names_of(key: str) -> List[str]:
    """The folders whose files are stored under a key."""
    _, modality, encoder, sampling, n = key.split("/")
    names = [encoder]
    if sampling == "utterance":
        names += [f"{encoder}-UTT", f"{encoder}_UTT"]
    elif n == "all":
        names += [f"{encoder}-FRA", f"{encoder}_FRA"]
    if modality == "frame":
        names += [f"frame_{encoder}_{sampling}_{n}frms"]
        names += [f"frame_{encoder}_{n}frms"] if sampling == "uniform" else []
    elif modality == "face" and sampling == "uniform":
        names += [f"face_{encoder}_{n}frms", f"face_{encoder}_uniform_{n}frms"]
    elif modality == "audio" and sampling == "const_clips":
        names += [f"audio_{encoder}_{n}clips"]
    elif modality == "multi":
        names += [f"multi_{encoder.replace('.', '_')}_{sampling}"]
    elif modality == "au":
        names += ["au", "au_CLIP_VITB32_8frms", "au_CLIP_VITB32_512d_8frms"]
    return names


def _folders(path: str) -> Iterator[str]:
    try:
        with os.scandir(path) as entries:
            yield from (entry.name for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "nothing"

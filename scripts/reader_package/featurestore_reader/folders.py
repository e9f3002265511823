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
import re
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from featurestore_reader.reader import RECORD, Reader, open_key

MARK = re.compile(rb'"file_(dtype|shape)":')  # in the line of a sample whose file had another form than its set
Form = Tuple[Optional[str], Optional[List[int]]]  # dtype and shape of that file, each where it differs


class Folders:
    """The feature folders that a store answers for.

    store     its folder
    dataset   whose features these are; without it, a path names it in one of its levels
    keys      {folder: key}, where its name does not say it; `KEY@RECIPE` where a key has several recipes
    """

    def __init__(self, store: str, dataset: Optional[str] = None, keys: Optional[Mapping[str, str]] = None) -> None:
        self.store = os.fspath(store)
        self.dataset = dataset
        self.keys = dict(keys or {})
        self._readers: Dict[Tuple[Optional[str], str], Reader] = {}
        self._files: Dict[str, Tuple[object, Dict[str, Form]]] = {}
        if not os.path.isdir(os.path.join(self.store, "data")):
            raise LookupError(f"{self.store!r} is no feature store: it has no folder `data`; give the store's folder")
        if dataset is not None and dataset not in self.datasets():
            raise LookupError(f"{self.store!r} has nothing of {dataset!r}, but of {_listed(self.datasets())}")

    def datasets(self) -> List[str]:
        """The datasets of which something is stored."""
        return sorted(_folders(os.path.join(self.store, "data")))

    def stored(self, dataset: str) -> List[str]:
        """The keys of a dataset."""
        found = [(dataset,)]
        for _ in range(4):
            found = [(*p, name) for p in found for name in sorted(_folders(os.path.join(self.store, "data", *p)))]
        return ["/".join(parts) for parts in found]

    def reader(self, folder: str, dataset: Optional[str] = None) -> Reader:
        """What is stored under the key that a folder's name means.  Raises LookupError where that is not clear."""
        dataset = dataset or self.dataset
        reader = self._readers.get((dataset, folder))
        if reader is None:
            key, _, recipe = self._key(folder, dataset).partition("@")
            reader = self._readers[dataset, folder] = open_key(self.store, key, recipe or None)
        return reader

    def _key(self, folder: str, dataset: Optional[str]) -> str:
        if folder in self.keys:
            return self.keys[folder]
        if dataset is None:
            raise LookupError(f"whose folder is {folder!r}? pass dataset=, one of {_listed(self.datasets())}")
        stored = self.stored(dataset)
        fitting = [key for key in stored if folder in names_of(key)]
        if len(fitting) == 1:
            return fitting[0]
        what = f"{_listed(fitting)} fit folder" if fitting else f"nothing of {dataset} fits folder"
        raise LookupError(
            f"{what} {folder!r} in {self.store!r}, which has {_listed(stored)}; "
            f"import the folder, or say which it is with keys={{{folder!r}: KEY}}"
        )

    def read(self, folder: str, names: Sequence[str], dataset: Optional[str] = None) -> List[Any]:
        """The arrays that np.load gave of `folder/NAME.npy`, in the order of the names; some may share their memory.

        Raises LookupError naming a sample that is not stored.
        """
        reader = self.reader(folder, dataset)
        if (reader.find_all(names).numbers < 0).any():
            reader.refresh()
        values: List[Any] = reader.get_ragged(names) if reader.key.endswith("/all") else list(reader.get_many(names))
        files = self._files_of(reader)
        for slot, name in enumerate(names) if files else ():
            if name in files:
                dtype, shape = files[name]
                array = values[slot] if dtype is None else values[slot].astype(dtype)
                values[slot] = array if shape is None else array.reshape(shape)
        return values

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
        reader = self.reader(folder, dataset)
        return name in reader or (reader.refresh() and name in reader)

    def _split(self, path: str) -> Tuple[str, str, Optional[str]]:
        """(folder, name, dataset) of a path; the dataset is the lowest level that is called like one."""
        *levels, folder, file = os.path.normpath(os.fspath(path)).split(os.sep)
        name = file[:-4] if file.endswith(".npy") else file
        if self.dataset is not None:
            return folder, name, self.dataset
        known = {dataset.casefold(): dataset for dataset in self.datasets()}
        return folder, name, next((known[x.casefold()] for x in reversed(levels) if x.casefold() in known), None)

    def _files_of(self, reader: Reader) -> Dict[str, Form]:
        """{id: (dtype, shape)} of the files that were not as their set is."""
        seen, files = self._files.get(reader.path, (None, {}))
        if seen is None or seen is not reader.seen:
            files = reader._retried(lambda: dict(_marked(reader)))
            self._files[reader.path] = reader.seen, files
        return files


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


def _marked(reader: Reader) -> Iterator[Tuple[str, Form]]:
    for segment in reader.segments:
        with open(os.path.join(segment.path, "rows"), "rb") as file:
            text = file.read()
        found = [match.start() for match in MARK.finditer(text, segment.n * RECORD.itemsize)]
        rows = np.searchsorted(segment.records()["line"], np.array(found, np.uint64), "right") - 1
        for row in np.unique(rows).tolist():
            line = segment.line(row)
            facts = {**line, **(line.get("provenance") or {})}
            shape = facts.get("file_shape") if "files" not in facts else None  # else that of a file for each frame
            yield line["id"], (facts.get("file_dtype"), shape)


def _folders(path: str) -> Iterator[str]:
    try:
        with os.scandir(path) as entries:
            yield from (entry.name for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "nothing"

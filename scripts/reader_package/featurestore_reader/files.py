"""What the `.npy` files of one folder held, from the recipes under which an import keeps it.

The store has all samples of a set in one dtype and as (n_frames, *item).  The recipe says how many axes most files had,
the line of a sample how its own file differed, and files that the dtype of the others would round are under a recipe
beside it.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from featurestore_reader.reader import RECORD, ROW, Reader, Segment

MARK = re.compile(rb'"file_(dtype|shape)":')  # in the line of a sample whose file had another form than its set
Form = Tuple[Optional[str], Optional[List[int]]]  # dtype and shape of that file, each where it differs


class Files:
    """The files of one folder.

    paths   of its recipes: that of the set, and those beside it
    mean    whether they are the means of these frames, as MERTools makes utterances
    """

    def __init__(self, paths: Sequence[str], key: str, mean: bool = False) -> None:
        self.key = key
        self.mean = mean
        rank = 1 if key.split("/")[1] == "multi" else None  # AffectGPT's fused vectors
        self._parts = [(Reader(path, key), recipe_at(path).get("file_rank", rank)) for path in paths]
        self._forms: Dict[str, Tuple[object, Dict[str, Form]]] = {}

    def __contains__(self, name: str) -> bool:
        return any(name in reader or (reader.refresh() and name in reader) for reader, _ in self._parts)

    def read(self, names: Sequence[str], copy: bool = True) -> List[Any]:
        """The arrays in the order of the names; some may share their memory.  LookupError names what is not stored.

        copy   False: they may be read-only views of the store's own files, which takes half the time and no memory
        """
        reader, rank = self._parts[0]
        there = reader.find_all(names).numbers >= 0
        if not there.all():
            for other, _ in self._parts:
                other.refresh()
            there = reader.find_all(names).numbers >= 0
        if there.all() or len(self._parts) == 1:
            values = self._part(reader, rank, names, copy)
        else:
            values = self._gathered(names, copy)
        return [np.mean(array.reshape(-1, array.shape[-1]), axis=0) for array in values] if self.mean else values

    def _gathered(self, names: Sequence[str], copy: bool) -> List[Any]:
        values: List[Any] = [None] * len(names)
        left = list(range(len(names)))
        for reader, rank in self._parts:
            there = [slot for slot in left if names[slot] in reader]
            for slot, array in zip(there, self._part(reader, rank, [names[slot] for slot in there], copy)):
                values[slot] = array
            left = [slot for slot in left if values[slot] is None]
        if left:
            self._parts[0][0].get_ragged([names[slot] for slot in left])  # says that they are not stored
        return values

    def _part(self, reader: Reader, rank: Optional[int], names: Sequence[str], copy: bool) -> List[Any]:
        if not copy:
            values = [array.reshape(_shape(array.shape, rank)) for array in views(reader, names)]
        elif self.key.endswith("/all"):
            values = [array.reshape(_shape(array.shape, rank)) for array in reader.get_ragged(names)]
        else:
            stacked = reader.get_many(names)
            values = list(stacked.reshape(len(names), *_shape(stacked.shape[1:], rank)))
        forms = self._forms_of(reader)
        for slot, name in enumerate(names) if forms else ():
            if name in forms:
                dtype, shape = forms[name]
                array = values[slot] if dtype is None else values[slot].astype(dtype)
                values[slot] = array if shape is None else array.reshape(shape)
        return values

    def _forms_of(self, reader: Reader) -> Dict[str, Form]:
        """Of the files that were not as most of their set."""
        seen, forms = self._forms.get(reader.path, (None, {}))
        if seen is None or seen is not reader.seen:
            forms = reader._retried(lambda: dict(_marked(reader)))
            self._forms[reader.path] = reader.seen, forms
        return forms


def views(reader: Reader, ids: Sequence[str]) -> List[Any]:
    """N arrays (n_frames, *item): read-only views of mapped files, checked; copies where they cannot be mapped."""

    def read() -> List[Any]:
        found = reader._found(ids)
        values: List[Any] = [None] * len(ids)
        which = found.numbers >> 32
        for number in np.flatnonzero(np.bincount(which)).tolist():
            slots = np.flatnonzero(which == number)
            arrays = _views(found.segments[number], (found.numbers[slots] & ROW).tolist())
            for slot, array in zip(slots.tolist(), arrays):
                values[slot] = array
        return values

    found: List[Any] = reader._retried(read)
    return found


def _views(segment: Segment, rows: List[int]) -> List[Any]:
    pages, starts = segment.pages(), segment.starts
    if pages is None:
        return [segment.read(row) for row in rows]
    fresh = [slot for slot, row in enumerate(rows) if not segment.checked[row]]
    segment.announce([rows[slot] for slot in fresh] or rows[:1])
    arrays = [pages[row] if starts is None else pages[starts[row] : starts[row + 1]] for row in rows]
    segment.check(np.array([rows[slot] for slot in fresh], np.int64), [arrays[slot] for slot in fresh])
    return arrays


def recipe_at(path: str) -> Dict[str, Any]:
    """The recipe of a feature set, by its folder; empty where it is not said."""
    try:
        with open(os.path.join(path, "zarr.json"), encoding="utf-8") as file:
            recipe: Dict[str, Any] = json.load(file)["attributes"]["featurestore"]["recipe"]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return recipe if isinstance(recipe, dict) else {}


def _shape(whole: Tuple[int, ...], rank: Optional[int]) -> Tuple[int, ...]:
    """Of the file of a sample that is stored as `whole`, where most files of its set have so many axes."""
    if rank == len(whole) - 1 and whole[0] == 1:
        return whole[1:]
    return (1, *whole) if rank == len(whole) + 1 else whole


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

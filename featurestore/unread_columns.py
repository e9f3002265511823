"""Extra: the columns of a manifest that are not read; they are named, and their cells kept."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

logger = logging.getLogger("featurestore")


class Extra(Mapping[str, Any]):
    """Cells of a manifest that nothing reads, by column; cannot be changed."""

    __slots__ = ("_cells",)

    def __init__(self, cells: Mapping[str, Any] = MappingProxyType({})) -> None:
        self._cells = dict(cells)

    def __getitem__(self, column: str) -> Any:
        return self._cells[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def __hash__(self) -> int:
        return hash(frozenset(self._cells))  # values of JSON need have no hash

    def __repr__(self) -> str:
        return repr(self._cells)


NOTHING = Extra()


@functools.cache  # once, however often a program reads the file
def tell_unread(path: Path, names: tuple[str, ...], labelled: bool) -> None:
    """Warn of columns that nothing reads, and say what is done all the same.

    labelled  whether the manifest has labels where they are read
    """
    meant = {what: [name for name in names if is_like(name)] for what, is_like in MEANINGS.items()}
    if labelled:
        meant["the label is the column 'label'"] = []
    said = [f"; {what.format(' and '.join(columns))}" for what, columns in meant.items() if columns]
    logger.warning("%s: columns that are not read: %s%s", path, ", ".join(map(repr, names)), "".join(said))


def is_span(name: str) -> bool:
    """Whether a column is called as one that says which part of a file is meant."""
    return re.fullmatch(SPAN, re.sub(r"[\W_]", "", name.casefold())) is not None


def _is_one_of(*words: str) -> Callable[[str], bool]:
    return lambda name: name.casefold() in words


MEANINGS: Mapping[str, Callable[[str], bool]] = {
    "features are of whole files, whatever {} say": is_span,
    "every row is a sample, whatever {} says": _is_one_of("split", "set", "subset", "partition", "fold"),
    "the label is the column 'label'": _is_one_of("emotion", "sentiment", "valence", "class", "target", "category"),
    "what is said is the column 'subtitle'": _is_one_of("text", "transcript", "transcription", "utterance", "sentence"),
}
"""what there is to say about columns that are called like this"""
SPAN = (
    "(clip|segment|seg|utterance|utt)?(start|end|begin|stop|onset|offset|duration)"
    "(time|timestamp|frame|s|sec|seconds|ms)?"
)

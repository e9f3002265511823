"""Emotion wheels: which of a few basic emotions a free label belongs to, as MER-UniBench maps them.

Reading needs openpyxl.  Source: domain notes 6.2; the files are those of the AffectGPT project.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from featurestore.errors import InputError
from featurestore.untrusted_io.tables import read_rows

N_WHEELS = 5
MAX_BYTES = 32 << 20  # the largest has half a megabyte, inflated some ten
FILES = (*(f"wheel{n + 1}.xlsx" for n in range(N_WHEELS)), "synonym.xlsx", "format.csv")
N_RUNS = 8  # how often a language model was asked for synonyms; all answers count


@dataclass(frozen=True, slots=True)
class Wheels:
    """The five wheels, with the synonyms and word forms that lead to their words."""

    forms: Mapping[str, tuple[str, ...]]
    """a form as it may be written, e.g. `angrily` -> words"""
    synonyms: Mapping[str, frozenset[str]]
    """a word -> words that stand on some wheel"""
    clusters: tuple[Mapping[str, str], ...]
    """per wheel: a word on it -> the basic emotion at its centre"""

    def cluster(self, label: str, wheel: int) -> str | None:
        """The basic emotion of a label on wheel 0..4, or None where it has none there.

        Of all words that the label may stand for, the first by code point that is on the wheel decides;
        so `fear` is joyful on two wheels (through "awe").  Published scores were made like that.
        """
        words = sorted(word for base in self.forms.get(label, ()) for word in self.synonyms.get(base, ()))
        return next((self.clusters[wheel][word] for word in words if word in self.clusters[wheel]), None)

    def clusters_of(self, labels: Iterable[str], wheel: int) -> set[str]:
        """The basic emotions of a list of labels, compared in lower case; labels without one are left out."""
        found = (self.cluster(label.lower().strip(), wheel) for label in labels)
        return {cluster for cluster in found if cluster is not None}


def split_labels(text: str) -> list[str]:
    """`"[happy, 'at ease']"` -> `["happy", "at ease"]`: one bracket at each end, quotes and commas divide.

    Label files and published results write lists of labels like that.
    """
    text = text.strip()
    text = text.removeprefix("[").removesuffix("]")
    return [part.strip() for part in re.split("['\",]", text) if part.strip()]


def read_wheels(root: str | Path) -> Wheels:
    """Read `wheel1.xlsx` to `wheel5.xlsx`, `synonym.xlsx` and `format.csv` of a folder.

    Raises InputError naming the file, MissingPackageError without openpyxl.
    """
    root = Path(root)
    if absent := [name for name in FILES if not (root / name).is_file()]:
        raise InputError(
            f"{root} lacks {len(absent)} of the {len(FILES)} files of the emotion wheels: {', '.join(absent)}; "
            "they are in the folder emotion_wheel of the AffectGPT project"
        )
    forms: dict[str, list[str]] = {}
    for word, written in _form_rows(root / "format.csv"):
        for form in (*split_labels(written), word):
            forms.setdefault(form, []).append(word)
    synonyms: dict[str, set[str]] = {}
    for row in _rows(
        root / "synonym.xlsx", [f"{kind}_run{n + 1}" for n in range(N_RUNS) for kind in ("word", "synonym")]
    ):
        for word, others in zip(row[::2], row[1::2], strict=True):
            for synonym in (word, *split_labels(others)):
                synonyms.setdefault(synonym.strip().lower(), set()).add(word.strip().lower())
    return Wheels(
        forms={form: tuple(words) for form, words in forms.items()},
        synonyms={word: frozenset(words) for word, words in synonyms.items()},
        clusters=tuple(_clusters(root / f"wheel{n + 1}.xlsx") for n in range(N_WHEELS)),
    )


def _clusters(path: Path) -> dict[str, str]:
    """Word -> centre.  The files write a centre or middle word once, above the ones below it."""
    tree: dict[str, dict[str, list[str]]] = {}
    above = ["", "", ""]
    for row in _rows(path, ["level1", "level2", "level3"]):
        above = [(cell or before).lower().strip() for cell, before in zip(row, above, strict=True)]
        tree.setdefault(above[0], {}).setdefault(above[1], []).append(above[2])
    # In this order, so that a word which stands on a wheel twice belongs to the centre that comes last.
    clusters: dict[str, str] = {}
    for centre, middles in tree.items():
        clusters[centre] = centre
        for middle, outers in middles.items():
            clusters[middle] = centre
            clusters.update(dict.fromkeys(outers, centre))
    return clusters


def _form_rows(path: Path) -> list[tuple[str, str]]:
    return [(word, forms) for word, forms in _rows(path, ["name", "format"])]


def _rows(path: Path, columns: list[str]) -> list[list[str]]:
    """The cells of the named columns; "" for empty ones."""
    rows = read_rows(path, MAX_BYTES)
    header = next(rows, (1, []))[1]
    if absent := [name for name in columns if name not in header]:
        raise InputError(f"{path} has no column {absent[0]}; it has {', '.join(header)}")
    places = [header.index(name) for name in columns]
    return [[row[place] for place in places] for _, row in rows]

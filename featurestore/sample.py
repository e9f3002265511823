"""Sample: one short video with its sound, face crops, descriptions and label; and manifests that list them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from featurestore.errors import ConfigError, InvalidIdError, ManifestError
from featurestore.key import check_id
from featurestore.unread_columns import NOTHING, Extra, is_span, tell_unread
from featurestore.untrusted_io.files import expand_path, parse_json
from featurestore.untrusted_io.tables import read_rows, read_text


@dataclass(frozen=True, slots=True)
class Sample:
    """What is known of one sample.  Paths are not opened until they are needed.

    Example:
        >>> Sample("sample_00000001", video=Path("clips/sample_00000001.mp4")).label is None
        True
    """

    id: str
    video: Path | None = None
    face: Path | None = None
    """`.npy` of uint8 (T, height, width, 3): the crops that OpenFace aligned"""
    audio: Path | None = None
    """wav, flac or mp3, or a video with sound"""
    subtitle: str | None = None
    """None: not known; empty: nothing is said"""
    au_json: Path | None = None
    """`*_au_analysis.json` or `*_merr_data.json` of MER-Factory"""
    au_csv: Path | None = None
    """OpenFace's table"""
    label: str | None = None
    extra: Mapping[str, Any] = field(default=NOTHING, hash=False)
    """what a manifest says in columns that are not read: texts, or the values of JSON Lines"""

    def paths(self) -> Iterator[Path]:
        """All files of the sample that are named."""
        for name in PATHS:
            path = getattr(self, name)
            if path is not None:
                yield path


Samples = Mapping[str, Sample]
"""The samples of one dataset by id; a dict is one."""

MAX_BYTES = 256 << 20  # a line for each of a million samples
COLUMNS = tuple(each.name for each in fields(Sample) if each.name != "extra")
MAY_BE_EMPTY = ("subtitle",)  # nothing is said: where a table has the column, an empty cell is a value
PATHS = ("video", "face", "audio", "au_json", "au_csv")


def read_manifest(path: str | Path) -> dict[str, Sample]:
    """Read the samples that a file lists, in its order.

    Columns: id, video, face, audio, subtitle, au_json, au_csv, label; only `id` is required, and an empty cell
    is no value, except that an empty subtitle means that nothing is said; null in JSON is no value in any column.
    Paths are relative to the manifest's folder.  Other columns are not read: they are named in a warning, and
    kept in `Sample.extra`.  One that looks like a misspelt name is an error.

    Args:
        path: A CSV file or the first sheet of an `.xlsx`, with a header, or a JSON Lines file (`.jsonl`).

    Returns:
        {id: sample}.

    Raises:
        ManifestError: With the line, what cannot be read: a missing file, text that is not UTF-8, columns or ids
            that are missing, twice or not allowed, a row of another length, broken JSON.
        MissingPackageError: An `.xlsx`, and openpyxl is not installed.

    Example:
        >>> samples = read_manifest("mine.csv")                                         # doctest: +SKIP
    """
    path = Path(path)
    folder = Path(os.path.abspath(path.parent))
    rows = _json_rows(path) if path.suffix.lower() in (".jsonl", ".ndjson") else _table_rows(path)
    samples: dict[str, Sample] = {}
    lines: dict[str, int] = {}
    unread: dict[str, None] = {}
    for line, row in rows:
        unread.update(dict.fromkeys(name for name in row if name not in COLUMNS))
        sample = _sample(f"{path}, line {line}", row, folder)
        if sample.id in samples:
            raise ManifestError(f"{path}, line {line}: id {sample.id!r} is already on line {lines[sample.id]}")
        samples[sample.id] = sample
        lines[sample.id] = line
    if not samples:
        raise ManifestError(f"{path} lists no samples")
    if unread:
        tell_unread(path, tuple(unread), any(sample.label is not None for sample in samples.values()))
    return samples


def parts(samples: Mapping[str, Sample], column: str) -> dict[Path, list[str]]:
    """Files that several samples name in a column with other starts or ends: {file: ids}."""
    spans: dict[Path, dict[str, list[tuple[str, Any]]]] = {}
    for id, sample in samples.items():
        path = getattr(sample, column)
        if path is not None:
            span = [(name, cell) for name, cell in sample.extra.items() if is_span(name)]
            spans.setdefault(path, {})[id] = span
    return {path: list(of) for path, of in spans.items() if len({repr(span) for span in of.values()}) > 1}


def _table_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, {column: cell}) of each row; a row may span several lines, its first is given."""
    rows = read_rows(path, MAX_BYTES, skip_blanks=True)
    header = [name.strip() for name in next(rows, (1, []))[1]]
    _check_columns(f"{path}, line 1", header)
    for line, cells in rows:
        named = zip(header, cells, strict=True)
        yield line, {name: cell for name, cell in named if cell or name in MAY_BE_EMPTY}


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, {key: value}) of each line that is not blank."""
    for line, content in enumerate(read_text(path, MAX_BYTES).split("\n"), 1):
        if not content.strip():
            continue
        where = f"{path}, line {line}"
        try:
            pairs = parse_json(content, object_pairs_hook=_Pairs)
        except ValueError as error:
            raise ManifestError(f"{where}: not JSON: {error}") from error
        if not isinstance(pairs, _Pairs):
            raise ManifestError(f'{where}: not a JSON object such as {{"id": "a", "video": "a.mp4"}}')
        _check_columns(where, [name for name, _ in pairs])
        yield line, {name: _plain(value) for name, value in pairs if value is not None}


class _Pairs(list[tuple[str, Any]]):
    """A JSON object before its repeated keys are lost."""


def _plain(value: Any) -> Any:
    """A value of JSON with its objects as dicts."""
    if isinstance(value, _Pairs):
        return {name: _plain(inner) for name, inner in value}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _check_columns(where: str, names: Sequence[str]) -> None:
    for position, name in enumerate(names):
        if name in names[:position] and name in COLUMNS:
            raise ManifestError(f"{where}: column {name!r} is there twice")
        if name not in COLUMNS:
            meant = difflib.get_close_matches(name.casefold(), COLUMNS, n=1, cutoff=0.8)
            if meant and meant[0] not in names:
                raise ManifestError(f"{where}: column {name!r} is not known; is {meant[0]!r} meant?")
    if "id" not in names:
        raise ManifestError(f"{where}: no column 'id' among {', '.join(map(repr, names)) or 'none'}")


def _sample(where: str, row: Mapping[str, Any], folder: Path) -> Sample:
    values = {name: row[name] for name in COLUMNS if name in row}
    for name, value in values.items():
        if not isinstance(value, str):
            raise ManifestError(f"{where}: {name} is {value!r}, not text")
        try:
            if name != "id":  # has a check of its own
                os.fsencode(value) if name in PATHS else value.encode()
        except UnicodeEncodeError:
            raise ManifestError(f"{where}: {name} {value!r} holds half of a surrogate pair, no character") from None
        if name in PATHS:
            if "\0" in value:
                raise ManifestError(f"{where}: {name} holds a NUL character")
            try:
                values[name] = folder / expand_path(value)
            except ConfigError as error:
                raise ManifestError(f"{where}: {name} is {error}") from error
    try:
        check_id(values.get("id", ""))
    except InvalidIdError as error:
        raise ManifestError(f"{where}: {error}") from error
    extra = {name: cell for name, cell in row.items() if name not in COLUMNS}
    return Sample(**values, extra=Extra(extra)) if extra else Sample(**values)

"""Sample: one short video with its sound, face crops, descriptions and label; and manifests that list them."""

from __future__ import annotations

import csv
import difflib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from featurestore.errors import InvalidIdError, ManifestError
from featurestore.given import parse_json, read_given
from featurestore.key import check_id


@dataclass(frozen=True, slots=True)
class Sample:
    """What is known of one sample.  Paths are not opened until they are needed."""

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

    def paths(self) -> Iterator[Path]:
        """All files of the sample that are named."""
        for name in PATHS:
            path = getattr(self, name)
            if path is not None:
                yield path


Source = Mapping[str, Sample]
"""The samples of one dataset by id; a dict is one."""

MAX_BYTES = 256 << 20  # a line for each of a million samples
COLUMNS = tuple(field.name for field in fields(Sample))
PATHS = ("video", "face", "audio", "au_json", "au_csv")


def read_manifest(path: str | Path) -> dict[str, Sample]:
    """The samples that a CSV file (with a header) or a JSON Lines file (`.jsonl`) lists, in its order.

    Columns: id, video, face, audio, subtitle, au_json, au_csv, label; only `id` is required, and an empty cell
    is no value.  Paths are relative to the manifest's folder.  Other columns are ignored, unless one looks
    like a misspelt name.

    Raises ManifestError, with the line, for what cannot be read: a missing file, text that is not UTF-8,
    columns or ids that are missing, twice or not allowed, a row of another length, broken JSON.
    """
    path = Path(path)
    text = _text(path)
    folder = Path(os.path.abspath(path.parent))
    rows = _json_rows(path, text) if path.suffix.lower() in (".jsonl", ".ndjson") else _csv_rows(path, text)
    samples: dict[str, Sample] = {}
    lines: dict[str, int] = {}
    for line, row in rows:
        sample = _sample(f"{path}, line {line}", row, folder)
        if sample.id in samples:
            raise ManifestError(f"{path}, line {line}: id {sample.id!r} is already on line {lines[sample.id]}")
        samples[sample.id] = sample
        lines[sample.id] = line
    if not samples:
        raise ManifestError(f"{path} lists no samples")
    return samples


def _text(path: Path) -> str:
    try:
        data = read_given(path, MAX_BYTES)
    except OSError as error:
        raise ManifestError(f"manifest {path} cannot be read: {error.strerror}; look at the path") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError(
            f"{path}, line {line}: not UTF-8 (byte {data[error.start]:#04x}); save the manifest as UTF-8"
        ) from error


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, {column: cell}) of each row; a row may span several lines, its first is given."""
    # Not splitlines: it also ends lines where a subtitle has U+2028 or U+0085.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    line = 1
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_columns(f"{path}, line 1", header)
        line = reader.line_num + 1
        for cells in reader:
            if len(cells) not in (0, len(header)):
                raise ManifestError(
                    f"{path}, line {line}: {len(cells)} cells, but the header has {len(header)} columns; "
                    "text with a comma needs quotes"
                )
            if cells:
                yield line, {name: cell for name, cell in zip(header, cells, strict=True) if cell}
            line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(f"{path}, line {line}: not CSV: {error}") from error


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, {key: value}) of each line that is not blank."""
    for line, content in enumerate(text.split("\n"), 1):
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
        yield line, {name: value for name, value in pairs if value is not None}


class _Pairs(list[tuple[str, Any]]):
    """A JSON object before its repeated keys are lost."""


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
        if name in PATHS:
            if "\0" in value:
                raise ManifestError(f"{where}: {name} holds a NUL character")
            values[name] = folder / value
    try:
        check_id(values.get("id", ""))
    except InvalidIdError as error:
        raise ManifestError(f"{where}: {error}") from error
    return Sample(**values)

"""Tables that come with datasets: names, subtitles, label lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from featurestore.errors import ManifestError
from featurestore.untrusted_io.tables import SHEET, read_rows

MAX_BYTES = 64 << 20


def find_table(folder: Path, file: str) -> Path:
    """Where a declared table is: under its name, or as the `.xlsx` of that name where only that is there."""
    path = folder / file
    sheet = path.with_suffix(SHEET) if path.suffix == ".csv" else path
    return sheet if not path.exists() and sheet.exists() else path


def read_columns(path: str | Path, name: str, column: str) -> Iterator[tuple[str, str]]:
    """(name, text) of each row of a CSV or `.xlsx` with a header, in file order; an empty cell is the empty text.

    A byte-order mark is allowed.  ManifestError names the file, and the line where there is one, for a
    file that is missing, too large, not UTF-8, without the columns, or with rows of another length.
    """
    path = Path(path)
    rows = read_rows(path, MAX_BYTES)
    header = next(rows, (1, []))[1]
    for wanted in (name, column):
        if wanted not in header:
            raise ManifestError(f"{path} has no column {wanted!r}; it has {', '.join(header) or 'no header'}")
    at, text = header.index(name), header.index(column)
    for _, row in rows:
        yield row[at], row[text]

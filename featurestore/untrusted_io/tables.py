"""Tables that somebody else wrote, CSV or the first sheet of an `.xlsx`: rows of text with the line of each."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featurestore.errors import ManifestError, MissingPackageError
from featurestore.untrusted_io.charset import decode
from featurestore.untrusted_io.files import read_untrusted

SHEET = ".xlsx"
Row = tuple[int, list[str]]


def read_text(path: Path, limit: int) -> str:
    """All of a text file in UTF-8, with or without a byte-order mark.

    Raises ManifestError that names the file, and for another encoding the line, what it is, and what converts it.
    """
    data = _read(path, limit)
    try:
        return decode(data, path.name)
    except ValueError as error:
        raise ManifestError(f"{path}, {error}") from error


def read_rows(path: Path, limit: int, *, skip_blanks: bool = False) -> Iterator[Row]:
    """(line, cells) of each row that is not blank; the first is the header, and the others have as many cells.

    limit        bytes of the file, and of an `.xlsx` also when it is inflated
    skip_blanks  take blanks after a comma for the layout of a CSV, not for part of the cell
    A row of several lines has the first as its line.  Raises ManifestError with file and line, and MissingPackageError
    for an `.xlsx` where openpyxl is not installed.
    """
    sheet = path.suffix.lower() == SHEET
    rows = _sheet_rows(path, limit) if sheet else _csv_rows(path, read_text(path, limit), skip_blanks)
    width: int | None = None
    for line, cells in rows:
        width = len(cells) if width is None else width
        if len(cells) != width:
            advice = "" if sheet else "; text with a comma needs quotes"
            raise ManifestError(f"{path}, line {line}: {len(cells)} cells, but the header has {width} columns{advice}")
        yield line, cells


def _read(path: Path, limit: int) -> bytes:
    try:
        return read_untrusted(path, limit)
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        why = error.strerror if isinstance(error, OSError) else error
        raise ManifestError(f"{path} cannot be read: {why}; look at the path") from error


def _csv_rows(path: Path, text: str, skip_blanks: bool) -> Iterator[Row]:
    # Not splitlines: it also ends lines where a subtitle has U+2028 or U+0085.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=skip_blanks)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(f"{path}, line {line}: not CSV: {error}") from error


def _sheet_rows(path: Path, limit: int) -> Iterator[Row]:
    try:
        import openpyxl  # a table in CSV is read without it
    except ImportError as error:
        raise MissingPackageError(
            f"reading {path} needs openpyxl (`pip install openpyxl`); or save it as CSV in UTF-8"
        ) from error
    data = io.BytesIO(_read(path, limit))
    try:
        with zipfile.ZipFile(data) as archive:
            inflated = sum(info.file_size for info in archive.infolist())
        if inflated > limit:
            raise ManifestError(f"{path} would inflate to {inflated} bytes, and more than {limit} are not read")
        book = openpyxl.load_workbook(data, read_only=True, data_only=True)
        rows = [[_cell(value) for value in row] for row in book.worksheets[0].iter_rows(values_only=True)]
        book.close()
    except ManifestError:
        raise
    except Exception as error:  # openpyxl raises whatever zipfile and its XML parser do
        raise ManifestError(f"{path} cannot be read as a spreadsheet: {type(error).__name__}: {error}") from error
    width = max((index + 1 for index, cell in enumerate(rows[0]) if cell), default=0) if rows else 0
    for line, row in enumerate(rows, 1):
        # A sheet has no ends of rows: cells that were never filled in are there, or not, as the writer liked.
        cells = row[:width] + [""] * (width - len(row)) + [cell for cell in row[width:] if cell]
        if any(cells):
            yield line, cells


def _cell(value: Any) -> str:
    return "" if value is None else str(value)

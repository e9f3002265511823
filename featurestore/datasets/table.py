"""CSV files that come with datasets: names, subtitles, label lists."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from featurestore.errors import ManifestError
from featurestore.given import read_given

MAX_BYTES = 64 << 20


def read_columns(path: str | Path, name: str, column: str) -> Iterator[tuple[str, str]]:
    """(name, text) of each row of a CSV with a header, in file order; an empty cell is the empty text.

    A byte-order mark is allowed.  ManifestError names the file, and the line where there is one, for a
    file that is missing, too large, not UTF-8, without the columns, or with rows of another length.
    """
    path = Path(path)
    try:
        stream = io.StringIO(read_given(path, MAX_BYTES).decode("utf-8-sig"), newline="")
        rows = csv.reader(stream, strict=True)
        header = next(rows, [])
        for wanted in (name, column):
            if wanted not in header:
                raise ManifestError(f"{path} has no column {wanted!r}; it has {', '.join(header) or 'no header'}")
        at, text = header.index(name), header.index(column)
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise ManifestError(f"{path}, line {rows.line_num}: {len(row)} fields, not {len(header)}")
            yield row[at], row[text]
    # ValueError: a name of a file with a NUL in it, and text that is not UTF-8.
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, ManifestError):
            raise
        why = error.strerror if isinstance(error, OSError) else error
        raise ManifestError(f"{path} cannot be read: {why}; mend the file, or its name in the declaration") from error

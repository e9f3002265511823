"""CSV files that come with datasets: names, subtitles, label lists."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from featurestore.errors import ManifestError

MAX_BYTES = 256 << 20


def read_columns(path: str | Path, name: str, column: str) -> Iterator[tuple[str, str]]:
    """(name, text) of each row of a CSV with a header, in file order; an empty cell is the empty text.

    A byte-order mark is allowed.  ManifestError names the file, and the line where there is one, for a
    file that is missing, too large, not UTF-8, without the columns, or with rows of another length.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ManifestError(f"{path} has more than {MAX_BYTES} bytes, which no list of samples has")
        with path.open(encoding="utf-8-sig", newline="") as stream:
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
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path} cannot be read: {error}") from error

"""How commands write to stdout: JSON, tables, sizes."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import click

LEAST_COLUMN = 16  # narrower text is worse to read than below


def echo_json(data: Any) -> None:
    """One JSON document.  What the encoding of the output lacks is escaped as JSON does it."""
    narrow = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("_", "-") not in ("utf-8", "utf8")
    click.echo(json.dumps(data, ensure_ascii=narrow, indent=2))


def echo_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns under their names; numbers to the right.  Nothing at all without rows."""
    if not rows:
        return
    cells = [[_text(value) for value in row] for row in rows]
    numeric = [all(isinstance(row[i], int) or row[i] is None for row in rows) for i in range(len(header))]
    widths = [max(len(line[i]) for line in [header, *cells]) for i in range(len(header))]
    for line in [list(header), *cells]:
        parts = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        click.echo("  ".join(parts).rstrip())


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None where it is a file or a pipe and $COLUMNS does not say."""
    return shutil.get_terminal_size((0, 0)).columns or None


def fitted_table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Lines of a table of texts within a width: the last two columns wrap, or, where that is too little, all of a row
    stands below its first two cells."""
    widths = [max(cell_width(line[i]) for line in [header, *rows]) for i in range(len(header))]
    fixed = sum(widths[:-2]) + 2 * len(widths[:-2])
    if width is None or fixed + sum(widths[-2:]) + 2 <= width:
        columns = widths
    elif fixed + 2 * LEAST_COLUMN + 2 <= width:
        left = width - fixed - 2
        value = min(widths[-2], max(LEAST_COLUMN, left // 2))
        columns = [*widths[:-2], value, left - value]
    else:
        return [line for row in rows for line in _stacked(row, width)]
    return [line for row in [header, *rows] for line in _beside(row, columns)]


def _beside(row: Sequence[str], columns: Sequence[int]) -> Iterator[str]:
    parts = [wrapped(text, width) or [""] for text, width in zip(row, columns, strict=True)]
    for cells in itertools.zip_longest(*parts, fillvalue=""):
        padded = [cell + " " * (width - cell_width(cell)) for cell, width in zip(cells, columns, strict=True)]
        yield "  ".join(padded).rstrip()


def _stacked(row: Sequence[str], width: int) -> Iterator[str]:
    yield from wrapped("  ".join(row[:2]), width)
    for text in row[2:]:
        yield from (f"  {line}" for line in wrapped(text, max(1, width - 2)))


def wrapped(text: str, width: int) -> list[str]:
    """A text in lines of at most `width` columns, broken between words, and within one that is longer."""
    lines = [""]
    for word in text.split():
        if lines[-1] and cell_width(lines[-1]) + 1 + cell_width(word) <= width:
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and cell_width(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines if lines != [""] else []


def cell_width(text: str) -> int:
    """Columns that a text takes in a terminal: two for a character of Chinese."""
    return len(text) + sum(unicodedata.east_asian_width(character) in "WF" for character in text)


def counted(count: int, noun: str) -> str:
    """`1 sample`, `12,799 samples`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def size_text(count: int) -> str:
    """A number of bytes: 999 B, 1.5 KB, 24.0 MB; a KB is 1,000 bytes."""
    value, unit = float(count), "B"
    for bigger in ("KB", "MB", "GB", "TB"):
        if value < 999.95:
            break
        value, unit = value / 1000, bigger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)

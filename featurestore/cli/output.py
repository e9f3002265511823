"""How commands write to stdout: JSON, tables, sizes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click


def echo_json(data: Any) -> None:
    """One JSON document."""
    click.echo(json.dumps(data, ensure_ascii=False, indent=2))


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

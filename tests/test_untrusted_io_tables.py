"""Rows of tables, with the line of whatever is wrong."""

from __future__ import annotations

import builtins
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from featurestore.datasets.table import read_columns
from featurestore.errors import ManifestError, MissingPackageError
from featurestore.untrusted_io.tables import read_rows

LIMIT = 1 << 20
ROWS = "".join(f"s{number},text {number}\n" for number in range(300)).encode()


def sheet(path: Path, *rows: list[Any]) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("s300,你好\n".encode("gbk"), "line 302: not UTF-8 .byte 0xc4. but GB18030"),
        (b's300,"Hi" she said\n', "line 302: not CSV"),
        (b's300,"an open quote\nand another line\n', "line 302: not CSV"),
        (b"s300,Hello, you\n", "line 302: 3 cells, but the header has 2 columns; text with a comma needs quotes"),
        (b's300,"two\nlines",x\n', "line 302: 3 cells"),
        (b'\n\ns300,"two\nlines"\n\ns301\n', "line 307: 1 cells"),
    ],
)
def test_every_error_has_the_line_on_which_its_row_begins(tmp_path: Path, row: bytes, message: str) -> None:
    table = tmp_path / "subtitle.csv"
    table.write_bytes(b"name,english\n" + ROWS + row)
    with pytest.raises(ManifestError, match=rf"subtitle\.csv, {message}"):
        list(read_columns(table, "name", "english"))


def test_cells_keep_their_blanks_unless_they_are_layout(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(b'\xef\xbb\xbfa, b\r\n1, "x, y"\r\n')
    assert list(read_rows(table, LIMIT, skip_blanks=True)) == [(1, ["a", "b"]), (2, ["1", "x, y"])]
    table.write_bytes(b"a,b\n1, x\n")
    assert list(read_rows(table, LIMIT)) == [(1, ["a", "b"]), (2, ["1", " x"])]


def test_a_sheet_is_text_with_the_rows_of_the_spreadsheet(tmp_path: Path) -> None:
    path = sheet(tmp_path / "t.xlsx", ["id", "val", "label"], ["a", 0.5, None], [], ["b", 3, "", None, None])
    assert list(read_rows(path, LIMIT)) == [(1, ["id", "val", "label"]), (2, ["a", "0.5", ""]), (4, ["b", "3", ""])]
    path = sheet(tmp_path / "t.xlsx", ["id", "val"], ["a", 1], ["b", 2, "beside the table"])
    with pytest.raises(ManifestError, match=r"t\.xlsx, line 3: 3 cells, but the header has 2 columns$"):
        list(read_rows(path, LIMIT))


def test_a_sheet_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.xlsx"
    with pytest.raises(ManifestError, match=r"t\.xlsx cannot be read: No such file"):
        list(read_rows(path, LIMIT))
    path.write_bytes(b"id,label\n")
    with pytest.raises(ManifestError, match=r"t\.xlsx cannot be read as a spreadsheet"):
        list(read_rows(path, LIMIT))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b"\0" * (LIMIT + 1))
    with pytest.raises(ManifestError, match="would inflate to 1048577 bytes"):
        list(read_rows(path, LIMIT))


def test_a_sheet_without_openpyxl_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sheet(tmp_path / "t.xlsx", ["id"], ["a"])
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "openpyxl":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackageError, match=r"needs openpyxl \(`pip install openpyxl`\); or save it as CSV"):
        list(read_rows(path, LIMIT))

"""Text in another encoding is told what it is, where, and what makes it right."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from featurestore.untrusted_io.charset import decode

CHINESE = "name,chinese\ns1,我们成功了\ns2,你好\n"
WESTERN = "name,label\ns1,fröhlich\ns2,müde\n"


def said(data: bytes, name: str = "table.csv") -> str:
    with pytest.raises(ValueError, match="line ") as raised:
        decode(data, name)
    return str(raised.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf_8_is_read_with_and_without_a_mark(encoding: str) -> None:
    assert decode(CHINESE.encode(encoding), "table.csv") == CHINESE
    assert decode(b"", "table.csv") == ""
    assert decode(b"a\0b\0\n", "table.csv") == "a\0b\0\n"


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("gbk", "line 2: not UTF-8 (byte 0xce) but GB18030 (GBK, GB2312)"),
        ("gb18030", "line 2: not UTF-8 (byte 0xce) but GB18030 (GBK, GB2312)"),
        ("utf-16", "line 1: not UTF-8 but UTF-16;"),
        ("utf-16-le", "line 1: not UTF-8 but UTF-16LE;"),
        ("utf-16-be", "line 1: not UTF-8 but UTF-16BE;"),
        ("utf-32", "line 1: not UTF-8 but UTF-32;"),
    ],
)
def test_the_line_that_is_told_makes_it_right(tmp_path: Path, encoding: str, named: str) -> None:
    path = tmp_path / "my table.csv"
    path.write_bytes(CHINESE.encode(encoding))
    text = said(path.read_bytes(), path.name)
    assert text.startswith(named)
    line = text.split("`")[1]
    assert line.endswith("> 'my table.utf8.csv'")
    subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True)
    assert decode((tmp_path / "my table.utf8.csv").read_bytes(), "x") == CHINESE


def test_letters_with_accents_are_not_taken_for_chinese() -> None:
    text = said(WESTERN.encode("latin-1"))
    assert text.startswith("line 2: not UTF-8 (byte 0xf6); save it as UTF-8: `iconv -f WINDOWS-1252 -t UTF-8 table.csv")
    assert "but GB18030" not in text


def test_one_line_of_another_encoding_is_shown_and_not_the_whole_file_converted() -> None:
    """`iconv` of the file would make other characters of its good lines."""
    text = said(CHINESE.encode() + "s3,再见\n".encode("gbk"))
    assert text.startswith("line 4: not UTF-8 (byte 0xd4), though 2 other lines are; read as GB18030 it says 's3,再见'")
    assert "iconv" not in text


@pytest.mark.parametrize(
    ("data", "what"), [(b"PK\x03\x04\x14\0", "a spreadsheet (.xlsx); name it so"), (b"\xd0\xcf\x11\xe0\xa1\xb1", "old")]
)
def test_a_spreadsheet_under_another_name_is_told(data: bytes, what: str) -> None:
    assert what in said(data)

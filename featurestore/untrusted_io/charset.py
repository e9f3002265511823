"""Charset: text is UTF-8 here; what is not is told what it is, and the line that converts it."""

from __future__ import annotations

import shlex

SPREADSHEETS = {b"PK\x03\x04": "a spreadsheet (.xlsx)", b"\xd0\xcf\x11\xe0": "an old spreadsheet (.xls)"}
MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip


def decode(data: bytes, name: str) -> str:
    """A text in UTF-8, without its byte-order mark.

    Raises ValueError for anything else: `line 3: not UTF-8 but ...`, with the line that converts the file `name`.
    """
    for magic, what in SPREADSHEETS.items():
        if data.startswith(magic):
            advice = "name it so" if what.endswith("(.xlsx)") else "save it as .xlsx or as CSV in UTF-8"
            raise ValueError(f"line 1: not text but {what}; {advice}")
    if (wide := _wide_encoding(data)) is not None:
        raise ValueError(f"line 1: not UTF-8 but {wide}; {_conversion(wide, name)}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: not UTF-8{_what_else(data, error.start, name)}") from error


def _wide_encoding(data: bytes) -> str | None:
    """UTF-16 or UTF-32, told by the mark at its beginning, or without one by where its zeros are."""
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            return encoding
    places = {place % 2 for place, byte in enumerate(data[:4096]) if byte == 0}
    if len(places) != 1 or data[:4096].count(0) < 4 or len(data) % 2:
        return None
    encoding = "UTF-16LE" if places == {1} else "UTF-16BE"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return encoding if text[:1].isprintable() and text[:1].isascii() else None


def _what_else(data: bytes, start: int, name: str) -> str:
    """What bytes that are not UTF-8 probably are, and what to do about it."""
    lines = [line for line in data.split(b"\n") if not line.isascii()]
    wrong = [line for line in lines if not _is(line, "utf-8")]
    byte = f"byte {data[start]:#04x}"
    if 10 * (len(lines) - len(wrong)) > len(wrong):
        said = f"; read as GB18030 it says {_shown(wrong[0])}" if _looks_chinese(wrong[0]) else ""
        return f" ({byte}), though {len(lines) - len(wrong)} other lines are{said}; write this line again in UTF-8"
    if _looks_chinese(data):
        return f" ({byte}) but GB18030 (GBK, GB2312); {_conversion('GB18030', name)}"
    maybe = "; if it is Chinese, " + _conversion("GB18030", name) if _is(data, "gb18030") else ""
    return f" ({byte}); save it as UTF-8: {_conversion('WINDOWS-1252', name)} if it is of Western Europe{maybe}"


def _is(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _looks_chinese(data: bytes) -> bool:
    """Whether it is GB18030 with common characters: by chance, letters with accents are rare ones there."""
    if not _is(data, "gb18030"):
        return False
    found = [character for character in data.decode("gb18030") if ord(character) > 127]
    return 2 * sum(_is_common(character) for character in found) >= len(found)


def _is_common(character: str) -> bool:
    try:
        return bool(character.encode("gb2312"))
    except UnicodeEncodeError:
        return False


def _shown(line: bytes) -> str:
    text = line.decode("gb18030").strip()
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _conversion(encoding: str, name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    new = f"{stem}.utf8.{ending}" if dot else f"{name}.utf8"
    return f"`iconv -f {encoding} -t UTF-8 {shlex.quote(name)} > {shlex.quote(new)}` makes it so"

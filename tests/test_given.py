"""Files that somebody else made: what is no file, or too large, is refused before it is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from featurestore.given import parse_json, read_given, require_file


def test_a_file_within_the_limit_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert read_given(tmp_path / "a", 3) == b"abc"
    require_file(tmp_path / "a")


def test_a_file_of_terabytes_is_refused_by_its_size(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match=f"has {1 << 40} bytes, and more than 1000 are not read.*a'"):
        read_given(tmp_path / "a", 1000)


@pytest.mark.parametrize("what", ["folder", "pipe", "device", "loop", "nothing"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what != "nothing":
        path.symlink_to({"device": "/dev/zero", "loop": "a"}[what])
    with pytest.raises(OSError):
        read_given(path, 1000)
    with pytest.raises(OSError):
        require_file(path)


def test_json_that_is_nested_too_deeply_is_a_value_error() -> None:
    assert parse_json(b'{"a": [1]}') == {"a": [1]}
    for text in ("[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000):
        with pytest.raises(ValueError):
            parse_json(text)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)

"""Files that somebody else made: what is no file, or too large, is refused before it is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from featurestore.errors import ConfigError
from featurestore.untrusted_io.files import expand_path, is_lfs_pointer, open_untrusted, parse_json, read_untrusted


def test_a_file_within_the_limit_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert read_untrusted(tmp_path / "a", 3) == b"abc"
    with open_untrusted(tmp_path / "a") as (file, status):
        assert (status.st_size, file.read(2)) == (3, b"ab")


def test_a_file_of_terabytes_is_refused_by_its_size(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match=f"has {1 << 40} bytes, and more than 1000 are not read.*a'"):
        read_untrusted(tmp_path / "a", 1000)


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
        read_untrusted(path, 1000)
    with pytest.raises(OSError), open_untrusted(path):
        raise AssertionError("it was opened")


def test_json_that_is_nested_too_deeply_is_a_value_error() -> None:
    assert parse_json(b'{"a": [1]}') == {"a": [1]}
    for text in ("[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000):
        with pytest.raises(ValueError):
            parse_json(text)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)


def test_a_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_path("~/x") == Path("/home/me/x")
    assert expand_path("~") == Path("/home/me")
    for same in ("a~/x", "./~x", "/a/~", "x.mp4", "cost$5.mp4", "$RECYCLE.BIN/x", "Qwen/Qwen2.5-7B-Instruct"):
        assert expand_path(same) == Path(same)


@pytest.mark.parametrize("home", ["", "relative"])
def test_a_home_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    """`os.path.expanduser` makes /x of ~/x where HOME is empty."""
    monkeypatch.setenv("HOME", home)
    with pytest.raises(ConfigError, match="'~/x': there is no home directory here: set HOME"):
        expand_path("~/x")


@pytest.mark.parametrize("text", ["$DATA/x", "/a/$DATA", "${oc.env:DATA}/x", "/a/${DATA}", "a${DATA,/b}"])
def test_a_variable_is_no_folder(text: str) -> None:
    with pytest.raises(ConfigError, match=r"\$.* is no folder, and no variable is put in here; write its value"):
        expand_path(text)


def test_nobodys_home_is_told() -> None:
    with pytest.raises(ConfigError, match=r"nobody is called 'no-such-user' here; a file of that name is \./~no-such"):
        expand_path("~no-such-user/x")


def test_a_pointer_of_git_lfs_is_no_json(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1262\n"
    for text in (pointer, pointer.encode()):
        with pytest.raises(ValueError, match="it is a Git LFS pointer, not the file itself: run `git lfs pull`"):
            parse_json(text)
    (tmp_path / "a").write_text(pointer)
    (tmp_path / "b").write_text("{}")
    assert (is_lfs_pointer(tmp_path / "a"), is_lfs_pointer(tmp_path / "b")) == (True, False)
    assert parse_json('"\ud800"'.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")) == "\ud800"

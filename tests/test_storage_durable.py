"""Files that are on the disk when a function returns."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from featurestore.errors import ReadOnlyError, StoreError
from featurestore.storage.durable import explain, fsync_dir, write_file


def test_a_file_is_made_new_written_whole_and_fsynced_before_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, close, write = os.fsync, os.close, os.write
    monkeypatch.setattr(os, "fsync", lambda fd: done.append("fsync") or fsync(fd))
    monkeypatch.setattr(os, "close", lambda fd: done.append("close") or close(fd))
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    write_file(tmp_path / "file", [b"12345", b"", b"67"])
    monkeypatch.undo()
    assert (tmp_path / "file").read_bytes() == b"1234567"
    assert done == ["fsync", "close"]
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "file", [b"other"])
    assert (tmp_path / "file").read_bytes() == b"1234567"


def test_a_failed_fsync_is_not_tried_again_and_closes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one the kernel may have dropped what was not written: a second one would lie."""
    tries: list[int] = []

    def fail(fd: int) -> None:
        tries.append(fd)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_file(tmp_path / "file", [b"x"])
    assert len(tries) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(tries[0])


def test_a_directory_is_fsynced_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[bool] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: kinds.append(stat.S_ISDIR(os.fstat(fd).st_mode)) or fsync(fd))
    fsync_dir(tmp_path)
    assert kinds == [True]
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        fsync_dir(tmp_path / "file")


def test_an_error_of_the_system_keeps_its_number_and_path_and_says_what_to_do() -> None:
    error = explain(OSError(errno.ENOSPC, "No space left on device", "/a/path"), "cannot commit")
    assert type(error) is StoreError
    assert (error.errno, error.filename) == (errno.ENOSPC, "/a/path")
    assert str(error).startswith("[Errno 28] cannot commit: No space left on device; free some space and run it again")
    assert type(explain(PermissionError(errno.EACCES, "Permission denied"), "x")) is ReadOnlyError
    assert explain(OSError("no number"), "x").errno == errno.EIO

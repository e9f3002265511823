"""Files that are on the disk when a function returns, and what to say when they are not.

Everything that a store writes goes through `os` calls here and in the rooms above, so that tests can
make each of them fail.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featurestore.errors import ReadOnlyError, StoreError


def write_file(path: Path | str, parts: Sequence[bytes]) -> None:
    """A new file with this content, fsynced."""
    fd = create(path)
    try:
        for part in parts:
            write(fd, part)
        fsync(fd)
    finally:
        os.close(fd)


def create(path: Path | str) -> int:
    """A new file, open for writing."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def write(fd: int, data: Any) -> None:
    """All of it."""
    rest = memoryview(data)
    while rest:  # a write may be short
        rest = rest[os.write(fd, rest) :]


def fsync(fd: int) -> None:
    """What was written is on the disk when this returns.  After an error it never will be: write anew."""
    if sys.platform == "darwin":
        import fcntl  # not on every platform

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync alone does not reach the disk there
    else:
        os.fsync(fd)


def fsync_dir(path: Path | str) -> None:
    """Make names created in, or renamed into, a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fsync(fd)
    finally:
        os.close(fd)


def explain(error: OSError, what: str) -> StoreError:
    """The system's error in our words: what did not happen, where, and what to do."""
    path = str(error.filename or "")
    kind: type[StoreError] = StoreError
    to_do, advice = "look at the path", ""
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        kind, to_do, advice = ReadOnlyError, "make the directory writable", "or open the store with read_only=True"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        to_do = "free some space and run it again: what was acknowledged before is safe"
    elif error.errno == errno.EXDEV:
        to_do = "`data` and `.fstore` of a store must be on one file system"
    said = f"{what}: {error.strerror or error}; {to_do}"
    return kind(error.errno or errno.EIO, said, path, advice=advice)

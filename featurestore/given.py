"""Files that somebody else made, read within limits: a name may lead to a pipe, a device or a hole of terabytes."""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import Any


def read_given(path: str | os.PathLike[str], limit: int) -> bytes:
    """All of a regular file that has at most `limit` bytes.

    Raises OSError, whose `strerror` says what is wrong: it is missing, larger, or a folder, a pipe or a device.
    """
    # Without O_NONBLOCK a named pipe would wait for a writer.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", os.fspath(path))
        if status.st_size > limit:
            raise OSError(
                errno.EFBIG, f"has {status.st_size} bytes, and more than {limit} are not read", os.fspath(path)
            )
        return file.read()


def require_file(path: str | os.PathLike[str]) -> None:
    """OSError, as above, for what is not a regular file."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", os.fspath(path))


def parse_json(text: str | bytes, **options: Any) -> Any:
    """What JSON says.  Raises ValueError, also for what is nested more deeply than Python can follow."""
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None

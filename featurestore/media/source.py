"""Which file was read: path, size, mtime and digest, as they go into the provenance of a row."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from featurestore.errors import MediaError

TOLERANCE_S = 0.25
"""seconds by which a stream may be shorter than its header announces: codecs pad, and headers round"""

LOOK = "look at the path in the manifest, and whether the file is there and may be read"


def file_source(path: Path) -> dict[str, Any]:
    """{path, size, mtime_ns, sha256} of a file.

    Raises MediaError if it is missing, empty, not a file or cannot be read.  A missing or unreadable file
    may be there next time, so only an empty one is a failure worth recording.
    """
    with opened_file(path) as (file, status):
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": digest}


@contextmanager
def opened_file(path: Path) -> Iterator[tuple[BufferedReader, os.stat_result]]:
    """(the file, its status) for reading; MediaError as of `file_source`, also for what goes wrong while it is read."""
    try:
        # Without O_NONBLOCK a named pipe would wait for a writer.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise unavailable(path, f"is not a regular file; {LOOK}")
            if status.st_size == 0:
                raise MediaError(f"{path} is empty (0 bytes); copy or download it again", path)
            yield file, status
    except OSError as error:
        raise unavailable(path, f"{error.strerror or error}; {LOOK}") from error


def check_unchanged(source: dict[str, Any]) -> None:
    """MediaError if the file is not the one that was read before: its index would point at other frames."""
    path = Path(source["path"])
    try:
        status = os.stat(path)
    except OSError as error:
        raise unavailable(path, f"{error.strerror or error}; {LOOK}") from error
    if (status.st_size, status.st_mtime_ns) != (source["size"], source["mtime_ns"]):
        raise unavailable(path, "changed while it was being read; run again when it is complete")


def unavailable(path: Path, why: str) -> MediaError:
    """A MediaError that is not recorded: the same path may work next time."""
    error = MediaError(f"{path}: {why}", path)
    error.deterministic = False
    return error

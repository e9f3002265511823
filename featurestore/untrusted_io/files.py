"""What a user gives: paths as they are written, and files that somebody else made, read within limits."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from featurestore.errors import ConfigError, InputError

LFS = b"version https://git-lfs"  # how the note begins that a clone without Git LFS has in the place of a file
_VARIABLE = re.compile(r"\$\w+|.*\$\{.*", re.DOTALL)


def expand_path(path: str | os.PathLike[str]) -> Path:
    """A path as it is written in a file, an option or an environment variable: `~` is the home directory.

    Raises ConfigError where that is not known, for `~NAME` of nobody, and for a folder called `$NAME` or `${...}`:
    what nothing puts a value into would become a folder of that name.
    """
    text = os.fspath(path)
    first = text.partition("/")[0]
    if first.startswith("~"):
        text = _home(first, text) + text[len(first) :]
    for part in text.split("/"):
        if _VARIABLE.fullmatch(part):
            raise ConfigError(f"{text!r}: {part} is no folder, and no variable is put in here; write its value")
    return Path(text)


def _home(first: str, text: str) -> str:
    """The home directory that `~` or `~NAME` means."""
    home = os.path.expanduser(first)
    if first == "~" and (os.environ.get("HOME") == "" or not os.path.isabs(home)):
        raise ConfigError(f"{text!r}: there is no home directory here: set HOME, or write the whole path")
    if home == first:
        raise ConfigError(f"{text!r}: nobody is called {first[1:]!r} here; a file of that name is ./{text}")
    return home


@contextmanager
def open_untrusted(path: str | os.PathLike[str]) -> Iterator[tuple[BufferedReader, os.stat_result]]:
    """(a regular file, open for reading; its status).

    Raises OSError, whose `strerror` says what is wrong: it is missing, or a folder, a pipe or a device.
    """
    # Without O_NONBLOCK a named pipe would wait for a writer.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", os.fspath(path))
        yield file, status


def read_untrusted(path: str | os.PathLike[str], limit: int) -> bytes:
    """All of a regular file that has at most `limit` bytes.  OSError as above, also for one that is larger."""
    with open_untrusted(path) as (file, status):
        if status.st_size > limit:
            raise OSError(
                errno.EFBIG, f"has {status.st_size} bytes, and more than {limit} are not read", os.fspath(path)
            )
        return file.read()


def is_lfs_pointer(path: str | os.PathLike[str]) -> bool:
    """Whether Git LFS left its note about a file in the place of the file.  OSError as from `open_untrusted`."""
    with open_untrusted(path) as (file, _):
        return file.read(len(LFS)) == LFS


def parse_json(text: str | bytes, **options: Any) -> Any:
    """What JSON says.  Raises ValueError, also for what is nested more deeply than Python can follow."""
    if (text if isinstance(text, bytes) else text[: len(LFS)].encode(errors="replace")).startswith(LFS):
        raise ValueError("it is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository")
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json_object(path: Path, limit: int, kind: type[InputError] = InputError) -> dict[str, Any]:
    """The JSON object in a file that was fetched.  FileNotFoundError, and an error of `kind` for all else."""
    try:
        content = parse_json(read_untrusted(path, limit))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise kind(f"{path} cannot be read: {error.strerror}; fetch the file again") from error
    except ValueError as error:
        raise kind(f"{path} is cut off or no JSON ({error}); fetch the file again") from None
    if not isinstance(content, dict):
        raise kind(f"{path} is not a JSON object; fetch the file again")
    return content


def is_file_name(name: object) -> bool:
    """Whether a text names a file beside the one that it stands in: any other could lead anywhere."""
    return isinstance(name, str) and name not in ("", ".", "..") and "/" not in name and "\0" not in name

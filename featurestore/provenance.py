"""Sources: the files that a row was made of, as they are recorded beside it, and whether they changed since."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from featurestore.untrusted_io.files import open_untrusted

State = Literal["unchanged", "touched", "changed", "gone"]
FIELDS = {"path": str, "size": int, "mtime_ns": int, "sha256": str}
OPTIONAL = {"column": str, "path_bytes": str}
"""Which column of the manifest named the file; and in hex the bytes of a path that is not UTF-8, see `written`."""


def misfit(sources: object) -> str | None:
    """Why this is not a list of {path, size, mtime_ns, sha256} with an optional column, or None."""
    if not isinstance(sources, list | tuple):
        return f"sources are {type(sources).__name__}, not a list of objects with {', '.join(FIELDS)}"
    for number, source in enumerate(sources):
        if not isinstance(source, Mapping):
            return f"sources[{number}] is {type(source).__name__}, not an object with {', '.join(FIELDS)}"
        for name, kind in (FIELDS | OPTIONAL).items():
            if name not in source:
                if name in OPTIONAL:
                    continue
                return f"sources[{number}] has no {name!r}; it needs {', '.join(FIELDS)}"
            if not isinstance(source[name], kind) or isinstance(source[name], bool):
                return f"sources[{number}] has {name} {source[name]!r}, not {kind.__name__}"
    return None


def written(source: Mapping[str, Any]) -> dict[str, Any]:
    """A source as JSON can hold it.

    A name that is not UTF-8, such as archives packed elsewhere unpack to, is a text with lone surrogates in
    Python and no text at all elsewhere: its odd bytes are written as `\\xe9`, and all of its bytes beside it.
    """
    path = source.get("path")
    if not isinstance(path, str) or path.isascii():
        return dict(source)
    readable = legible(path)
    if readable == path:
        return dict(source)
    return {**source, "path": readable, "path_bytes": path.encode("utf-8", "surrogateescape").hex()}


def path_of(source: Mapping[str, Any]) -> str:
    """The path of a source as the system knows it."""
    try:
        return bytes.fromhex(source["path_bytes"]).decode("utf-8", "surrogateescape")
    except (KeyError, TypeError, ValueError):
        return str(source["path"])


def legible(text: str) -> str:
    """A text with bytes of a file name that are not UTF-8 written as `\\xe9`; any other text as it is."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair, which no name of a file gives
        return text.encode("utf-8", "backslashreplace").decode()


def state_of(source: Mapping[str, Any], path: Path | str | None = None) -> State:
    """A recorded source against a file as it is now, by default that of its own path.

    By size and mtime where it is the very file that was read, and where these differ, or it is another file,
    by digest: two files may well agree in size and mtime.
    """
    before = path_of(source)
    try:
        status = os.stat(before if path is None else path)
        if status.st_size != source["size"]:
            return "changed"
        if status.st_mtime_ns == source["mtime_ns"] and (path is None or is_same(before, path, status)):
            return "unchanged"
        return "touched" if file_sha256(before if path is None else path) == source["sha256"] else "changed"
    except (OSError, ValueError):
        return "gone"


def is_same(before: str, path: Path | str, status: os.stat_result) -> bool:
    """Whether a path that was recorded leads to this file now: the same path, a link, or another mount of it."""
    if before == os.fspath(path):
        return True
    try:
        return os.path.samestat(os.stat(before), status)
    except (OSError, ValueError):
        return False


def file_sha256(path: Path | str) -> str:
    """Hex digest of a file's bytes.  OSError where there is none."""
    with open_untrusted(path) as (file, _):
        return hashlib.file_digest(file, "sha256").hexdigest()

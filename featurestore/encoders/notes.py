"""Notes in the user's cache directory: what was costly to find out about files that have not changed since.

One small JSON file for each note, below $XDG_CACHE_HOME/featurestore (else ~/.cache/featurestore).  A note
is valid as long as its files have the same real path, size and mtime.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featurestore.errors import ConfigError
from featurestore.untrusted_io.files import expand_path, parse_json, read_untrusted

NOTE_BYTES = 16 << 20
# A file may change twice within one tick of its clock, so one that has just been written is not trusted to stay.
SETTLED_NS = 2_000_000_000


def remembered(kind: str, subject: str, files: tuple[Path, ...], compute: Callable[[], str]) -> str:
    """The text that `compute` makes of `files`, from the user's cache as long as no file has changed."""
    states = [file.stat() for file in files]
    stamp = [[str(file.resolve()), state.st_size, state.st_mtime_ns] for file, state in zip(files, states, strict=True)]
    note = _note(kind, subject)
    known = _read_note(note)
    if known is not None and known["stamp"] == stamp:
        return str(known["value"])
    value = compute()
    if time.time_ns() - max((state.st_mtime_ns for state in states), default=0) > SETTLED_NS:
        _write_note(note, {"kind": kind, "subject": subject, "stamp": stamp, "value": value})
    return value


def remember(kind: str, subject: str, value: str) -> None:
    """Keep a text for `recall`."""
    if recall(kind, subject) != value:
        _write_note(_note(kind, subject), {"kind": kind, "subject": subject, "stamp": [], "value": value})


def recall(kind: str, subject: str) -> str | None:
    """What was last remembered, for files that are no longer here."""
    known = _read_note(_note(kind, subject))
    return None if known is None else str(known["value"])


def cache_folder() -> Path | None:
    """Where notes are kept; None for a user who has no home, as in a container that runs under any number."""
    try:
        return expand_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "featurestore"
    except ConfigError:  # neither $HOME nor an entry among the users
        return None


def _note(kind: str, subject: str) -> Path | None:
    folder = cache_folder()
    name = hashlib.sha256(f"{kind}\n{subject}".encode()).hexdigest()[:32]
    return None if folder is None else folder / "weights" / f"{name}.json"


def _read_note(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        note = parse_json(read_untrusted(path, NOTE_BYTES))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and {"stamp", "value"} <= note.keys() else None


def _write_note(path: Path | None, note: dict[str, Any]) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump(note, file)
        os.replace(file.name, path)
    except OSError:
        pass  # A home that cannot be written costs hashing again, nothing else.

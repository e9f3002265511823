"""Sources: the files that a row was made of, as they are recorded beside it, and whether they changed since."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

State = Literal["unchanged", "touched", "changed", "gone"]
FIELDS = {"path": str, "size": int, "mtime_ns": int, "sha256": str}


def misfit(sources: object) -> str | None:
    """Why this is not a list of {path, size, mtime_ns, sha256}, or None."""
    if not isinstance(sources, list | tuple):
        return f"sources are {type(sources).__name__}, not a list of objects with {', '.join(FIELDS)}"
    for number, source in enumerate(sources):
        if not isinstance(source, Mapping):
            return f"sources[{number}] is {type(source).__name__}, not an object with {', '.join(FIELDS)}"
        for name, kind in FIELDS.items():
            if name not in source:
                return f"sources[{number}] has no {name!r}; it needs {', '.join(FIELDS)}"
            if not isinstance(source[name], kind) or isinstance(source[name], bool):
                return f"sources[{number}] has {name} {source[name]!r}, not {kind.__name__}"
    return None


def state_of(source: Mapping[str, Any], path: Path | str) -> State:
    """A recorded source against a file as it is now: by size and mtime, and if those differ by digest."""
    try:
        status = os.stat(path)
        if (status.st_size, status.st_mtime_ns) == (source["size"], source["mtime_ns"]):
            return "unchanged"
        same = status.st_size == source["size"] and file_sha256(path) == source["sha256"]
        return "touched" if same else "changed"
    except OSError:
        return "gone"


def compare(provenance: Mapping[str, Any], paths: Iterable[Path]) -> State:
    """What became of the files a row was made of, in view of the files that its sample has now.

    Each is compared with the one of the same name, wherever that lies; where there is none, with the only other
    one of the same ending: a sample that names another video now was made of another.  A file that has no
    counterpart, such as a description that the manifest leaves out, says nothing.
    "changed" where one did; else "gone" where one cannot be read; else "unchanged".
    """
    recorded = [source for source in provenance.get("sources", ()) if misfit([source]) is None]
    now = {path.name: path for path in paths}
    others = [now[name] for name in now.keys() - {os.path.basename(source["path"]) for source in recorded}]
    states = set()
    for source in recorded:
        name = os.path.basename(source["path"])
        alike = [now[name]] if name in now else [path for path in others if path.suffix == Path(name).suffix]
        if len(alike) == 1:
            states.add(state_of(source, alike[0]))
    return "changed" if "changed" in states else "gone" if "gone" in states else "unchanged"


def file_sha256(path: Path | str) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""A file that somebody else's program wrote, read strictly."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from featurestore.errors import DescriptionError
from featurestore.untrusted_io.charset import decode
from featurestore.untrusted_io.files import open_untrusted

MAX_JSON_BYTES = 32 << 20  # real ones have some 75 kB
# What programs write where they have nothing; "N/A" is MER-Factory's own word.
_NOTHING = {"", "-", "n/a", "n.a", "na", "nan", "nil", "none", "not applicable", "not available", "null"}
HOW_TO_MAKE = "run MER-Factory on the video (python main.py VIDEO_DIR OUTPUT_DIR --type AU)"


def read_json(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the object in a JSON file, {path, size, mtime_ns, sha256} of the file).

    Raises DescriptionError for a file that is missing, larger than 32 MiB, not UTF-8, not JSON, no object,
    nested too deeply, or that holds NaN, infinity or a key twice: two readers would see two documents.
    """
    data, file = read_bytes(Path(path), MAX_JSON_BYTES)
    try:
        text = decode(data, Path(path).name)
    except ValueError as error:
        raise DescriptionError(f"{path}, {error}", path) from error
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
    except RecursionError as error:
        raise DescriptionError(f"{path} is nested too deeply", path) from error
    except ValueError as error:
        raise DescriptionError(f"{path} is not JSON: {error}", path) from error
    if not isinstance(document, dict):
        raise DescriptionError(f"{path} holds a {type(document).__name__}, not a JSON object", path)
    return document, file


def read_bytes(path: Path, limit: int) -> tuple[bytes, dict[str, Any]]:
    """(content, {path, size, mtime_ns, sha256}); DescriptionError if there is no such file or it is too large."""
    try:
        with open_untrusted(path) as (opened, status):
            if status.st_size > limit:
                raise DescriptionError(f"{path} has {status.st_size} bytes; more than {limit} are not read", path)
            data = opened.read()
    except OSError as error:
        failed = DescriptionError(f"{path}: {error.strerror}; {HOW_TO_MAKE}", path)
        failed.deterministic = False  # it may be there next time
        raise failed from error
    return data, {
        "path": str(path),
        "size": len(data),
        "mtime_ns": status.st_mtime_ns,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def is_absent(value: Any) -> bool:
    """Whether a value of a document says that there is none: null, "", "N/A" and the like, an empty object or list."""
    if isinstance(value, str):
        return " ".join(value.split()).strip(" .").casefold() in _NOTHING
    return value is None or (isinstance(value, dict | list) and not value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)

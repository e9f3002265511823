"""A file that somebody else's program wrote, read strictly."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from featurestore.errors import DescriptionError

MAX_JSON_BYTES = 32 << 20  # real ones have some 75 kB
HOW_TO_MAKE = "run MER-Factory on the video (python main.py VIDEO_DIR OUTPUT_DIR --type AU)"


def read_json(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the object in a JSON file, {path, size, mtime_ns, sha256} of the file).

    Raises DescriptionError for a file that is missing, larger than 32 MiB, not UTF-8, not JSON, no object,
    nested too deeply, or that holds NaN, infinity or a key twice: two readers would see two documents.
    """
    data, file = read_bytes(Path(path), MAX_JSON_BYTES)
    try:
        document = json.loads(
            data.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite
        )
    except UnicodeDecodeError as error:
        raise DescriptionError(f"{path} is not UTF-8 (byte {error.start})", path) from error
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
        # Without O_NONBLOCK a named pipe would wait for a writer.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "is not a regular file")
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

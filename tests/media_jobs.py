"""Functions that tests run in decode workers; the path that they take is what an error has to name."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def die_by(path: Path, number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(10)


def read_nowhere(path: Path) -> None:
    ctypes.string_at(0)


def sleep(path: Path, seconds: float) -> None:
    time.sleep(seconds)


def fill_memory(path: Path, size: int) -> int:
    return len(bytearray(size))


def fill_without_looking(path: Path, size: int) -> None:
    library = ctypes.CDLL(None)
    library.malloc.argtypes, library.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    ctypes.memset(library.malloc(size), 1, 1)


class Unsendable(Exception):
    def __init__(self, one: int, *, other: int) -> None:
        super().__init__(f"{one} and {other}")


def raise_unsendable(path: Path) -> None:
    raise Unsendable(1, other=2)


def environment(name: str) -> str | None:
    return os.environ.get(name)


def loaded() -> set[str]:
    return {name.partition(".")[0] for name in sys.modules}


def call_plainly(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)

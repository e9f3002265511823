"""System calls that fail: the n-th one that touches a directory, in any way an operating system knows."""

from __future__ import annotations

import builtins
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANGING = ("mkdir", "rename", "replace", "unlink", "rmdir", "write", "fsync")
READING = ("scandir", "listdir", "stat", "lstat", "fstat", "pread", "preadv")


@dataclass(frozen=True)
class Fault:
    """What happens at the n-th call.

    code      the error number; None for a write that is short, which is no error
    done      the call has happened all the same: the reply was lost on the network
    lasting   every later call that would change something fails too: a full or read-only disk
    """

    code: int | None
    done: bool = False
    lasting: bool = False

    def __str__(self) -> str:
        name = "short" if self.code is None else errno.errorcode[self.code]
        return name + (", done" if self.done else "") + (", lasting" if self.lasting else "")


FAULTS = (
    Fault(errno.EIO),
    Fault(errno.ENOSPC),
    Fault(errno.ENOSPC, lasting=True),
    Fault(errno.EROFS, lasting=True),
    Fault(errno.EACCES),
    Fault(errno.EDQUOT),
    Fault(errno.EINTR),
    Fault(errno.ESTALE),
    Fault(errno.EMFILE),
    Fault(errno.EIO, done=True),
    Fault(None),
)


class Listing(list[Any]):
    """What os.scandir gives, made from entries."""

    def __enter__(self) -> Listing:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Failing:
    """Inside `with`, call number `at` that touches `root` meets the fault; `calls` names all that were made."""

    def __init__(self, root: Path, at: int | None = None, fault: Fault | None = None) -> None:
        self.root = os.path.realpath(root)
        self.at = at
        self.fault = fault
        self.calls: list[str] = []
        self._descriptors: dict[int, bool] = {}  # whether it is written to
        self._real: dict[str, Callable[..., Any]] = {}

    def __enter__(self) -> Failing:
        for name in ("open", "close", *CHANGING, *READING):
            self._real[name] = getattr(os, name)
            setattr(os, name, self._wrapped(name))
        self._real["builtins.open"] = builtins.open
        builtins.open = self._file  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        builtins.open = self._real.pop("builtins.open")  # type: ignore[assignment]
        for name, function in self._real.items():
            setattr(os, name, function)

    def _wrapped(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(*args: Any, **options: Any) -> Any:
            if not self._touches(args[0] if args else ".", options):
                return real(*args, **options)
            changes = name in CHANGING or (name == "open" and bool(args[1] & os.O_CREAT))
            if name == "close" and not self._descriptors.pop(args[0]):
                return real(*args)  # closing what was only read cannot fail
            result = self._meet(name, changes, lambda: real(*args, **options), args)
            if name == "open":
                self._descriptors[result] = bool(args[1] & os.O_WRONLY)
            return result

        return call

    def _file(self, file: Any, *args: Any, **options: Any) -> Any:
        real = self._real["builtins.open"]
        if not self._touches(file, {}):
            return real(file, *args, **options)
        changes = any(letter in str(args[:1]) for letter in "wax+")
        return self._meet("open()", changes, lambda: real(file, *args, **options), (file,))

    def _touches(self, what: Any, options: dict[str, Any]) -> bool:
        if isinstance(what, int):
            return what in self._descriptors
        if options.get("dir_fd") is not None:
            return options["dir_fd"] in self._descriptors
        return (os.path.abspath(os.fspath(what)) + os.sep).startswith(self.root + os.sep)

    def _meet(self, name: str, changes: bool, go: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        self.calls.append(name)
        number, fault = len(self.calls) - 1, self.fault
        if fault is None or self.at is None or number < self.at or (number > self.at and not fault.lasting):
            return go()
        if fault.code is None:
            if name == "write" and len(args[1]) > 1:
                return self._real["write"](args[0], memoryview(args[1])[: len(args[1]) // 2])
            return go()
        if (fault.lasting and not changes) or (fault.done and not changes and name != "close"):
            return go()
        if fault.done or name == "close":
            go()
        path = args[0] if isinstance(args[0], str | os.PathLike) else None
        raise OSError(fault.code, os.strerror(fault.code), None if path is None else os.fspath(path))

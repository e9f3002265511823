"""Record every change that a program makes to a directory, while it makes it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import featurestore

# Where it lies, not what it is called: `git clone` calls the folder of the whole project the same.
PACKAGE = os.path.dirname(featurestore.__file__) + os.sep


@dataclass(frozen=True)
class Event:
    """One step.  `node` is the file or directory whose fsync makes it durable; a rename is two events of one `pair`."""

    kind: str  # data | link | unlink | fsync | mark
    node: int = -1
    name: str = ""
    child: int = -1
    offset: int = 0
    data: bytes = b""
    pair: int = -1


@dataclass
class Recording:
    """Events in order, on top of a tree that was durable before: {node: {name: node}} and {node: bytes}."""

    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})
    files: dict[int, bytes] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    @property
    def sites(self) -> list[str]:
        """Where in the source fsync was called, in order of the first call."""
        return list(dict.fromkeys(event.name for event in self.events if event.kind == "fsync"))

    def without(self, site: str) -> Recording:
        """The same, had one fsync been left out of the source."""
        kept = [event for event in self.events if not (event.kind == "fsync" and event.name == site)]
        return Recording(self.folders, self.files, kept)


class Killed(BaseException):
    """The program was killed: nothing that it wanted to do afterwards, its cleaning up included, happens."""


class Recorder:
    """Inside `with`, changes under `root` that go through `os` are done and recorded.  Node 0 is `root`.

    kill_after   the program is killed where it would make the next change after that many
    """

    CALLS = ("open", "write", "fsync", "close", "mkdir", "rename", "replace", "unlink", "remove", "rmdir")

    def __init__(self, root: Path, kill_after: int | None = None) -> None:
        self.kill_after = kill_after
        self.root = os.path.realpath(root)
        self.recording = Recording()
        self._nodes: dict[str, int] = {self.root: 0}  # as things are now
        self._descriptors: dict[int, list[Any]] = {}  # -> [node, path, offset]
        self._count = 0
        self._real: dict[str, Callable[..., Any]] = {}
        self._take(0, self.root)

    def mark(self, what: str) -> None:
        """Something that the program told somebody, e.g. an acknowledgement."""
        self.recording.events.append(Event("mark", name=what))

    def __enter__(self) -> Recorder:
        for name in self.CALLS:
            self._real[name] = getattr(os, name)
            setattr(os, name, getattr(self, f"on_{name}"))
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in self._real.items():
            setattr(os, name, function)

    def _take(self, node: int, path: str) -> None:
        for entry in os.scandir(path):
            child = self._nodes[entry.path] = self._new()
            self.recording.folders[node][entry.name] = child
            if entry.is_dir():
                self.recording.folders[child] = {}
                self._take(child, entry.path)
            else:
                self.recording.files[child] = Path(entry.path).read_bytes()

    def _new(self) -> int:
        self._count += 1
        return self._count

    def _path(self, path: Any, dir_fd: int | None = None) -> str | None:
        """Where it is, or None outside the root."""
        if isinstance(path, int):
            return None
        if dir_fd is not None:
            if dir_fd not in self._descriptors:
                return None
            path = os.path.join(self._descriptors[dir_fd][1], os.fspath(path))
        text = os.path.abspath(os.fspath(path))
        return text if text == self.root or text.startswith(self.root + os.sep) else None

    def _log(self, kind: str, **what: Any) -> None:
        self.recording.events.append(Event(kind, **what))

    def _link(self, path: str, child: int, pair: int = -1) -> None:
        parent, name = os.path.split(path)
        self._log("link", node=self._nodes[parent], name=name, child=child, pair=pair)
        self._nodes[path] = child

    def _unlink(self, path: str, pair: int = -1) -> int:
        parent, name = os.path.split(path)
        child = self._nodes.pop(path)
        self._log("unlink", node=self._nodes[parent], name=name, child=child, pair=pair)
        return child

    def _live(self, path: str | None) -> str | None:
        if path is not None and self.kill_after is not None and len(self.recording.events) >= self.kill_after:
            raise Killed
        return path

    # -- the calls -----------------------------------------------------------------------------

    def on_open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        where = self._live(self._path(path, dir_fd))
        number: int = self._real["open"](path, flags, mode, dir_fd=dir_fd)
        if where is not None:
            if where not in self._nodes:
                child = self._new()
                self.recording.files[child] = b""
                self._link(where, child)
            self._descriptors[number] = [self._nodes[where], where, 0]
        return number

    def on_write(self, number: int, data: Any) -> int:
        open_file = self._descriptors.get(number)
        self._live(open_file[1] if open_file else None)
        done: int = self._real["write"](number, data)
        if open_file:
            self._log("data", node=open_file[0], offset=open_file[2], data=bytes(memoryview(data).cast("B")[:done]))
            open_file[2] += done
        return done

    def on_fsync(self, number: int) -> None:
        open_file = self._descriptors.get(number)
        self._live(open_file[1] if open_file else None)
        self._real["fsync"](number)
        if open_file:
            self._log("fsync", node=open_file[0], name=_site())

    def on_close(self, number: int) -> None:
        self._descriptors.pop(number, None)
        self._real["close"](number)

    def on_mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        where = self._live(self._path(path, dir_fd))
        self._real["mkdir"](path, mode, dir_fd=dir_fd)
        if where is not None:
            child = self._new()
            self.recording.folders[child] = {}
            self._link(where, child)

    def on_rename(self, source: Any, target: Any) -> None:
        old, new = self._live(self._path(source)), self._path(target)
        self._real["rename"](source, target)
        assert old is not None
        assert new is not None
        below = [path for path in self._nodes if path.startswith(old + os.sep)]
        pair = len(self.recording.events)
        child = self._unlink(old, pair)
        self._link(new, child, pair)
        for path in below:
            self._nodes[new + path[len(old) :]] = self._nodes.pop(path)

    on_replace = on_rename

    def on_unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        where = self._live(self._path(path, dir_fd))
        self._real["unlink"](path, dir_fd=dir_fd)
        if where is not None:
            self._unlink(where)

    on_remove = on_unlink

    def on_rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        where = self._live(self._path(path, dir_fd))
        self._real["rmdir"](path, dir_fd=dir_fd)
        if where is not None:
            self._unlink(where)


def _site() -> str:
    """The calls inside the package that led to here: an fsync as its author sees it."""
    frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(PACKAGE)]
    return " > ".join(f"{Path(frame.filename).stem}.{frame.name}:{frame.lineno}" for frame in frames[-4:])

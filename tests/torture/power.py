"""Power cuts: the states of a disk that a cut may leave.

The model is what POSIX promises and no more.  Data that was not fsynced may be missing, half there, or
zeros.  A name whose directory was not fsynced may be missing, or still be there where it was removed,
in any order; both halves of a rename from one directory to another may be lost on their own.  fsync of
a file makes neither its name durable nor fsync of a directory what is in the files it lists.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

from recorder import Event, Recording

LOST, KEPT, HALF, ZEROS = "lost", "kept", "half", "zeros"
State = dict[str, bytes | None]  # path -> content, None for a directory


def states(recording: Recording, random_: random.Random, extra: int = 4, first: int = 0) -> Iterator[tuple[int, State]]:
    """(number of events that were issued, what is on the disk): every moment from `first`, and the ways to lose what
    is pending.

    For every moment: all pending steps lost, all kept, each alone lost, each alone kept, files half
    written or zeros, and `extra` random mixtures.  Equal states of one moment come once.
    """
    for issued in range(first, len(recording.events) + 1):
        pending = _pending(recording.events[:issued])
        seen = set()
        for fate in _fates(recording.events, pending, random_, extra):
            state = _apply(recording, issued, fate)
            signature = hashlib.blake2b(repr(sorted(state.items())).encode()).digest()
            if signature not in seen:
                seen.add(signature)
                yield issued, state


def _pending(events: list[Event]) -> list[int]:
    """The steps that no fsync has made durable."""
    durable: set[int] = set()
    pending = []
    for number in range(len(events) - 1, -1, -1):
        event = events[number]
        if event.kind == "fsync":
            durable.add(event.node)
        elif event.kind != "mark" and event.node not in durable:
            pending.append(number)
    return pending[::-1]


def _fates(events: list[Event], pending: list[int], random_: random.Random, extra: int) -> Iterator[dict[int, str]]:
    data = [number for number in pending if events[number].kind == "data"]
    yield dict.fromkeys(pending, KEPT)
    yield dict.fromkeys(pending, LOST)
    for fate in (LOST, HALF, ZEROS):
        yield {**dict.fromkeys(pending, KEPT), **dict.fromkeys(data, fate)}
    for one in pending:
        yield {**dict.fromkeys(pending, KEPT), one: LOST}
        yield {**dict.fromkeys(pending, LOST), one: KEPT}
    for _ in range(extra if len(pending) > 1 else 0):
        fates = {number: random_.choice((LOST, KEPT)) for number in pending}
        yield {**fates, **{number: random_.choice((LOST, KEPT, HALF, ZEROS)) for number in data}}


def _apply(recording: Recording, issued: int, fate: dict[int, str]) -> State:
    folders = {node: dict(names) for node, names in recording.folders.items()}
    files = {node: bytearray(content) for node, content in recording.files.items()}
    together = {}  # within one directory a rename is one step
    for number in range(issued):
        event = recording.events[number]
        what = fate.get(number, KEPT)
        if event.pair >= 0:
            what = together.setdefault((event.pair, event.node), what)
        if what == LOST or event.kind in ("fsync", "mark"):
            continue
        if event.kind == "link":
            folders[event.node][event.name] = event.child
        elif event.kind == "unlink":
            if folders[event.node].get(event.name) == event.child:
                del folders[event.node][event.name]
        else:
            _store(files[event.node], event, what)
    state: State = {}
    _walk(folders, files, 0, "", state)
    return state


def _store(content: bytearray, event: Event, fate: str) -> None:
    data = event.data
    if fate == HALF:
        data = data[: len(data) // 2]
    elif fate == ZEROS:
        data = bytes(len(data))
    stop = event.offset + len(data)
    if len(content) < stop:
        content.extend(bytes(stop - len(content)))
    content[event.offset : stop] = data


def _walk(folders: dict[int, dict[str, int]], files: dict[int, bytearray], node: int, path: str, state: State) -> None:
    for name, child in folders[node].items():
        if child in folders:
            state[f"{path}{name}"] = None
            _walk(folders, files, child, f"{path}{name}/", state)
        else:
            state[f"{path}{name}"] = bytes(files[child])


def restore(state: State, root: Path) -> None:
    """Make the disk look like that: `root` is new."""
    root.mkdir()
    for path in sorted(state):  # a directory sorts before what is in it
        content = state[path]
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)

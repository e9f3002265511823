"""Maintenance: overwrite, delete, compact, quarantine and gc are one mechanism.

A segment may name others that it `replaces`; readers leave those out from the moment it is visible.
`replaces` is transitive: it also names what the replaced ones replaced and is still on disk, so that
removing one never brings back another's rows.  Callers hold the recipe's lock.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import CorruptSegmentError
from featurestore.recipe import Recipe
from featurestore.storage.durable import explain, fsync_dir
from featurestore.storage.layout import Layout
from featurestore.storage.reader import CorruptRowError, Reader, Segment, id_digest, open_segment
from featurestore.storage.writer import Rows, commit, encode_line

GRACE_S = 900.0  # how long a replaced segment stays for readers that opened before
MAX_BYTES = 1 << 30  # of one segment
MERGED_FROM = 16  # segments, at the end of `extract`: readers keep a file open for each
MAX_SEGMENTS = 256  # above this a miss merges the small ones
ALIKE = 32  # times as large as the middle one, and no larger, are those that it merges
_BLOCK_ROWS, _BLOCK_BYTES = 256, 64 << 20
_UNTOUCHED = "nothing was replaced, repair it first"
_DIGEST = np.dtype([("hi", ">u8"), ("lo", ">u8")])

Kept = tuple[Segment, int, dict[str, Any]]  # segment, row, line


def rewrite(layout: Layout, recipe: Recipe, reader: Reader, drop: Collection[str], new: Sequence[Rows] = ()) -> None:
    """Drop the rows of some ids, wherever they are stored, and add `new` ones in the same step."""
    wanted = np.sort(np.frombuffer(b"".join(map(id_digest, drop)), _DIGEST)["hi"].astype(np.uint64))
    affected = [segment for segment in reader.segments if _holds_any(segment, wanted)]
    for segment in affected:
        if segment.name in reader.damage:
            raise CorruptSegmentError(f"{reader.damage[segment.name].why}; {_UNTOUCHED}")
    survivors = [(segment, row, line) for line, segment, row in reader.rows(affected) if line["id"] not in drop]
    _replace(layout, recipe, reader, affected, survivors, new)


def _holds_any(segment: Segment, wanted: NDArray[np.uint64]) -> bool:
    """Whether one of these halves of digests, sorted, is among the segment's.

    Not by numpy.isin: set operations import numpy.ma when they are first called, and a process forked while another
    thread does that waits for the lock of that import for ever.
    """
    stored = segment.records()["hi"].astype(np.uint64)
    places = np.searchsorted(wanted, stored)
    return bool((wanted[np.minimum(places, len(wanted) - 1)] == stored).any()) if len(wanted) else False


def small(reader: Reader) -> list[Segment]:
    """The segments that are not much larger than the middle one: to merge those alone costs each row little.

    Were all merged each time, what was merged before would be written again and again.
    """
    sizes = {segment: segment.header["shard"]["bytes"] for segment in reader.segments}
    limit = ALIKE * sorted(sizes.values())[len(sizes) // 2] if sizes else 0
    return [segment for segment, size in sizes.items() if size <= limit]


def compact(layout: Layout, recipe: Recipe, reader: Reader, segments: Sequence[Segment] | None = None) -> int:
    """Merge segments, by default all that count, into as few as fit; how many were merged.

    Only rows that are visible are taken: each id is then in one segment only, and which of two
    copies counts does not depend on the order of names any more.  Damaged segments are left alone.
    """
    count = 0
    segments = reader.segments if segments is None else segments
    for group in _fitting([segment for segment in segments if segment.name not in reader.damage]):
        if len(group) > 1:
            # One group after the other: the lines of all might not fit in memory.
            survivors = [(segment, row, line) for line, segment, row in reader.rows(group)]
            _replace(layout, recipe, reader, group, survivors)
            count += len(group)
    return count


def _fitting(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Runs of segments that make one of at most MAX_BYTES."""
    group: list[Segment] = []
    size = 0
    for segment in segments:
        own = segment.header["shard"]["bytes"]
        if group and size + own > MAX_BYTES:
            yield group
            group, size = [], 0
        group.append(segment)
        size += own
    if group:
        yield group


def quarantine(layout: Layout, recipe: Recipe, reader: Reader, also: Collection[str] = ()) -> list[str]:
    """Move damaged segments aside, and those named, keeping the sound rows in their place; the names of those moved."""
    reader.refresh(force=True)
    damaged = sorted({*reader.damage, *also})
    partly = [segment for segment in reader.segments if segment.name in damaged]
    if partly:
        _replace(layout, recipe, reader, partly, list(_sound_rows(reader, partly)))
    # What a damaged one replaced goes first: it would count again.
    hidden = {name for each in reader.damage.values() for name in each.replaces}
    moved = [name for names in (sorted(hidden), damaged) for name in _set_aside(layout, names)]
    reader.refresh(force=True)
    return moved


def gc(layout: Layout, reader: Reader, grace_s: float = GRACE_S) -> int:
    """Remove replaced segments and staging left by killed writers, once older than the grace; how many.

    Oldest generation first, each made durable before the next: a replacing segment must not go
    while a crash could bring back what it replaces.
    """
    now = time.time()
    on_disk = {entry.name for entry in os.scandir(layout.segments)} if layout.segments.is_dir() else set()
    replacing = {segment.name: set(segment.replaces) & on_disk for segment in _all(reader)}
    due = {name for by, names in replacing.items() if now - _mtime(layout, by) >= grace_s for name in names}
    count = 0
    while due:
        generation = {name for name in due if not replacing.get(name, set()) & due}
        count += _remove(layout, generation)
        due -= generation
        on_disk -= generation
    empty = {
        segment.name
        for segment in reader.segments
        if segment.n == 0 and not set(segment.replaces) & on_disk and now - _mtime(layout, segment.name) >= grace_s
    }
    count += _remove(layout, empty)
    staged = layout.housekeeping / "tmp"
    for entry in list(os.scandir(staged)) if staged.is_dir() else ():
        # A writer may be at work on what is young, whatever grace readers are given.
        wait_s = grace_s if entry.name.startswith("gc-") else max(grace_s, GRACE_S)
        if now - touched(entry.path) >= wait_s:
            count += _take_away(entry.path)
    return count


def _all(reader: Reader) -> list[Segment]:
    """The segments that count, and those that others replace as far as they can be read."""
    found = []
    for name in reader.replaced:
        try:
            found.append(open_segment(os.path.join(reader.path, "segments", name), reader.fingerprint, reader.key)[0])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # removed meanwhile; or damaged, and then what replaces it names all that it replaced
    return [*found, *reader.segments]


def waiting(layout: Layout, reader: Reader, grace_s: float = GRACE_S) -> dict[str, float]:
    """{name: time} of the replaced segments that are still there, and when their grace is over."""
    on_disk = {entry.name for entry in os.scandir(layout.segments)} if layout.segments.is_dir() else set()
    until: dict[str, float] = {}
    for segment in _all(reader):
        over = _mtime(layout, segment.name) + grace_s
        until |= {name: min(over, until.get(name, over)) for name in set(segment.replaces) & on_disk}
    return until


def remove(layout: Layout) -> None:
    """Take a whole recipe out of sight in one step, then free its files and its records of failures.

    What was quarantined stays, and so do the lock files: another process may hold them.
    """
    trash = layout.housekeeping / "tmp"
    gone = trash / f"gc-{uuid.uuid4().hex}"
    try:
        trash.mkdir(parents=True, exist_ok=True)
        os.rename(layout.recipe_dir, gone)
        fsync_dir(layout.recipe_dir.parent)
    except OSError as error:
        raise explain(error, f"cannot remove {layout.key}@{layout.fingerprint}") from error
    shutil.rmtree(gone, ignore_errors=True)
    shutil.rmtree(layout.housekeeping / "failed", ignore_errors=True)


def _replace(
    layout: Layout,
    recipe: Recipe,
    reader: Reader,
    old: Sequence[Segment],
    survivors: Sequence[Kept],
    new: Sequence[Rows] = (),
) -> None:
    if not old:  # deleted by another process meanwhile
        for rows in new:
            commit(layout, recipe, rows)
        reader.refresh(force=True)
        return
    on_disk = {*reader.replaced, *(segment.name for segment in reader.segments)}
    names = {segment.name for segment in old}
    names |= {name for segment in old for name in segment.replaces if name in on_disk}
    # Before the first one: rows that count go on counting, against copies that others commit meanwhile, and against
    # those that a killed replacement left.  Its own time would not do, as the rest of a name is random.
    time_ns = int(min(segment.name for segment in old)[:20]) - 1
    rows = _joined([*new, *([_rows_of(survivors)] if survivors else [])], old[0])
    commit(
        layout,
        recipe,
        rows,
        replaces=sorted(names),
        time_ns=time_ns,
        made_with=carried(segment.header["made_with"] for segment in old),
    )
    reader.refresh(force=True)


def carried(made_with: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What segments say of encoders and weights: copying them changes no number, so it stays true."""
    own = ("featurestore", "numpy", "python", "host", "time")  # said anew by each commit
    return {name: value for one in made_with for name, value in one.items() if name not in own}


def _rows_of(group: Sequence[Kept]) -> Rows:
    first = group[0][0]
    return Rows(
        form=first.form,
        n_frames=first.n_frames,
        counts=[segment.shape_of(row)[0] for segment, row, _ in group],
        lines=[encode_line(line) for _, _, line in group],
        ids=[line["id"] for _, _, line in group],
        blocks=_Blocks(group),
    )


def _joined(batches: Sequence[Rows], like: Segment) -> Rows:
    """All of them as one, so that a replacement is a single commit; where none stay, no rows of a segment's form."""
    return Rows(
        form=like.form,
        n_frames=like.n_frames,
        counts=[count for batch in batches for count in batch.counts],
        lines=[line for batch in batches for line in batch.lines],
        ids=[id for batch in batches for id in batch.ids],
        blocks=chain.from_iterable(batch.blocks for batch in batches),
    )


@dataclass(frozen=True)
class _Blocks:
    """Rows read from segments, some at a time: a merge needs memory for one block, not for a gigabyte."""

    group: Sequence[Kept]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        block: list[NDArray[Any]] = []
        size = 0
        for segment, row, _ in self.group:
            # Every time, also where a reader has checked it before: what is written again must be right.
            segment.checked[row] = 0
            try:
                block.append(segment.read(row))
            except CorruptRowError as error:
                raise CorruptSegmentError(f"{error}; {_UNTOUCHED}") from error
            size += block[-1].nbytes
            if len(block) == _BLOCK_ROWS or size >= _BLOCK_BYTES:
                yield np.concatenate(block)
                block, size = [], 0
        if block:
            yield np.concatenate(block)


def _sound_rows(reader: Reader, partly: Sequence[Segment]) -> Iterator[Kept]:
    for segment in partly:
        for row in range(segment.n):
            segment.checked[row] = 0
            try:
                line = segment.line(row)
                segment.read(row)
            except CorruptRowError:
                continue
            if reader.find(line["id"]) == (segment, row):
                yield segment, row, line


def _set_aside(layout: Layout, names: Sequence[str]) -> list[str]:
    """Move segments to the quarantine, durable before anything else moves; the names of those that were there."""
    folder = layout.housekeeping / "quarantine"
    there = [name for name in names if (layout.segments / name).is_dir()]
    if there:
        folder.mkdir(parents=True, exist_ok=True)
        # Nothing under `.fstore` is made durable but this: a cut must not take what a repair set aside.
        for level in folder.parents[: len(folder.parts) - len(layout.root.parts)]:
            fsync_dir(level)
    for name in there:
        taken = (folder / name).exists()
        os.rename(layout.segments / name, folder / (f"{name}-{uuid.uuid4().hex[:8]}" if taken else name))
    if there:
        fsync_dir(folder)
        fsync_dir(layout.segments)
    return there


def _mtime(layout: Layout, name: str) -> float:
    try:
        return os.stat(layout.segments / name / "zarr.json").st_mtime
    except FileNotFoundError:
        return time.time()


def touched(path: str) -> float:
    """When a file, or anything in a directory, was last written; now where its writer just moved it into place."""
    try:
        inside = [entry.path for entry in os.scandir(path)] if os.path.isdir(path) else []
        return max(os.stat(one, follow_symlinks=False).st_mtime for one in (path, *inside))
    except FileNotFoundError:
        return time.time()


def _remove(layout: Layout, names: Collection[str]) -> int:
    """Out of sight by a rename, which is atomic; only then file by file."""
    if not names:
        return 0
    trash = layout.housekeeping / "tmp"
    trash.mkdir(parents=True, exist_ok=True)
    moved = []
    try:
        for name in sorted(names):
            # Another name each time: after a power cut the one of before may be there already.
            moved.append(trash / f"gc-{name}-{uuid.uuid4().hex[:8]}")
            os.rename(layout.segments / name, moved[-1])
        fsync_dir(layout.segments)
    except OSError as error:
        raise explain(error, f"cannot remove replaced segments of {layout.key}") from error
    for path in moved:
        shutil.rmtree(path, ignore_errors=True)
    return len(moved)


def _take_away(path: str) -> bool:
    """Remove what a killed writer left; whether it was there.

    In one step first: should the writer live after all, by a clock that is days off, its commit must
    fail, and not move half a segment into layout.
    """
    gone = os.path.join(os.path.dirname(path), f"gc-{uuid.uuid4().hex}")
    try:
        os.rename(path, gone)
    except FileNotFoundError:
        return False
    _remove_tree(gone)
    return True


def _remove_tree(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        Path(path).unlink(missing_ok=True)

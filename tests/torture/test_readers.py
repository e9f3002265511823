"""Readers beside writers, merges and removals: every answer is one that was true while it was asked."""

from __future__ import annotations

import functools
import mmap
import random
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figures import Figures
from mutants import mutant, removes_before_it_replaces
from oracle import KEY, RECIPE, value
from workers import Worker

from featurestore import Failure, FeatureStore
from featurestore.errors import CorruptSegmentError, FailedSampleError, MissingFeatureError
from featurestore.storage import maintenance

IDS = [f"sample_{number}" for number in range(48)]
RETRIED = "retried"
PROOF = "readers beside writers, merges, removals, repairs and retries"
ABSENT_EVERY = 4  # each fourth step of an id deletes it


class Board:
    """How far each id has come, shared by all processes: steps begun, and steps acknowledged."""

    def __init__(self) -> None:
        self.pages = mmap.mmap(-1, 2 * 8 * len(IDS))
        self.begun, self.done = np.ndarray((2, len(IDS)), np.int64, self.pages)


def content(number: int, step: int, frames: Any = None) -> Any:
    """What an id, or some frames of it, holds after so many steps; None where it is not there."""
    if step % ABSENT_EVERY == 0:
        return None
    return value(IDS[number], step) if frames is None else value(IDS[number], step)[frames]


def write(root: Path, board: Board, numbers: range, until: float, seed: int) -> int:
    """Take some of these ids one step further, again and again.  Put, overwrite and delete follow from the step."""
    random_, store = random.Random(seed), FeatureStore(root)
    steps = 0
    while time.monotonic() < until:
        step = int(board.done[numbers[0]]) + 1
        some = random_.sample(numbers, random_.choice((1, 3)))
        some = [number for number in some if board.done[number] % ABSENT_EVERY == board.done[some[0]] % ABSENT_EVERY]
        nexts = {number: int(board.done[number]) + 1 for number in some}
        for number, step in nexts.items():
            board.begun[number] = step
        ids = [IDS[number] for number in some]
        if any(step % ABSENT_EVERY == 0 for step in nexts.values()):
            store.delete(KEY, ids)
        else:
            values = np.stack([content(number, step) for number, step in nexts.items()])
            store.put_many(KEY, ids, values, recipe=RECIPE, overwrite=True)
        for number, step in nexts.items():
            board.done[number] = step
        steps += 1
    return steps


def merge(root: Path, until: float, grace_s: float) -> int:
    """Compact, and remove what was replaced when its grace is over."""
    merges = 0
    while time.monotonic() < until:
        feature_set = FeatureStore(root).feature_set(KEY)
        if feature_set is not None:
            try:
                feature_set.compact(grace_s)
            except CorruptSegmentError:
                continue  # a spoilt row is among them: nothing was replaced
            merges += 1
        time.sleep(0.02)
    return merges


def spoil(root: Path, until: float) -> int:
    """Put samples of its own, flip a bit of some, and have what is damaged moved aside: readers meet all of it."""
    random_, moved, number = random.Random(0), 0, 0
    while time.monotonic() < until:
        ids = [f"spoilt_{number}_{row}" for row in range(3)]
        number += 1
        store = FeatureStore(root)
        store.put_many(KEY, ids, np.stack([value(id, 1) for id in ids]), recipe=RECIPE)
        feature_set = store.feature_set(KEY)
        assert feature_set is not None
        place = feature_set.reader.find(ids[1])
        assert place is not None
        segment, row = place
        try:
            if all(line["id"] in ids for _, line in segment.lines()):  # not merged with others by now
                start, stop = (frame * segment.frame_bytes for frame in segment.span(row))
                flip(Path(segment.path) / segment.shard_file, random_.randrange(start, stop))
        except FileNotFoundError:
            continue
        time.sleep(0.01)
        for id in ids:
            feature_set.reader.get(id)  # finds the damage, as `fstore verify --full` does
        moved += len(feature_set.quarantine())
    return moved


def flip(path: Path, at: int) -> None:
    """One bit, in place: a copy renamed over it would be another file to those who have it open."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def fail_and_retry(root: Path, until: float) -> int:
    """A sample that cannot be made, is tried again, is stored, and is deleted, in turns."""
    store, turns = FeatureStore(root), 0
    while time.monotonic() < until:
        feature_set = store.feature_set(KEY)
        assert feature_set is not None
        feature_set.fail(RETRIED, Failure("media", "no such stream"))
        time.sleep(0.005)
        assert feature_set.failures.clear([RETRIED]) == 1
        store.put_many(KEY, [RETRIED], value(RETRIED, 1)[None], recipe=RECIPE)
        time.sleep(0.005)
        store.delete(KEY, [RETRIED])
        turns += 1
    return turns


def read_others(store: FeatureStore, random_: random.Random, seen: dict[str, object]) -> str | None:
    """Of samples that are spoilt, or fail and are tried again: what is wrong.  Errors that say why are right.

    seen   spoilt ones that this process has read: a row is checked once, not again after each change of its file
    """
    listed, mine = [id for id in store.ids(KEY) if id.startswith("spoilt") and id not in seen], object()
    some = random_.sample(listed, min(2, len(listed)))
    for id in [RETRIED, *(id for id in some if seen.setdefault(id, mine) is mine)]:
        try:
            values = store.get(KEY, id)
        except (MissingFeatureError, CorruptSegmentError, FailedSampleError):
            continue
        if not np.array_equal(values, value(id, 1)):
            return f"{id}: {values}"
    return None


def read(root: Path, board: Board, until: float, seed: int, threads: int) -> tuple[int, list[str]]:
    """One store object, many threads; (answers, what was not true)."""
    store = FeatureStore(root, memory_bytes=20_000 if seed % 2 else 0)
    counts, found = [0] * threads, []
    seen: dict[str, object] = {}

    def loop(thread: int) -> None:
        random_ = random.Random(seed * 100 + thread)
        while time.monotonic() < until and not found:
            number = random_.randrange(len(IDS))
            try:
                if random_.random() < 0.05 and (other := read_others(store, random_, seen)) is not None:
                    found.append(other)
                some = random_.choice((None, [1, 3]))
                first = int(board.done[number])
                store.refresh()
                values = store.get(KEY, IDS[number], some)
            except (MissingFeatureError, CorruptSegmentError):  # the latter where another segment is damaged
                values = None
            except Exception:  # noqa: BLE001 - told to the test
                found.append(traceback.format_exc())
                return
            last = int(board.begun[number])
            if not any(same(values, content(number, step, some)) for step in range(first, last + 1)):
                found.append(
                    f"{IDS[number]} is as after step {step_of(number, values, last, some)}, not {first} to {last}"
                )
            counts[thread] += 1

    running = [threading.Thread(target=loop, args=(thread,)) for thread in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sum(counts), found


def step_of(number: int, values: Any, last: int, frames: Any) -> int | None:
    """After which step an id held this."""
    return next((step for step in range(last + 1) if same(values, content(number, step, frames))), None)


def same(a: Any, b: Any) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


def run(
    root: Path,
    seconds: float,
    threads: int,
    *,
    spoils: bool = False,
    grace_s: float = 0,
    reader: Callable[..., tuple[int, list[str]]] = read,
) -> tuple[dict[str, int], list[str]]:
    """Two writers, one that merges and removes, two readers, and with `spoils` one that damages and repairs, and one
    whose sample fails; (counts, what was not true).
    """
    board = Board()
    until = time.monotonic() + seconds
    half = len(IDS) // 2
    FeatureStore(root).put_many(KEY, ["first"], value("first", 1)[None], recipe=RECIPE)
    writers = [
        Worker(functools.partial(write, root, board, numbers, until, seed))
        for seed, numbers in enumerate((range(half), range(half, len(IDS))))
    ]
    others: list[Callable[[], int]] = [functools.partial(merge, root, until, grace_s)]
    others += [functools.partial(spoil, root, until), functools.partial(fail_and_retry, root, until)] if spoils else []
    merger, *spoilers = [Worker(other) for other in others]
    readers = [Worker(functools.partial(reader, root, board, until, seed, threads)) for seed in range(2)]
    outcomes = [worker.outcome() for worker in (*readers, *writers, merger, *spoilers)]
    found = [error for _, error in outcomes if error]
    found += [what for result, _ in outcomes[:2] if result for what in result[1]]
    answers, steps = sum(result[0] for result, _ in outcomes[:2] if result), [result or 0 for result, _ in outcomes[2:]]
    counts = {"answers": answers, "steps": steps[0] + steps[1], "merges": steps[2]}
    counts |= dict(zip(("segments moved aside", "retries"), steps[3:], strict=False))
    return counts, found


@pytest.mark.timeout(0)
def test_every_answer_is_one_that_was_true(
    fast_disk: Path, long_run: bool, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    counts, found = run(fast_disk / "readers", rounds(15, 60), 16 if long_run else 4, spoils=True)
    answers = counts.pop("answers")
    figures.record(
        "readers beside writers, merges, removals, repairs and retries",
        answers,
        "answers",
        {"wrong": len(found)},
        counts,
    )
    assert found[:3] == []
    assert min(answers, *counts.values()) > 0


MUTANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "removes before it replaces": removes_before_it_replaces,
    "replaces without saying so": lambda: mutant(maintenance._replace, "replaces=sorted(names)", "replaces=()"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_writer_that_lets_readers_see_a_change_half_done_is_caught(
    name: str, fast_disk: Path, figures: Figures
) -> None:
    with MUTANTS[name]():
        # A loaded machine may replace once in a run.
        assert any(run(fast_disk / f"{name} {number}".replace(" ", "-"), 6, 2)[1] for number in range(5))
    figures.caught(PROOF, name)

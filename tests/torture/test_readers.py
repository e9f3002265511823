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
from mutants import mutant
from oracle import KEY, RECIPE, value
from workers import Worker

from featurestore import FeatureStore, replacement
from featurestore.errors import MissingFeatureError

IDS = [f"sample_{number}" for number in range(48)]
ABSENT_EVERY = 4  # each fourth step of an id deletes it


class Board:
    """How far each id has come, shared by all processes: steps begun, and steps acknowledged."""

    def __init__(self) -> None:
        self.pages = mmap.mmap(-1, 2 * 8 * len(IDS))
        self.begun, self.done = np.ndarray((2, len(IDS)), np.int64, self.pages)


def content(number: int, step: int) -> Any:
    """What an id holds after so many steps; None where it is not there."""
    return value(IDS[number], step) if step % ABSENT_EVERY else None


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
        shelf = FeatureStore(root).shelf(KEY)
        if shelf is not None:
            shelf.compact("zstd" if merges % 3 == 2 else None, grace_s)
            merges += 1
        time.sleep(0.02)
    return merges


def read(root: Path, board: Board, until: float, seed: int, threads: int) -> tuple[int, list[str]]:
    """One store object, many threads; (answers, what was not true)."""
    store = FeatureStore(root, memory_bytes=20_000 if seed % 2 else 0)
    counts, found = [0] * threads, []

    def loop(thread: int) -> None:
        random_ = random.Random(seed * 100 + thread)
        while time.monotonic() < until and not found:
            number = random_.randrange(len(IDS))
            first = int(board.done[number])
            try:
                store.refresh()
                values = store.get(KEY, IDS[number])
            except MissingFeatureError:
                values = None
            except Exception:  # noqa: BLE001 - told to the test
                found.append(traceback.format_exc())
                return
            last = int(board.begun[number])
            if not any(same(values, content(number, step)) for step in range(first, last + 1)):
                found.append(f"{IDS[number]} between step {first} and {last}: {values}")
            counts[thread] += 1

    running = [threading.Thread(target=loop, args=(thread,)) for thread in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sum(counts), found


def same(a: Any, b: Any) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


def run(
    root: Path, seconds: float, threads: int, reader: Callable[..., tuple[int, list[str]]] = read, grace_s: float = 0
) -> tuple[dict[str, int], list[str]]:
    """Two writers, one that merges and removes, two readers; (counts, what was not true)."""
    board = Board()
    until = time.monotonic() + seconds
    half = len(IDS) // 2
    FeatureStore(root).put_many(KEY, ["first"], value("first", 1)[None], recipe=RECIPE)
    writers = [
        Worker(functools.partial(write, root, board, numbers, until, seed))
        for seed, numbers in enumerate((range(half), range(half, len(IDS))))
    ]
    merger = Worker(functools.partial(merge, root, until, grace_s))
    readers = [Worker(functools.partial(reader, root, board, until, seed, threads)) for seed in range(2)]
    outcomes = [worker.outcome() for worker in (*readers, *writers, merger)]
    found = [error for _, error in outcomes if error]
    found += [what for result, _ in outcomes[:2] if result for what in result[1]]
    answers, steps = sum(result[0] for result, _ in outcomes[:2] if result), [result or 0 for result, _ in outcomes[2:]]
    counts = {"answers": answers, "steps": steps[0] + steps[1], "merges": steps[2]}
    return counts, found


@pytest.mark.timeout(0)
def test_every_answer_is_one_that_was_true(
    fast_disk: Path, long_run: bool, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    counts, found = run(fast_disk / "readers", rounds(15, 60), 16 if long_run else 4)
    answers = counts.pop("answers")
    figures.record("readers beside writers, merges and removals", answers, "answers", {"wrong": len(found)}, counts)
    assert found[:3] == []
    assert min(answers, *counts.values()) > 0


MUTANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "removes before it replaces": lambda: mutant(
        replacement._replace,
        "    batches = list(new)\n",
        "    _remove(place, names)\n    batches = list(new)\n",
    ),
    "replaces without saying so": lambda: mutant(
        replacement._replace, "replaces=sorted(names) if last else ()", "replaces=()"
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_writer_that_lets_readers_see_a_change_half_done_is_caught(
    name: str, fast_disk: Path, figures: Figures
) -> None:
    with MUTANTS[name]():
        _, found = run(fast_disk / name.replace(" ", "-"), 6, 2)
    assert found
    figures.caught("readers beside writers, merges and removals", name)

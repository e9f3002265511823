"""Forks under busy threads, and processes started anew: no child hangs, and each reads what is stored."""

from __future__ import annotations

import faulthandler
import functools
import multiprocessing
import os
import random
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from figures import Figures
from oracle import ALL, AXES, KEY, RECIPE, value

from featurestore import FeatureStore

IDS = [f"sample_{number}" for number in range(64)]
CHILD_S = 60.0  # a child needs milliseconds, on a loaded machine seconds; after this it hangs


def filled(root: Path) -> Path:
    store = FeatureStore(root)
    for start in range(0, len(IDS), 16):
        ids = IDS[start : start + 16]
        store.put_many(KEY, ids, np.stack([value(id, 1) for id in ids]), recipe=RECIPE)
        ragged = [value(id, 1, ALL) for id in ids]
        store.put_many(ALL, ids, ragged, recipe=RECIPE, axes=AXES[ALL])
    return root


def check(store: FeatureStore, random_: random.Random) -> None:
    """Some reads in every way there is."""
    id, *some = random_.sample(IDS, 9)
    np.testing.assert_array_equal(store.get(KEY, id), value(id, 1))
    np.testing.assert_array_equal(store.get_many(KEY, some), np.stack([value(one, 1) for one in some]))
    assert np.array_equal(store.get_features(KEY, id).values, value(id, 1))
    assert np.array_equal(store.get(KEY, some[0], [1, 3]), value(some[0], 1)[[1, 3]])
    assert np.array_equal(store.get(ALL, id, [0]), value(id, 1, ALL)[:1])
    assert all(map(np.array_equal, store.get_ragged(ALL, some), (value(one, 1, ALL) for one in some)))


@contextmanager
def busy(work: Callable[[random.Random], None], threads: int) -> Iterator[list[str]]:
    """Threads that do the work over and over; yields the errors that they met."""
    errors: list[str] = []
    stop = threading.Event()

    def loop(seed: int) -> None:
        random_ = random.Random(seed)
        while not stop.is_set():
            try:
                work(random_)
            except Exception:  # noqa: BLE001 - told to the test
                errors.append(traceback.format_exc())
                return

    running = [threading.Thread(target=loop, args=(seed,)) for seed in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield errors
    finally:
        stop.set()
        for thread in running:
            thread.join()


def child(job: Callable[[], None]) -> str:
    """Fork, do the job there; how it ended, and where it stood if it hangs."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as stack:
        return ended(job, stack)


def ended(job: Callable[[], None], stack: IO[str]) -> str:
    pid = os.fork()
    if pid == 0:
        try:
            faulthandler.register(signal.SIGUSR1, stack)
            job()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the exit status tells
            traceback.print_exc()
        finally:
            os._exit(1)
    until = time.monotonic() + CHILD_S
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return "right" if status == 0 else "wrong"
        time.sleep(0.001)
    os.kill(pid, signal.SIGUSR1)
    time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    stack.seek(0)
    return f"hangs at {stack.read()}"


def fork_many(store: FeatureStore, forks: int, also: Callable[[], None] = lambda: None) -> list[str]:
    ends = []
    check(store, random.Random(0))  # numpy.testing imports at its first use, which is not ours to keep whole at a fork
    with busy(functools.partial(check, store), 4) as errors:
        for number in range(forks):
            also()
            ends.append(child(functools.partial(check, store, random.Random(number))))
            if ends[-1] != "right":
                break
    return [*errors, *(end for end in ends if end != "right")]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("memory_bytes", [0, 4096], ids=["plain", "memory tier"])
def test_a_fork_under_reading_threads_reads_on(
    memory_bytes: int,
    fast_disk: Path,
    tmp_path: Path,
    rounds: Callable[[int, int], int],
    figures: Figures,
) -> None:
    forks = rounds(100, 1_000)
    root = filled(tmp_path / "store")
    other = FeatureStore(root)
    numbers = iter(range(1_000_000))

    def commit() -> None:  # so that the threads are also met while they look at the disk again
        other.put_many(KEY, [f"new_{next(numbers)}"], value("new", 1)[None], recipe=RECIPE)
        store.refresh()

    store = FeatureStore(root, memory_bytes=memory_bytes)
    found = fork_many(store, forks, commit)
    figures.record("forks under 4 reading threads", forks, "forks", {"hanging or wrong": len(found)})
    assert found == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_under_writing_threads_writes_on(
    tmp_path: Path, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    root = filled(tmp_path)
    store = FeatureStore(root)
    check(store, random.Random(0))  # as above

    def write(random_: random.Random) -> None:
        id = f"w_{random_.randrange(10**12)}"
        store.put_many(KEY, [id], value(id, 1)[None], recipe=RECIPE)
        store.delete(KEY, [id])

    def job() -> None:
        check(store, random.Random())
        id = f"child_{os.getpid()}"
        store.put_many(KEY, [id], value(id, 1)[None], recipe=RECIPE)
        store.put_many(KEY, [id], value(id, 2)[None], recipe=RECIPE, overwrite=True)
        np.testing.assert_array_equal(store.get(KEY, id), value(id, 2))

    with busy(write, 3) as errors:
        ends = [child(job) for _ in range(rounds(20, 200))]
    bad = [*errors, *(end for end in ends if end != "right")]
    figures.record("forks under 3 writing threads", len(ends), "forks", {"hanging or wrong": len(bad)})
    assert bad == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_lock_held_over_a_fork_is_caught(fast_disk: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures) -> None:
    """The mutant: a reader that takes a lock to read, which another thread holds when the process forks."""
    store = FeatureStore(filled(fast_disk / "mutant"))
    lock = threading.Lock()
    real = type(store).get

    def locked(self: FeatureStore, *args: Any, **options: Any) -> Any:
        with lock:
            time.sleep(0.001)
            return real(self, *args, **options)

    monkeypatch.setattr(FeatureStore, "get", locked)
    monkeypatch.setitem(globals(), "CHILD_S", 0.5)
    (end,) = fork_many(store, 100)
    assert end.startswith("hangs")
    assert "in locked" in end
    figures.caught("forks under 4 reading threads", "a lock held over a fork")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_store_goes_to_processes_started_anew(method: str, tmp_path: Path) -> None:
    store = FeatureStore(filled(tmp_path), memory_bytes=4096)
    check(store, random.Random(0))
    context = multiprocessing.get_context(method)
    process = context.Process(target=check, args=(store, random.Random(1)))
    process.start()
    process.join(60)
    assert process.exitcode == 0

"""A file that hangs or crashes a decoder costs one sample: never the pool, the program, or a wrong record."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_factories import number_of, picture, write_clip
from media_jobs import (
    call_plainly,
    die_by,
    environment,
    fill_memory,
    fill_without_looking,
    loaded,
    raise_unsendable,
    read_nowhere,
    sleep,
)
from pebble.pool.process import PoolManager

from featurestore.errors import MediaError, MediaTimeoutError, WorkerPoolError
from featurestore.media import DecodePool, decode_frames, index_video, worker
from featurestore.media import pool as pool_module
from featurestore.media.expiry import PunctualManager

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def pool() -> Iterator[DecodePool]:
    with DecodePool(1, timeout_s=20) as made:
        yield made


def failure_of(pool: DecodePool, function: Callable[..., Any], *arguments: Any) -> BaseException:
    error = pool.submit(function, *arguments).exception(timeout=60)
    assert error is not None
    return error


def test_a_result_comes_back_whole(pool: DecodePool, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 20)
    index = pool.submit(index_video, path).result()
    assert index.total == 20
    here = decode_frames(index, [3, 19])
    there = pool.submit(decode_frames, index, np.array([3, 19])).result()
    assert np.array_equal(there.pixels, here.pixels)
    assert np.array_equal(there.timestamps_s, here.timestamps_s)


def test_a_result_that_nobody_holds_is_gone_at_once(pool: DecodePool) -> None:
    gc.collect()
    gc.disable()
    try:
        answer = pool.submit(np.zeros, 1000)
        kept = weakref.ref(answer.result())
        del answer
        pool.submit(int).result()  # the thread that hands out results has another one now
        assert kept() is None
    finally:
        gc.enable()


def test_an_error_comes_back_with_its_path(pool: DecodePool, tmp_path: Path) -> None:
    (tmp_path / "page.mp4").write_text("<html>")
    error = failure_of(pool, index_video, tmp_path / "page.mp4")
    assert isinstance(error, MediaError)
    assert error.path == tmp_path / "page.mp4"
    assert error.deterministic
    missing = failure_of(pool, index_video, tmp_path / "missing.mp4")
    assert isinstance(missing, MediaError)
    assert not missing.deterministic


def test_a_hang_is_one_failed_job(tmp_path: Path) -> None:
    with DecodePool(1, timeout_s=0.5) as pool:
        pool.submit(os.getpid).result()
        start = time.monotonic()
        hanging = pool.submit(sleep, tmp_path / "slow.mp4", 600)
        after = pool.submit(os.getpid)
        error = hanging.exception()
        assert time.monotonic() - start < 5
        assert isinstance(error, MediaTimeoutError)
        assert not error.deterministic
        assert str(tmp_path / "slow.mp4") in str(error)
        assert "0.5 s" in str(error)
        assert after.result(timeout=30)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_is_one_failed_job(number: signal.Signals, pool: DecodePool, tmp_path: Path) -> None:
    error = failure_of(pool, die_by, tmp_path / "bad.mp4", number)
    assert isinstance(error, MediaError)
    assert str(tmp_path / "bad.mp4") in str(error)
    assert f"ended by signal {number.name}, which is not recorded" in str(error)
    assert "--decode-memory" in str(error)
    assert not error.deterministic
    assert pool.submit(os.getpid).result(timeout=30)


def test_a_native_crash_is_one_failed_job(pool: DecodePool, tmp_path: Path) -> None:
    error = failure_of(pool, read_nowhere, tmp_path / "bad.mp4")
    assert isinstance(error, MediaError)
    assert "SIGSEGV" in str(error)


def test_a_decoder_that_crashes_for_want_of_memory_says_nothing_about_its_file(tmp_path: Path) -> None:
    """It wrote to what it had asked for, and did not look whether it got it."""
    with DecodePool(1, memory_bytes=1 << 30) as pool:
        error = failure_of(pool, fill_without_looking, tmp_path / "big.mp4", 2 << 30)
        assert isinstance(error, MediaError)
        assert "signal SIGSEGV" in str(error)
        assert not error.deterministic
    with DecodePool(1, memory_bytes=4 << 30) as pool:  # the same file
        assert pool.submit(fill_without_looking, tmp_path / "big.mp4", 2 << 30).result() is None


@pytest.fixture
def late_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a busy machine: what workers say is read after their end is seen."""
    seen = threading.Event()
    read, judge = PunctualManager.process_next_message, PoolManager.handle_worker_expiration

    def late(self: PunctualManager, timeout: float) -> None:
        seen.wait(20)
        read(self, timeout)

    def judged(self: PunctualManager, expiration: tuple[int, int]) -> None:
        try:
            judge(self, expiration)
        finally:
            seen.set()

    monkeypatch.setattr(PunctualManager, "process_next_message", late)
    monkeypatch.setattr(PoolManager, "handle_worker_expiration", judged)


@pytest.mark.usefixtures("late_messages")
@pytest.mark.parametrize("busy", [False, True], ids=["alone", "beside another"])
def test_a_crash_is_one_failed_job_however_late_messages_are_read(busy: bool, tmp_path: Path) -> None:
    """The one of a process that crashes at once, and not the end of the pool, nor a file that takes too long."""
    with DecodePool(2, timeout_s=20) as pool:
        other = pool.submit(sleep, tmp_path / "long.mp4", 4.0) if busy else None
        error = failure_of(pool, die_by, tmp_path / "bad.mp4", signal.SIGSEGV)
        assert isinstance(error, MediaError)
        assert "SIGSEGV" in str(error)
        assert other is None or other.result(timeout=30) is None
        assert pool.submit(os.getpid).result(timeout=30)


@pytest.mark.usefixtures("late_messages")
def test_read_too_late_they_would_cost_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PunctualManager, "handle_worker_expiration", PoolManager.handle_worker_expiration)
    with DecodePool(1, timeout_s=20) as pool:
        assert isinstance(failure_of(pool, die_by, tmp_path / "bad.mp4", signal.SIGSEGV), WorkerPoolError)


def test_memory_is_bounded(tmp_path: Path) -> None:
    with DecodePool(1, memory_bytes=1 << 30) as pool:
        assert pool.submit(fill_memory, tmp_path / "a.mp4", 100 << 20).result() == 100 << 20
        error = failure_of(pool, fill_memory, tmp_path / "big.mp4", 2 << 30)
        assert isinstance(error, MediaError)
        assert "big.mp4 needs more than the 1024 MiB" in str(error)
        assert not error.deterministic


def test_an_exception_that_cannot_be_sent_is_described(pool: DecodePool, tmp_path: Path) -> None:
    error = failure_of(pool, raise_unsendable, tmp_path / "a.mp4")
    assert isinstance(error, RuntimeError)
    assert str(error) == "Unsendable: 1 and 2"
    assert pool.submit(os.getpid).result(timeout=30)


def test_sent_as_it_is_such_an_exception_ends_the_pool(
    pool: DecodePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "run", call_plainly)
    assert isinstance(failure_of(pool, raise_unsendable, tmp_path / "a.mp4"), WorkerPoolError)


def test_workers_stay_warm_and_light(pool: DecodePool) -> None:
    first, second = pool.submit(os.getpid), pool.submit(os.getpid)
    assert first.result() == second.result() != os.getpid()
    assert pool.submit(environment, "OMP_NUM_THREADS").result() == "1"
    packages = pool.submit(loaded).result()
    assert not packages & {"torch", "zarr", "cv2", "transformers", "open_clip", "pytest", "numpy"}


def test_a_closed_pool_starts_again() -> None:
    pool = DecodePool(1)
    first = pool.submit(os.getpid).result()
    pool.close()
    pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    with pool:
        assert pool.submit(os.getpid).result() != first


def test_a_pool_that_is_dropped_without_closing_ends_its_workers() -> None:
    pool = DecodePool(1)
    worker = pool.submit(os.getpid).result()
    del pool
    gc.collect()
    wait_until_gone([worker])


def test_a_pool_that_is_dropped_at_once_still_answers() -> None:
    assert DecodePool(1).submit(os.getpid).result(timeout=60) != os.getpid()


def test_jobs_of_a_pool_that_is_closed_are_given_up(tmp_path: Path) -> None:
    """Nobody waits for ever."""
    pool = DecodePool(1)
    jobs = [pool.submit(sleep, tmp_path / "a", 600) for _ in range(3)]
    pool.close()
    for job in jobs:
        assert isinstance(job.exception(timeout=10), WorkerPoolError)


def test_a_job_that_is_cancelled_holds_nobody_up(pool: DecodePool, tmp_path: Path) -> None:
    busy = pool.submit(sleep, tmp_path / "a", 1.0)
    waiting = pool.submit(sleep, tmp_path / "b", 600)
    assert waiting.cancel()
    with pytest.raises(CancelledError):
        waiting.result(timeout=10)
    assert busy.result() is None
    assert pool.submit(os.getpid).result(timeout=60) != os.getpid()


def test_a_pool_whose_idle_worker_was_killed_starts_again(pool: DecodePool) -> None:
    first = pool.submit(os.getpid).result()
    os.kill(first, signal.SIGKILL)
    time.sleep(0.5)
    assert pool.submit(os.getpid).result(timeout=30) != first


def test_jobs_that_no_worker_takes_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that was stopped takes no job, so no job's time begins."""
    monkeypatch.setattr(pool_module, "WATCH_S", 0.1)
    with DecodePool(1, timeout_s=0.5) as pool:
        os.kill(pool.submit(os.getpid).result(), signal.SIGSTOP)
        with monkeypatch.context() as soon:  # not while workers start, which takes a busy machine longer
            soon.setattr(pool_module, "STALL_S", 0.5)
            error = failure_of(pool, sleep, tmp_path / "a.mp4", 0)
        assert isinstance(error, WorkerPoolError)
        assert pool.submit(os.getpid).result(timeout=30)


@pytest.mark.parametrize("there", [True, False])
def test_without_locks_between_processes_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr("_multiprocessing.SemLock", refuse)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: there if path == "/dev/shm" else access(path, mode))
    with DecodePool(1) as pool, pytest.raises(WorkerPoolError) as caught:
        pool.submit(os.getpid)
    shm = "/dev/shm cannot be written, and locks between processes are made in it: mount a tmpfs there"
    why = "[Errno 2] No such file or directory" if there else shm
    assert str(caught.value) == f"decode workers cannot be started: {why}"


def in_daemon(answers: Any) -> None:
    try:
        DecodePool(1).submit(os.getpid)
    except WorkerPoolError as error:
        answers.put(str(error))


def test_a_daemonic_process_is_told_what_to_do() -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=in_daemon, args=(answers,), daemon=True)
    process.start()
    assert "fstore extract" in answers.get(timeout=60)
    process.join()


def test_a_pool_that_was_never_used_starts_nothing() -> None:
    before = multiprocessing.active_children()
    with DecodePool(4):
        assert multiprocessing.active_children() == before


# -- as the main program of a user ---------------------------------------------------------------------

SCRIPT = """
import sys
print("script runs", flush=True)
sys.path[:0] = {paths!r}
import zarr  # stands for torch: heavy, and at the top of a script
from featurestore.media import DecodePool
from media_jobs import loaded, sleep
pool = DecodePool(2)
"""


def start(folder: Path, code: str) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT.format(paths=[str(ROOT), str(ROOT / "tests")]) + code)
    return subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def test_a_script_without_a_main_guard_runs_once_and_its_imports_stay_out_of_workers(tmp_path: Path) -> None:
    done = start(tmp_path, "print('zarr' in pool.submit(loaded).result())\n")
    output, errors = done.communicate(timeout=60)
    assert output.split("\n") == ["script runs", "False", ""], errors
    assert (done.returncode, errors) == (0, "")


def test_a_function_of_the_main_script_is_refused_at_once(tmp_path: Path) -> None:
    """A worker could not find it, and the pool would end."""
    program = start(tmp_path, "def mine(): pass\npool.submit(mine)\n")
    _, errors = program.communicate(timeout=60)
    assert "WorkerPoolError: mine is of the main script, which workers do not run: move it to a module" in errors


def test_with_the_main_script_left_in_place_it_would_run_again(tmp_path: Path) -> None:
    code = """
from contextlib import nullcontext
from featurestore.media import worker
worker.no_main = nullcontext
print(pool.submit(loaded).exception())
"""
    program = start(tmp_path, code)
    output, _ = program.communicate(timeout=60)
    assert output.count("script runs") > 1


def test_a_program_that_forgets_to_close_ends_by_itself(tmp_path: Path) -> None:
    done = start(tmp_path, "pool.submit(loaded).result(); pool.submit(sleep, 'a', 600); print('end')\n")
    output, errors = done.communicate(timeout=60)
    assert "end" in output
    assert (done.returncode, errors) == (0, "")


ANNOUNCED = """
import os
workers = {pool.submit(os.getpid).result() for _ in range(20)}
print(*workers, flush=True)
for _ in range(4):
    pool.submit(sleep, "a", 600)
pool.submit(sleep, "a", 600).result()
"""


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # before it was opened, or before it was read
        return True


def wait_until_gone(processes: list[int]) -> None:
    deadline = time.monotonic() + 20
    while not all(map(gone, processes)):
        assert time.monotonic() < deadline, f"workers {processes} are left behind"
        time.sleep(0.05)


def test_ctrl_c_ends_the_program_and_its_workers(tmp_path: Path) -> None:
    """The terminal sends it to all of them; only the program answers."""
    program = start(tmp_path, ANNOUNCED)
    assert program.stdout is not None
    assert program.stdout.readline() == "script runs\n"
    workers = [int(each) for each in program.stdout.readline().split()]
    time.sleep(0.3)
    os.killpg(program.pid, signal.SIGINT)
    _, errors = program.communicate(timeout=60)
    assert program.returncode != 0
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    wait_until_gone(workers)


def test_workers_of_a_program_that_was_killed_end(tmp_path: Path) -> None:
    program = start(tmp_path, ANNOUNCED.replace("600", "1"))
    assert program.stdout is not None
    program.stdout.readline()
    workers = [int(each) for each in program.stdout.readline().split()]
    program.kill()
    program.communicate(timeout=60)
    wait_until_gone(workers)


def test_a_forked_process_starts_workers_of_its_own(tmp_path: Path) -> None:
    code = """
import os
mine = pool.submit(os.getpid).result()
child = os.fork()
if child == 0:
    ok = pool.submit(os.getpid).result() != mine
    pool.close()
    os._exit(0 if ok else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), pool.submit(os.getpid).result() != 0)
pool.close()
"""
    done = start(tmp_path, code)
    output, errors = done.communicate(timeout=60)
    assert output.splitlines()[-1] == "0 True", errors


def test_pictures_are_those_that_were_drawn() -> None:
    """The maker of clips that these tests rely on."""
    assert number_of(picture(12345, 640, 360)) == 12345


def test_a_fork_while_a_worker_starts_keeps_the_main_script_and_may_start_workers() -> None:
    """With the lock of the thread that started one, the child waited for ever, and its main script was an empty one."""
    main, inside, leave = sys.modules["__main__"], threading.Event(), threading.Event()

    def start() -> None:
        with worker.no_main():
            inside.set()
            leave.wait(0.2)

    thread = threading.Thread(target=start)
    thread.start()
    inside.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: that is the point
        child = os.fork()
    if child == 0:
        free = worker._swap.acquire(timeout=5)
        os._exit(0 if free and sys.modules["__main__"] is main else 1)
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

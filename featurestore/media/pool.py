"""Worker processes for decoding, so that a file that hangs or crashes a decoder costs one sample.

Built on pebble, which restarts a worker that died and ends one that takes too long.  Workers are spawned,
not forked: they inherit no locks and no GPU.  They stay warm between jobs.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import current_process
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from featurestore.errors import FeatureStoreError, MediaError, MediaTimeoutError, MissingPackageError, WorkerPoolError
from featurestore.media.worker import WorkerContext, begin, deaf, missing, run

if TYPE_CHECKING:
    from pebble import ProcessPool

TIMEOUT_S = 300.0
MEMORY_BYTES = 4 << 30
WATCH_S = 1.0
STALL_S = 130.0  # beyond a job's time: a worker that was killed while it held a pipe keeps it for 60 s, twice


class DecodePool:
    """Runs functions of media files in isolated processes.

    workers         processes
    timeout_s       seconds that one job may run; then its worker is ended and another started
    memory_bytes    address space of a worker; a file that wants more fails with MediaError

    Workers start with the first job and live until `close`, or the end of a `with` block.
    """

    def __init__(self, workers: int, timeout_s: float = TIMEOUT_S, memory_bytes: int = MEMORY_BYTES) -> None:
        self.workers = workers
        self.timeout_s = timeout_s
        self.memory_bytes = memory_bytes
        self._pool: ProcessPool | None = None
        self._pid = 0
        self._pending: set[_Answer] = set()
        self._moved_at = 0.0

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """A future of `function(*arguments)`; the function is one of a module (not of the main script, which workers
        do not run), the arguments can be pickled.

        Its exception is what the function raised, or MediaTimeoutError after `timeout_s`, or MediaError when
        the worker was killed or ran out of address space; the message names the first path among the
        arguments.  WorkerPoolError if workers cannot be kept alive.  A job that is cancelled gives no
        answer and its worker is ended if it has begun; one that lasts a moment may be done by then.
        Raises WorkerPoolError in a daemonic process, which may have no children, and for a function of the main script.
        """
        if getattr(function, "__module__", None) == "__main__":
            raise WorkerPoolError(
                f"{function.__name__} is of the main script, which workers do not run: move it to a module"
            )
        pool = self._running()
        job = pool.schedule(run, args=(function, *arguments), timeout=self.timeout_s)
        answer = _Answer(self, job, arguments)
        if not self._pending:
            self._moved_at = time.monotonic()
        self._pending.add(answer)
        job.add_done_callback(answer.settle)
        return answer

    def close(self) -> None:
        """End the workers, also those that are busy.  They start again with the next job."""
        pool, self._pool = self._pool, None
        if pool is not None and self._pid == os.getpid():
            _end(pool)
        for answer in tuple(self._pending):
            answer.give_up("the decode workers were stopped before this job was done")

    def _running(self) -> ProcessPool:
        if current_process().daemon:
            raise WorkerPoolError(
                "a daemonic process (e.g. a worker of a DataLoader) cannot start decode workers: run `fstore extract` "
                "first, or use num_workers=0"
            )
        if self._pool is not None and (self._pid != os.getpid() or not self._pool.active):
            # Forked since, or broken: pebble gives up when an idle worker is killed.
            self.close()
        if self._pool is None:
            try:
                from pebble import ProcessPool  # an optional package, and threads that importing must not cost

                from featurestore.media.expiry import PunctualManager
            except ImportError as error:
                raise MissingPackageError("decoding needs pebble: pip install 'featurestore[encoders]'") from error
            with deaf():  # with its first lock Python's tracker of them is started, which must live as long as we do
                context = WorkerContext()
                pool = ProcessPool(self.workers, initializer=begin, initargs=(self.memory_bytes,), context=context)
                pool._pool_manager = PunctualManager(pool._context, context)
            try:
                _ = pool.active  # starts it
            except (OSError, BrokenProcessPool) as error:
                raise WorkerPoolError(f"decode workers cannot be started: {missing(error)}") from error
            self._pool = pool
            self._pid = os.getpid()
            # Neither may keep this object alive: one that is dropped without `close` ends its workers, too.
            weakref.finalize(self, _end_apart, self._pool).atexit = False  # pebble does it then
            threading.Thread(target=_watch, args=(weakref.ref(self), self._pool), daemon=True).start()
        return self._pool

    def _give_up_if_stalled(self, pool: ProcessPool) -> None:
        """Give up jobs that no worker takes: pebble limits the time of a job from its start only."""
        if self._pending and time.monotonic() - self._moved_at > self.timeout_s + STALL_S:
            self._pool = None
            for answer in tuple(self._pending):
                answer.give_up(f"the decode workers did not answer for {STALL_S:g} s")
            _end(pool)

    def _explained(self, error: BaseException, path: Path | None) -> BaseException:
        from pebble import ProcessExpired  # as above

        name = path if path is not None else "a job"
        if isinstance(error, FeatureStoreError):
            return error
        if isinstance(error, TimeoutError):
            return MediaTimeoutError(
                f"{name}: not decoded within {self.timeout_s:g} s: it is long or damaged, or the machine is "
                "overloaded; give it more by --decode-seconds (Python: timeout_s)",
                path,
            )
        if isinstance(error, MemoryError):
            failed = MediaError(
                f"{name} needs more than the {self.memory_bytes >> 20} MiB of a decode worker; give it more by "
                "--decode-memory (Python: memory_bytes)",
                path,
            )
            failed.deterministic = False
            return failed
        if isinstance(error, ProcessExpired):
            failed = MediaError(
                f"{name}: the worker that decoded it ended by {_ending(error.exitcode)}, which is not recorded: so may "
                "a decoder end that gets no memory; run again, with more by --decode-memory (Python: memory_bytes); "
                "if it ends so again, look at the file, e.g. with ffprobe",
                path,
            )
            # The kernel kills what takes the last memory, pebble lets a worker go whose pipe is broken, and a crash may
            # be of the file or of a decoder that did not look whether it got the memory that it asked for.
            failed.deterministic = False
            return failed
        if isinstance(error, BrokenProcessPool):
            return WorkerPoolError(f"decode workers cannot be kept alive: {error}")
        return error


class _Answer(Future[Any]):
    """What becomes of a job.  Until that is known it keeps its pool alive, and no longer."""

    def __init__(self, owner: DecodePool, job: Future[Any], arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.owner: DecodePool | None = owner
        self.job: Future[Any] | None = job
        self.path = _path_among(arguments)

    def cancel(self) -> bool:
        job = self.job
        return super().cancel() and job is not None and job.cancel()

    def settle(self, job: Future[Any]) -> None:
        """Take over what the job gave, and say what happened to its worker."""
        self.job = None  # which knows this method: with a ring of the two a result would stay until the next collection
        owner = self._release()
        if owner is None:
            return
        try:
            self.set_result(job.result())
        except CancelledError:
            self.set_exception(WorkerPoolError("the decode workers were stopped before this job was done"))
        except BaseException as error:  # noqa: BLE001 - whatever it was, it is handed on
            self.set_exception(owner._explained(error, self.path))

    def give_up(self, why: str) -> None:
        if self._release() is not None:
            self.set_exception(WorkerPoolError(why))

    def _release(self) -> DecodePool | None:
        """The owner, for the first thread that asks; None for others, and when the job was cancelled."""
        owner = self.owner
        if owner is None:
            return None
        try:
            owner._pending.remove(self)
        except KeyError:
            return None  # another thread was faster
        self.owner = None
        owner._moved_at = time.monotonic()
        return owner if self.set_running_or_notify_cancel() else None


def _watch(of: weakref.ref[DecodePool], pool: ProcessPool) -> None:
    while (alive := of()) is not None and alive._pool is pool:
        alive._give_up_if_stalled(pool)
        del alive
        time.sleep(WATCH_S)


def _end(pool: ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    # A signal that raised in the middle of `schedule` may leave a waiter in the queue who is gone and takes the next
    # wake-up: with one sentinel alone the thread that gives out the jobs would sleep for ever.
    pool._context.task_queue.put(None)
    pool.join()


def _end_apart(pool: ProcessPool) -> None:
    """The last reference may go in a thread of the pool, which cannot wait for itself."""
    threading.Thread(target=_end, args=(pool,)).start()


def _path_among(arguments: tuple[Any, ...]) -> Path | None:
    for argument in arguments:
        path = getattr(argument, "path", argument)
        if isinstance(path, (str, os.PathLike)):
            return Path(path)
    return None


def _ending(exitcode: int) -> str:
    try:
        return f"signal {signal.Signals(-exitcode).name}"
    except ValueError:
        return f"exit code {exitcode}"

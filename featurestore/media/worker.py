"""Worker: a process that decodes, without the main script, deaf to the signals of a job, with bounded memory."""

from __future__ import annotations

import fcntl
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any

PIPE_BYTES = 1 << 20  # as much as a user may have without asking
SEMAPHORES = "/dev/shm"  # where the C library keeps those that processes share


def begin(memory_bytes: int) -> None:
    """First thing in a worker: one thread, bounded memory, and the imports that every job needs."""
    import resource  # only exists where workers run

    os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    with suppress(ImportError):  # the job that needs it says so
        import av  # noqa: F401 - here, so that the first job is not slower than the others


def run(function: Callable[..., Any], *arguments: Any) -> Any:
    """In a worker: call, and describe an exception that could not be sent, which would end the whole pool."""
    try:
        return function(*arguments)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 - made in the line before
        except Exception:  # noqa: BLE001 - the author of an exception class may have overlooked anything
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        raise


class Worker(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with no_main(), deaf():
            return SpawnProcess._Popen(process_obj)

    def terminate(self) -> None:
        """Workers have nothing to put in order, and do not hear SIGTERM."""
        self.kill()


@contextmanager
def deaf() -> Iterator[None]:
    """A process that is started meanwhile never hears the signals that end a job.

    `scancel`, a terminal that is closed and Ctrl-C send them to every process of the job at once.  The one that
    started the workers decides what is still stored, and takes the workers with it when it ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))
    try:
        resource_tracker.ensure_running()  # it sees to the others itself, and unblocks them here
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class WorkerContext(SpawnContext):
    Process = Worker

    def Pipe(self, duplex: bool = True) -> tuple[Connection, Connection]:
        """Pipes that hold most of a result: in pieces of 64 KiB both sides would wait for each other 20 times."""
        reader, writer = super().Pipe(duplex)
        with suppress(OSError):  # the user's share of pipe buffers is used up: slower, and as right
            fcntl.fcntl(writer.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return reader, writer


_swap = threading.Lock()
# A process forked while a thread is in here would be without its main script, and could never start a worker.
os.register_at_fork(before=_swap.acquire, after_in_parent=_swap.release, after_in_child=_swap.release)


@contextmanager
def no_main() -> Iterator[None]:
    """While a worker starts there is no main script.

    A spawned process runs the main script again, as a module.  A worker needs nothing of it: without a
    guard `if __name__ == "__main__"` it would start workers of its own, and with `import torch` at its
    top every worker would load torch.
    """
    with _swap:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def missing(error: BaseException) -> str:
    """What a machine lacks that workers cannot do without, in words; else the system's own."""
    error = error.__cause__ or error
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the working folder of this process is not there any more: `cd` to one that is, and run it again"
    if not os.access(SEMAPHORES, os.W_OK | os.X_OK):
        what = "cannot be written" if os.path.isdir(SEMAPHORES) else "is not there"
        return f"{SEMAPHORES} {what}, and locks between processes are made in it: mount a tmpfs there"
    return str(error) or type(error).__name__

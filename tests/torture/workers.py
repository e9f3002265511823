"""Processes forked from a warm parent that do one job and say what they found."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any


class Worker:
    """One forked process; `result` waits for what its job returned, or raises what it said instead.

    status   how it ended, once that was waited for: an exit code, or minus the number of a signal
    """

    status = 0

    def __init__(self, job: Callable[[], Any]) -> None:
        read_end, write_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(read_end)
            try:
                said = pickle.dumps((job(), None))
            except BaseException:  # noqa: BLE001 - told to the parent
                said = pickle.dumps((None, traceback.format_exc()))
            with os.fdopen(write_end, "wb") as pipe:
                pipe.write(said)
            sys.stdout.flush()
            os._exit(0)
        os.close(write_end)
        self._pipe = os.fdopen(read_end, "rb")

    def outcome(self) -> tuple[Any, str]:
        """(what the job returned, what it raised)."""
        with self._pipe as pipe:
            said = pipe.read()
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        result, error = pickle.loads(said) if said else (None, "the worker died")
        return result, error or ""

    def ended(self) -> bool:
        """Whether the process is over; `outcome` still says how."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def result(self) -> Any:
        result, error = self.outcome()
        assert not error, error
        return result

    def kill(self) -> bool:
        """SIGKILL, wherever it is; whether it had not finished."""
        os.kill(self.pid, signal.SIGKILL)
        with self._pipe as pipe:
            said = pipe.read()
        os.waitpid(self.pid, 0)
        return not said


def run_all(jobs: list[Callable[[], Any]]) -> list[Any]:
    """All at once; their results in order."""
    workers = [Worker(job) for job in jobs]
    return [worker.result() for worker in workers]

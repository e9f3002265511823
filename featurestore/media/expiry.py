"""A worker that died is told apart from one that had nothing to do, however late its messages are read."""

from __future__ import annotations

import threading
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from pebble.pool.process import PoolManager


class PunctualManager(PoolManager):
    """What pebble's pool is run by, reading what a worker said before deciding what its end means.

    A worker says which job it takes, through a pipe that a thread of its own reads here.  On a busy machine pebble
    finds a worker dead before that thread has had its turn; the job of that worker then seems to have no worker: the
    whole pool is given up for one file, or the job waits until its time is over.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._reading = threading.Lock()  # whoever reads a message has dealt with it when the lock is free

    def process_next_message(self, timeout: float) -> None:
        """Wait for a message without the lock, so that the other thread gets it."""
        if self._is_waiting(timeout):
            with self._reading:
                super().process_next_message(0)

    def handle_worker_expiration(self, expiration: tuple[int, int]) -> None:
        """What it said lies in the pipe or has been dealt with: a process that is gone says no more."""
        with self._reading:
            while self.context.alive and self._is_waiting(0):
                super().process_next_message(0)
        super().handle_worker_expiration(expiration)

    def _is_waiting(self, timeout: float) -> bool:
        channel: Any = self.worker_manager.pool_channel  # made when the pool starts
        try:
            return bool(channel.poll(timeout))
        except (OSError, ValueError) as error:  # closed
            raise BrokenProcessPool from error

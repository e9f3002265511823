"""Single flight: of several processes that miss one id, one computes and the others wait.

Locks only spare work.  Rows that are stored twice are harmless and wrong data is not possible, so a
lock that cannot be had (a time-out, a directory of another user, a file system without locks) is
logged and the work is done anyway.  Lock files are never removed: two holders could be the result.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import google_crc32c

if TYPE_CHECKING:
    from filelock import FileLock

logger = logging.getLogger("featurestore")
BUCKETS = 4096
WAIT_S = 600.0  # longer than any decode of one sample; after it, compute anyway


def bucket_of(id: str) -> int:
    """Which of the 4,096 locks of a recipe guards this id."""
    return int(google_crc32c.value(id.encode())) % BUCKETS


class Flight:
    """The locks of one recipe, files under `folder` made on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def hold(self, ids: Iterable[str], wait_s: float = WAIT_S) -> Iterator[None]:
        """Wait for the buckets of these ids, in ascending order so that two callers cannot wait in a ring."""
        with ExitStack() as stack:
            for bucket in sorted({bucket_of(id) for id in ids}):
                lock = self._acquire(f"{bucket:04d}", wait_s)
                if lock is not None:
                    stack.callback(lock.release)
            yield

    def try_hold(self, bucket: int) -> FileLock | None:
        """The lock of one bucket if nobody has it, else None.  The caller releases it.  Raises OSError."""
        from filelock import Timeout  # 20 ms that a process of hits does not need

        lock = self._lock(f"{bucket:04d}")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    @contextmanager
    def recipe(self, wait_s: float = WAIT_S) -> Iterator[None]:
        """The lock under which segments are replaced."""
        lock = self._acquire("recipe", wait_s)
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def _lock(self, name: str) -> FileLock:
        from filelock import FileLock  # 20 ms that a process of hits does not need

        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / f"{name}.lock")

    def _acquire(self, name: str, wait_s: float) -> FileLock | None:
        from filelock import Timeout  # 20 ms that a process of hits does not need

        try:
            lock = self._lock(name)
            lock.acquire(timeout=wait_s)
            return lock
        except Timeout:
            logger.warning(
                "%s is still held after %g s: going on without it, at worst the same work is done twice",
                self.folder / f"{name}.lock",
                wait_s,
            )
        except OSError as error:
            logger.warning(
                "%s cannot be locked (%s): going on without it, at worst the same work is done twice",
                self.folder / f"{name}.lock",
                error.strerror or error,
            )
        return None

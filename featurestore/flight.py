"""Single flight: of several processes that miss one id, one computes and the others wait.

The locks of ids only spare work.  Rows that are stored twice are harmless and wrong data is not
possible, so one that cannot be had (a time-out, a directory of another user, a file system without
locks) is logged and the work is done anyway.  The lock of a recipe, under which segments are
replaced, is different: two replacements at once would bring back what one of them deleted.  Lock
files are never removed: two holders could be the result.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import google_crc32c

from featurestore.durable import explain
from featurestore.errors import StoreError
from featurestore.reader import IMPORTING

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
        """Wait for the buckets of these ids, in ascending order so that two callers cannot wait in a ring.

        `wait_s` is for all of them together; those that cannot be had are logged and done without.
        """
        deadline = time.monotonic() + wait_s
        with ExitStack() as stack:
            for bucket in sorted({bucket_of(id) for id in ids}):
                try:
                    lock = self._acquire(f"{bucket:04d}", max(0.0, deadline - time.monotonic()))
                except OSError as error:
                    waited = f" after {wait_s:g} s" if isinstance(error, TimeoutError) else ""
                    logger.warning("%s: going on without it%s, at worst the same work is done twice", error, waited)
                else:
                    stack.callback(lock.release)
            yield

    def try_hold(self, bucket: int) -> FileLock | None:
        """The lock of one bucket if nobody has it, else None.  The caller releases it.  Raises OSError."""
        try:
            return self._acquire(f"{bucket:04d}", 0)
        except TimeoutError:
            return None

    @contextmanager
    def recipe(self, wait_s: float = WAIT_S) -> Iterator[None]:
        """The lock under which segments are replaced.  Raises StoreError where it cannot be had."""
        try:
            lock = self._acquire("recipe", wait_s)
        except TimeoutError as error:
            what = f"{error.strerror}: nothing was changed after {wait_s:g} s; try again later, or end whoever holds it"
            raise StoreError(errno.ETIMEDOUT, what, error.filename) from error
        except OSError as error:
            raise explain(error, "nothing was changed") from error
        try:
            yield
        finally:
            lock.release()

    def _acquire(self, name: str, wait_s: float) -> FileLock:
        """Raises TimeoutError when somebody else has it, OSError where it cannot be locked."""
        with IMPORTING:
            from filelock import FileLock, Timeout  # 20 ms that a process of hits does not need

        path = self.folder / f"{name}.lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.acquire(timeout=wait_s)
        except Timeout:
            raise TimeoutError(errno.ETIMEDOUT, "lock is still held", str(path)) from None
        except OSError as error:
            raise OSError(error.errno, f"cannot be locked ({error.strerror or error})", str(path)) from error
        return lock

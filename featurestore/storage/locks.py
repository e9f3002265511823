"""Locks: of several processes that miss one id, one computes and the others wait.

The locks of ids only spare work.  Rows that are stored twice are harmless and wrong data is not
possible, so one that cannot be had (a time-out, a directory of another user, a file system without
locks) is logged and the work is done anyway.  The lock of a recipe, under which segments are
replaced, is different: two replacements at once would bring back what one of them deleted.  Lock
files are never removed: two holders could be the result.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar, Protocol

import google_crc32c

from featurestore.errors import StoreError
from featurestore.storage.durable import explain
from featurestore.storage.reader import IMPORTING

logger = logging.getLogger("featurestore")
BUCKETS = 4096
POLL_S = 0.02
RECIPE = "recipe"
WAIT_S = 600.0  # longer than any decode of one sample; after it, compute anyway


class Lock(Protocol):
    """What is held until it is released."""

    def release(self) -> None: ...


def bucket_of(id: str) -> int:
    """Which of the 4,096 locks of a recipe guards this id."""
    return int(google_crc32c.value(id.encode())) % BUCKETS


class Locks:
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

    def try_hold(self, bucket: int) -> Lock | None:
        """The lock of one bucket if nobody has it, else None.  The caller releases it.  Raises OSError."""
        try:
            return self._acquire(f"{bucket:04d}", 0)
        except TimeoutError:
            return None

    @contextmanager
    def recipe(self, wait_s: float = WAIT_S) -> Iterator[None]:
        """The lock under which segments are replaced.  Raises StoreError where it cannot be had."""
        try:
            lock = self._acquire(RECIPE, wait_s)
        except TimeoutError as error:
            what = f"{error.strerror}: nothing was changed after {wait_s:g} s; try again later, or end whoever holds it"
            raise StoreError(errno.ETIMEDOUT, what, error.filename) from error
        except OSError as error:
            raise explain(error, "nothing was changed") from error
        try:
            yield
        finally:
            lock.release()

    def _acquire(self, name: str, wait_s: float) -> Lock:
        """Raises TimeoutError when somebody else has it, OSError where it cannot be locked."""
        path = f"{self.folder}/{name}.lock"
        try:
            if not os.path.isdir(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            return _file_lock(path, wait_s) if name == RECIPE else BucketLock(path, wait_s)
        except TimeoutError:
            raise TimeoutError(errno.ETIMEDOUT, "lock is still held", path) from None
        except OSError as error:
            raise OSError(error.errno, f"cannot be locked ({error.strerror or error})", path) from error


class BucketLock:
    """A file that this process has locked with flock, from its making to `release`.

    One is taken for every miss, and all that it does is to spare work: a tenth of the time of `filelock`, which takes
    care of file systems without flock.  Where another process was forked off, only this one holds it.
    """

    _held: ClassVar[set[BucketLock]] = set()

    def __init__(self, path: str, wait_s: float) -> None:
        """Raises TimeoutError when somebody else has it, OSError where it cannot be locked."""
        self._path, self._fd = path, -1
        self._open()
        deadline = time.monotonic() + wait_s
        try:
            while not self._locked():
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError
                time.sleep(min(POLL_S, left_s))
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others have it."""
        fd, self._fd = self._fd, -1
        self._held.discard(self)
        if fd >= 0:
            try:
                fcntl.flock(fd, fcntl.LOCK_UN)  # closing would not do where a process was forked off meanwhile
            finally:
                os.close(fd)

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._fd = os.open(self._path, flags, 0o666)
        self._held.add(self)

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if os.fstat(self._fd).st_nlink:
            return True
        self.release()  # it was removed with its recipe: the next one has another file
        self._open()
        return False

    @classmethod
    def forget_after_fork(cls) -> None:
        """In a child: they are its parent's.  Left open they would stay locked where that one is killed."""
        for lock in cls._held:
            if lock._fd >= 0:
                os.close(lock._fd)
            lock._fd = -1
        cls._held.clear()


os.register_at_fork(after_in_child=BucketLock.forget_after_fork)


def _file_lock(path: str, wait_s: float) -> Lock:
    """As those of buckets, and also where a file system has no flock: what it guards is more than work."""
    with IMPORTING:
        from filelock import FileLock, Timeout  # 20 ms that a process of hits and misses does not need

    lock = FileLock(path, thread_local=False)  # who releases may be another thread
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise TimeoutError from None
    return lock

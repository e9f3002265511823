"""Claims: which samples are ours to make while other processes make theirs, in two ways.

A claim hands out `units`: ids that are not stored and that nobody else makes, each unit for one call of a
compute.  They stay ours until they are released, or until the next unit is asked for.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import nullcontext
from threading import RLock
from typing import Protocol

from featurestore.storage.feature_set import FeatureSet, reading
from featurestore.storage.locks import Lock, bucket_of

UNIT = 64  # samples claimed, computed and committed together
LOOK_S = 30.0  # how often an extraction looks what others have stored, long before its turn would come here
TRY_AGAIN_S = 600.0  # how long to wait, at the very end, for a sample that another process is making


class Claim(Protocol):
    """Which ids are ours to make."""

    seen: object
    """what the reader had seen when none of the unit was stored, see `FeatureSet.keep`; None where it cannot say"""

    def units(self) -> Generator[Iterable[str], None, None]:
        """Ids for one call of a compute each, a list or an iterator; closing it lets go of all that are held."""

    def release(self, id: str) -> None:
        """Let go of a sample that is stored, or cannot be made."""


class Waiting:
    """Units of 64, each once nobody else makes any of it: for a call that needs all of them before it returns.

    rest    those of a unit that are still to be made, looked up under its locks
    locked  False where nothing will be stored, and there is nothing to keep from others
    """

    def __init__(
        self, feature_set: FeatureSet, ids: Sequence[str], rest: Callable[[list[str]], list[str]], locked: bool
    ) -> None:
        self.feature_set = feature_set
        self.ids = ids
        self.rest = rest
        self.locked = locked
        self.seen: object = None

    def units(self) -> Generator[list[str], None, None]:
        for start in range(0, len(self.ids), UNIT):
            unit = list(self.ids[start : start + UNIT])
            with self.feature_set.locks.hold(unit) if self.locked else nullcontext():
                if self.locked:
                    # Another process may have stored it while we waited.
                    with reading(self.feature_set.key):
                        self.feature_set.reader.refresh(force=True)
                    self.seen = self.feature_set.reader.seen
                if todo := self.rest(unit):
                    yield todo

    def release(self, id: str) -> None:
        """With the others of its unit."""


class Deferring:
    """Ids one by one, as a compute has room for them; what others make is left for the end: for an extraction.

    It never waits while it holds a lock.  Buckets that others hold are waited for at the very end, one by one
    with nothing in hand; waiting earlier would make a convoy of several extractions.

    stale   those that are stored, and to be made again
    others  told how many turned out to be stored by other processes
    """

    seen: object = None

    def __init__(
        self, feature_set: FeatureSet, ids: Sequence[str], stale: Collection[str], others: Callable[[int], object]
    ) -> None:
        self.feature_set = feature_set
        self.queue = deque(ids)
        self.stale = stale
        self.others = others
        self.later: list[str] = []
        self._guard = RLock()  # who releases may be another thread
        self._looked_at = time.monotonic()
        self._locks: dict[int, tuple[Lock | None, set[str]]] = {}

    def units(self) -> Generator[Iterable[str], None, None]:
        try:
            yield self._claimed()
            for id in self.later:
                with self.feature_set.locks.hold([id], TRY_AGAIN_S):
                    if not self._stored_meanwhile(id):
                        yield [id]
        finally:
            for lock, _ in list(self._locks.values()):
                if lock is not None:
                    lock.release()

    def release(self, id: str) -> None:
        bucket = bucket_of(id)
        with self._guard:
            held = self._locks.get(bucket)
            if held is None:
                return
            held[1].discard(id)
            if not held[1]:
                del self._locks[bucket]
                if held[0] is not None:
                    held[0].release()

    def _claimed(self) -> Iterator[str]:
        while self.queue:
            id = self.queue.popleft()
            self._look_around()
            if not self._claim(id):
                self.later.append(id)
            elif self._stored_meanwhile(id):
                self.release(id)
            else:
                yield id

    def _look_around(self) -> None:
        if time.monotonic() - self._looked_at < LOOK_S:
            return
        self._looked_at = time.monotonic()
        self.feature_set.reader.refresh()
        stored = {id for id in self.queue if id in self.feature_set.reader and id not in self.stale}
        self.queue = deque(id for id in self.queue if id not in stored)
        self.others(len(stored))

    def _claim(self, id: str) -> bool:
        bucket = bucket_of(id)
        with self._guard:
            held = self._locks.get(bucket)
            if held is None:
                try:
                    lock = self.feature_set.locks.try_hold(bucket)
                except OSError:
                    held = self._locks[bucket] = (None, set())  # no locks here: at worst the same work twice
                else:
                    if lock is None:
                        return False
                    held = self._locks[bucket] = (lock, set())
            held[1].add(id)
            return True

    def _stored_meanwhile(self, id: str) -> bool:
        if id in self.stale:
            return False
        self.feature_set.reader.refresh()
        if id not in self.feature_set.reader:
            return False
        self.others(1)
        return True

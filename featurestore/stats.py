"""Counters of a store object: exact among threads, without a lock on the hit path."""

from __future__ import annotations

import threading

COUNTERS = ("memory_hits", "disk_hits", "misses", "computed", "waited", "failed", "not_kept", "bytes_read")
MEMORY_HITS, DISK_HITS, MISSES, COMPUTED, WAITED, FAILED, NOT_KEPT, BYTES_READ = range(len(COUNTERS))


class Stats:
    """What became of the ids that were asked for, counted once per call and distinct id.

    memory_hits + disk_hits + misses == ids requested; with a compute, computed + waited + failed == misses.
    waited: stored by another process meanwhile.  not_kept: computed, and the store is read-only.
    """

    memory_hits: int
    disk_hits: int
    misses: int
    computed: int
    waited: int
    failed: int
    not_kept: int
    bytes_read: int

    def __init__(self) -> None:
        self._local = threading.local()
        self._all: list[list[int]] = []

    def counts(self) -> list[int]:
        """This thread's own counters: `x += 1` on shared ones would lose some."""
        try:
            counts: list[int] = self._local.counts
        except AttributeError:
            counts = self._local.counts = [0] * len(COUNTERS)
            self._all.append(counts)
        return counts

    def __getattr__(self, name: str) -> int:
        if name not in COUNTERS:
            raise AttributeError(name)
        return sum(counts[COUNTERS.index(name)] for counts in list(self._all))

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in COUNTERS}

    def __repr__(self) -> str:
        return "Stats(" + ", ".join(f"{name}={value}" for name, value in self.as_dict().items()) + ")"

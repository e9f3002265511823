"""The memory tier: rows kept in RAM within a budget of bytes.

On a local disk the page cache already does this; the tier is for network file systems.  It keeps private
copies, so that no caller can change what another one gets.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Any

from featurestore.storage.eviction import DEFAULT, EvictionPolicy, policy_named


class MemoryTier:
    """At most `budget_bytes` of rows; the policy says which one leaves.  Safe among threads and after fork.

    A position is (segment, row): rows of a segment that was replaced are never asked for again.
    """

    # One for all tiers of a process: a fork must find each of them whole, and taking several locks before it
    # would have to be kept apart from another thread that forks.
    _lock = threading.Lock()

    def __init__(self, budget_bytes: int, policy: str | EvictionPolicy = DEFAULT) -> None:
        self.budget_bytes = budget_bytes
        self.policy = policy_named(policy) if isinstance(policy, str) else policy
        self.bytes = 0
        self._rows: dict[Hashable, Any] = {}

    def get(self, position: Hashable) -> Any:
        """A fresh copy of the row, or None."""
        with self._lock:
            row = self._rows.get(position)
            if row is None:
                return None
            self.policy.used(position)
        return row.copy()

    def put(self, position: Hashable, row: Any) -> None:
        """Keep a copy, if the policy makes room for it; rows larger than the whole budget are not kept."""
        if row.nbytes > self.budget_bytes:
            return
        own = row.copy()
        with self._lock:
            if position in self._rows:
                self._drop(position)
            while self.bytes + own.nbytes > self.budget_bytes:
                leaving = self.policy.next()
                if leaving is None:
                    return
                self._drop(leaving)
            self._rows[position] = own
            self.bytes += own.nbytes
            self.policy.came(position)

    def _drop(self, position: Hashable) -> None:
        self.bytes -= self._rows.pop(position).nbytes
        self.policy.gone(position)

    def keep(self, wanted: Callable[[Any], bool]) -> None:
        """Let go of every row whose position is not wanted."""
        with self._lock:
            for position in [position for position in self._rows if not wanted(position)]:
                self._drop(position)

    def __len__(self) -> int:
        return len(self._rows)


# Held by another thread at the moment of a fork it would stay held in the child for ever.
os.register_at_fork(
    before=MemoryTier._lock.acquire,
    after_in_parent=MemoryTier._lock.release,
    after_in_child=MemoryTier._lock.release,
)

"""Which row leaves the memory tier when another one comes in.

Features are read in epochs: every sample once, in another order, again and again.  Then what was used
longest ago is what comes next, and LRU throws out exactly that.  `docs/benchmarks.md` has the hit rates
of these and of their rivals on such traces; the default is the one that does well on all of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Protocol

from featurestore.errors import ConfigError


class EvictionPolicy(Protocol):
    """The order of the rows in a tier.  Called under the tier's lock."""

    def came(self, position: Hashable) -> None:
        """A row is in the tier now."""

    def used(self, position: Hashable) -> None:
        """A row was asked for and was there."""

    def gone(self, position: Hashable) -> None:
        """A row left, whatever the reason."""

    def next(self) -> Hashable | None:
        """Which row leaves to make room; None: none does, and the newcomer is not kept."""


class LeastRecent:
    """LRU: the row that was used longest ago leaves."""

    def __init__(self) -> None:
        self.order: OrderedDict[Hashable, None] = OrderedDict()

    def came(self, position: Hashable) -> None:
        self.order[position] = None

    def used(self, position: Hashable) -> None:
        self.order.move_to_end(position)

    def gone(self, position: Hashable) -> None:
        del self.order[position]

    def next(self) -> Hashable | None:
        return next(iter(self.order))


class Bimodal(LeastRecent):
    """BIP: as LRU, but a newcomer leaves first, unless it is one in 32 or is used before the next one comes.

    An epoch that is larger than the tier then runs past the rows that stay, instead of over them, and
    a new working set still gets in by and by.
    Source: Qureshi et al., Adaptive Insertion Policies for High Performance Caching, ISCA 2007.
    """

    STAYS = 32

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def came(self, position: Hashable) -> None:
        self.order[position] = None
        self.count += 1
        if self.count % self.STAYS:
            self.order.move_to_end(position, last=False)


DEFAULT = "bip"
POLICIES: Mapping[str, Callable[[], EvictionPolicy]] = MappingProxyType({"bip": Bimodal, "lru": LeastRecent})


def policy_named(name: str) -> EvictionPolicy:
    """A new policy; ConfigError lists those there are."""
    if name not in POLICIES:
        raise ConfigError(f"memory_policy {name!r} is not one of: {', '.join(POLICIES)}")
    return POLICIES[name]()

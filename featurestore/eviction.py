"""Which row leaves the memory tier when another one comes in.

Features are read in epochs: every sample once, in another order, again and again.  Then what was used
longest ago is what comes next, and LRU throws out exactly that.  `docs/benchmarks.md` has the hit rates
of each policy on such traces; the default is the one that does well on all of them.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Protocol

from featurestore.errors import ConfigError


class Policy(Protocol):
    """The order of the rows in a tier.  Called under the tier's lock."""

    def came(self, place: Hashable) -> None:
        """A row is in the tier now."""

    def used(self, place: Hashable) -> None:
        """A row was asked for and was there."""

    def gone(self, place: Hashable) -> None:
        """A row left, whatever the reason."""

    def next(self) -> Hashable | None:
        """Which row leaves to make room; None: none does, and the newcomer is not kept."""


class LeastRecent:
    """LRU: the row that was used longest ago leaves."""

    def __init__(self) -> None:
        self.order: OrderedDict[Hashable, None] = OrderedDict()

    def came(self, place: Hashable) -> None:
        self.order[place] = None

    def used(self, place: Hashable) -> None:
        self.order.move_to_end(place)

    def gone(self, place: Hashable) -> None:
        del self.order[place]

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

    def came(self, place: Hashable) -> None:
        self.order[place] = None
        self.count += 1
        if self.count % self.STAYS:
            self.order.move_to_end(place, last=False)


class Sieve:
    """SIEVE: a hand passes over the rows from old to new; those used since it last passed stay once more.

    Source: Zhang et al., SIEVE is Simpler than LRU, NSDI 2024.
    """

    def __init__(self) -> None:
        self.visited: OrderedDict[Hashable, bool] = OrderedDict()
        self.hand: list[Hashable] = []  # rows from here on to newer ones, next one last

    def came(self, place: Hashable) -> None:
        self.visited[place] = False

    def used(self, place: Hashable) -> None:
        self.visited[place] = True

    def gone(self, place: Hashable) -> None:
        del self.visited[place]

    def next(self) -> Hashable | None:
        while True:
            if not self.hand:
                self.hand = list(reversed(self.visited))
            place = self.hand.pop()
            if not self.visited.get(place, True):
                return place
            if place in self.visited:
                self.visited[place] = False


class Random:
    """Any row leaves."""

    def __init__(self) -> None:
        self.places: list[Hashable] = []
        self.at: dict[Hashable, int] = {}
        self.generator = random.Random(0)

    def came(self, place: Hashable) -> None:
        self.at[place] = len(self.places)
        self.places.append(place)

    def used(self, place: Hashable) -> None:
        pass

    def gone(self, place: Hashable) -> None:
        hole, last = self.at.pop(place), self.places.pop()
        if last != place:
            self.places[hole] = last
            self.at[last] = hole

    def next(self) -> Hashable | None:
        return self.generator.choice(self.places)


class Pinned:
    """No row leaves: the first ones that fit stay."""

    def came(self, place: Hashable) -> None:
        pass

    def used(self, place: Hashable) -> None:
        pass

    def gone(self, place: Hashable) -> None:
        pass

    def next(self) -> Hashable | None:
        return None


DEFAULT = "bip"
POLICIES: Mapping[str, Callable[[], Policy]] = MappingProxyType(
    {"bip": Bimodal, "lru": LeastRecent, "sieve": Sieve, "random": Random, "pinned": Pinned}
)


def policy_named(name: str) -> Policy:
    """A new policy; ConfigError lists those there are."""
    if name not in POLICIES:
        raise ConfigError(f"memory_policy {name!r} is not one of: {', '.join(POLICIES)}")
    return POLICIES[name]()

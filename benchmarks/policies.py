"""Policies of the memory tier that are measured beside those of the package, and that nobody needs otherwise."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping

from cachetools import LFUCache

from featurestore.storage.eviction import POLICIES as OWN
from featurestore.storage.eviction import EvictionPolicy


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


class Lfu:
    """LFU by cachetools, as a policy of the tier: for comparison only."""

    def __init__(self) -> None:
        self.cache: LFUCache[Hashable, None] = LFUCache(maxsize=10**9)

    def came(self, place: Hashable) -> None:
        self.cache[place] = None

    def used(self, place: Hashable) -> None:
        self.cache[place]

    def gone(self, place: Hashable) -> None:
        self.cache.pop(place, None)

    def next(self) -> Hashable:
        place, value = self.cache.popitem()
        self.cache[place] = value  # the tier says `gone` when it really leaves
        return place


POLICIES: Mapping[str, Callable[[], EvictionPolicy]] = {
    **OWN,
    "sieve": Sieve,
    "random": Random,
    "pinned": Pinned,
    "lfu": Lfu,
}

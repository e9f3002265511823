"""Policies of the memory tier: who leaves, counted on traces whose best answer is known."""

from __future__ import annotations

import random

import pytest

from featurestore.errors import ConfigError
from featurestore.storage.eviction import DEFAULT, POLICIES, EvictionPolicy, policy_named


def replay(policy: EvictionPolicy, trace: list[int], room: int) -> tuple[int, set[int]]:
    """(hits, what is kept at the end) of a tier that holds `room` rows."""
    kept: set[int] = set()
    hits = 0
    for place in trace:
        if place in kept:
            policy.used(place)
            hits += 1
            continue
        if len(kept) == room:
            leaving = policy.next()
            if leaving is None:
                continue
            assert leaving in kept
            kept.remove(leaving)
            policy.gone(leaving)
        kept.add(place)
        policy.came(place)
    return hits, kept


def epochs(n: int, count: int) -> list[int]:
    generator = random.Random(1)
    return [place for _ in range(count) for place in generator.sample(range(n), n)]


@pytest.mark.parametrize("name", POLICIES)
def test_everything_is_hit_once_it_fits(name: str) -> None:
    hits, kept = replay(policy_named(name), list(range(50)) * 3, 50)
    assert hits == 100
    assert kept == set(range(50))


@pytest.mark.parametrize("name", POLICIES)
def test_what_left_by_itself_is_never_chosen(name: str) -> None:
    policy = policy_named(name)
    for place in range(10):
        policy.came(place)
    for place in (0, 3, 9):
        policy.gone(place)
    left = set(range(10)) - {0, 3, 9}
    for _ in range(20):
        leaving = policy.next()
        assert leaving is None or leaving in left


def test_lru_throws_out_what_comes_next_in_a_scan_and_the_default_does_not() -> None:
    """The same order again and again over twice what fits: LRU hits nothing, the best possible is half."""
    trace = list(range(100)) * 10
    assert replay(policy_named("lru"), trace, 50)[0] == 0
    assert replay(policy_named(DEFAULT), trace, 50)[0] > 300


def test_the_default_beats_lru_on_shuffled_epochs() -> None:
    trace = epochs(200, 10)
    assert replay(policy_named(DEFAULT), trace, 100)[0] > 1.1 * replay(policy_named("lru"), trace, 100)[0]


def test_the_default_follows_a_new_working_set() -> None:
    old, new = list(range(100)), list(range(100, 150))
    assert replay(policy_named(DEFAULT), old * 3 + new * 60, 60)[0] > 1000


def test_an_unknown_policy_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="memory_policy 'oldest' is not one of: bip, lru"):
        policy_named("oldest")

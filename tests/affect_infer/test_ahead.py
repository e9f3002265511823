"""Preparing ahead: order, errors, a bounded lead, and an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from affect_infer.run.ahead import ahead


def test_items_come_in_order() -> None:
    assert list(ahead(range(50))) == list(range(50))
    assert list(ahead([])) == []


def test_items_are_made_while_one_is_used_but_not_far_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    iterator = ahead(items(), depth=2)
    assert next(iterator) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3], "one in use, two waiting, one in hand"
    assert list(iterator) == list(range(1, 20))


def test_an_error_is_raised_in_its_turn() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the second one")

    iterator = ahead(items())
    assert next(iterator) == 1
    with pytest.raises(ValueError, match="the second one"):
        next(iterator)


def test_the_thread_ends_when_the_consumer_does() -> None:
    before = threading.active_count()
    for item in ahead(iter(range(10**9))):
        if item == 3:
            break
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before

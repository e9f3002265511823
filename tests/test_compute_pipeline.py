"""A bounded number of samples, and of bytes, is on the way, however many and however large they are."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from featurestore.compute import preparation
from featurestore.compute.pipeline import Pipeline
from featurestore.compute.preparation import Prepared, expected_bytes, in_pieces
from featurestore.errors import MediaError
from featurestore.features import Failure

MIB = 1 << 20


def decode_frames(index: None, indices: list[int], size: tuple[int, int], allow_corrupt: bool) -> int:
    """In the place of the decoder: how many frames were asked for."""
    return len(indices)


def prepare(count: int) -> Generator[tuple[Any, ...], Any, Prepared]:
    got = yield decode_frames, None, list(range(count)), (64, 64), False
    assert got == count
    return Prepared(np.zeros((count, 1)), np.arange(count), None, [])


class Workers:
    """A pool that answers when it is told to, and counts what it holds."""

    def __init__(self) -> None:
        self.given: list[Future[Any]] = []
        self.sizes: list[int] = []

    def submit(self, function: Callable[..., Any], *job: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.sizes.append(expected_bytes(job))
        self.given.append(future)
        future.set_result(function(*job))
        return future


@pytest.mark.parametrize("most", [1, 3 * MIB, 100 * MIB])
def test_no_more_bytes_are_on_the_way_than_allowed_but_for_one_sample(most: int) -> None:
    workers = Workers()
    counts = {str(number): 20 + 40 * (number % 3) for number in range(12)}
    begin: Any = lambda id: prepare(counts[id])  # noqa: E731
    pool: Any = lambda: workers  # noqa: E731
    pipeline = Pipeline(begin, pool, 6, {}, most)
    size = {id: count * 64 * 64 * 3 for id, count in counts.items()}
    held = []
    answered = []
    for id, outcome in pipeline.run(iter(counts)):
        assert not isinstance(outcome, Failure)
        answered.append(id)
        held.append(sum(workers.sizes) - sum(size[each] for each in answered[:-1]))
    assert sorted(answered) == sorted(counts)
    assert max(held) <= max(most, max(size.values()))
    if most == 1:
        assert answered == list(counts)  # one at a time
    if most == 100 * MIB:
        assert max(held) > 3 * max(size.values())  # the mutant without a bound


def in_four(fails: int) -> Generator[Any, Any, Prepared]:
    """A sample in pieces, one of which may fail."""
    for number in range(4):
        got = yield decode_frames, None, [number] * 100, (64, 64), False
        if number == fails:
            raise MediaError("the file is damaged there")
        piece = Prepared(np.zeros((got, 1)), np.full(got, number), None, [], more=number < 3)
        if number < 3:
            yield piece
    return piece


def test_pieces_come_in_their_order_and_their_bytes_are_given_back() -> None:
    workers = Workers()
    begin: Any = lambda id: in_four(2 if id == "bad" else 9)  # noqa: E731
    pool: Any = lambda: workers  # noqa: E731
    pipeline = Pipeline(begin, pool, 3, {}, 3 * 100 * 64 * 64 * 3)
    seen: dict[str, list[int]] = {"a": [], "bad": [], "b": [], "c": []}
    failed = []
    for id, outcome in pipeline.run(iter(seen)):
        assert pipeline._bytes <= pipeline.most
        if isinstance(outcome, Failure):
            failed.append(id)
        else:
            assert outcome.more == (outcome.frame_indices[0] < 3)
            seen[id].append(int(outcome.frame_indices[0]))
    assert failed == ["bad"]
    assert seen == {"a": [0, 1, 2, 3], "bad": [0, 1], "b": [0, 1, 2, 3], "c": [0, 1, 2, 3]}
    assert pipeline._bytes == 0


def test_pieces_are_no_larger_than_stated_and_hold_every_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    indices = np.arange(5000)
    pieces = list(in_pieces(indices, (224, 224)))
    assert max(map(len, pieces)) * 224 * 224 * 3 <= 64 * MIB
    assert np.array_equal(np.concatenate(pieces), indices)
    monkeypatch.setattr(preparation, "PIECE_BYTES", 1)
    assert [len(piece) for piece in in_pieces(indices[:3], (224, 224))] == [1, 1, 1]


def test_only_pixels_are_foreseen() -> None:
    assert expected_bytes((decode_frames, None, [1, 2], (10, 20), False)) == 2 * 10 * 20 * 3
    assert expected_bytes((len, [1, 2])) == 0

"""Network file systems, as far as they can be played: what they get wrong makes answers late, never wrong."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import Listing
from figures import Figures
from oracle import KEY
from test_readers import IDS, Board, content, run, same

from featurestore import FeatureStore
from featurestore.errors import MissingFeatureError, StoreError
from featurestore.storage import reader

LAG_S = 0.3  # by which listings stay behind; a client remembers directories for up to a minute
GRACE_S = 2.0  # longer, as the 15 minutes that readers are given are longer than a minute


class Past:
    """How far all ids had come some time ago."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.seen = [(time.monotonic(), board.done.copy())]

    def step(self, number: int, ago_s: float) -> int:
        now = time.monotonic()
        self.seen.append((now, self.board.done.copy()))
        while len(self.seen) > 1 and self.seen[1][0] < now - ago_s:
            self.seen.pop(0)
        return int(self.seen[0][1][number])


@contextmanager
def patched(**calls: Callable[..., Any]) -> Iterator[None]:
    """Functions of `os` that meet a network; and no maps of files, which are not used there."""
    real = {name: getattr(os, name) for name in calls}
    on_network, reader._on_network = reader._on_network, lambda path: True
    for name, make in calls.items():
        setattr(os, name, make(real[name]))
    try:
        yield
    finally:
        reader._on_network = on_network
        for name, function in real.items():
            setattr(os, name, function)


def lagging(scandir: Callable[..., Any]) -> Callable[..., Any]:
    """Listings as they were when they were last fetched, up to LAG_S ago."""
    known: dict[str, tuple[float, list[Any]]] = {}

    def call(path: Any = ".") -> Any:
        fetched = known.get(str(path))
        # Never fetched is not "at 0": this clock begins when the machine does.
        if fetched is None or time.monotonic() - fetched[0] > LAG_S:
            fetched = known[str(path)] = time.monotonic(), list(scandir(path))
        return Listing(fetched[1])

    return call


def stale(chance: float, function: Callable[..., Any]) -> Callable[..., Any]:
    """ESTALE now and then, as when a file was replaced on the server."""
    random_ = random.Random(0)

    def call(what: Any, *args: Any, **options: Any) -> Any:
        if (isinstance(what, int) or "segments" in str(what)) and random_.random() < chance:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), None if isinstance(what, int) else what)
        return function(what, *args, **options)

    return call


def read_far(root: Path, board: Board, until: float, seed: int, threads: int) -> tuple[int, list[str]]:
    """One reader on the network; (answers, what was never true, or not true as lately as it should be)."""
    with patched(scandir=lagging):
        return _ask(root, board, until, seed, (MissingFeatureError,))


def read_stale(root: Path, board: Board, until: float, seed: int, threads: int) -> tuple[int, list[str]]:
    """The same where handles go stale; being told so is an answer too."""
    calls = {name: lambda real: stale(0.05, real) for name in ("open", "pread", "preadv", "stat")}
    with patched(**calls):
        return _ask(root, board, until, seed, (MissingFeatureError, StoreError))


def _ask(root: Path, board: Board, until: float, seed: int, refusals: tuple[type[Exception], ...]) -> Any:
    store, random_, past = FeatureStore(root), random.Random(seed), Past(board)
    answers, found = 0, []
    while time.monotonic() < until and not found:
        number = random_.randrange(len(IDS))
        first = past.step(number, 3 * LAG_S)
        try:
            store.refresh()
            values = store.get(KEY, IDS[number])
        except refusals as error:
            if not isinstance(error, MissingFeatureError):
                continue
            values = None
        last = int(board.begun[number])
        if not any(same(values, content(number, step)) for step in range(first, last + 1)):
            found.append(f"{IDS[number]} between step {first} and {last}: {values}")
        answers += 1
    return answers, found


@pytest.mark.parametrize("how", [read_far, read_stale], ids=["listings stay behind", "handles go stale"])
def test_a_network_makes_answers_late_and_not_wrong(
    how: Callable[..., Any],
    fast_disk: Path,
    rounds: Callable[[int, int], int],
    figures: Figures,
    request: pytest.FixtureRequest,
) -> None:
    name = request.node.callspec.id
    counts, found = run(fast_disk / name.replace(" ", "-"), rounds(8, 60), 1, grace_s=GRACE_S, reader=how)
    answers = counts.pop("answers")
    figures.record(f"network, {name}", answers, "answers", {"wrong": len(found)}, counts)
    assert found[:3] == []
    assert min(answers, *counts.values()) > 0


def test_without_the_grace_a_lagging_listing_shows(fast_disk: Path, figures: Figures) -> None:
    """The mutant: what was replaced is removed at once, and a reader that cannot know it yet misses rows."""
    # A loaded machine may merge once in a run.
    assert any(run(fast_disk / f"no-grace-{number}", 8, 1, reader=read_far)[1] for number in range(5))
    figures.caught("network, listings stay behind", "no grace for readers")


def test_ids_are_not_mixed_up_by_what_another_host_sees_later(fast_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two readers of one store, one of which lags, agree on every value that both can see."""
    monkeypatch.setitem(globals(), "LAG_S", 3600.0)
    root = fast_disk / "agree"
    store = FeatureStore(root)
    from oracle import RECIPE, value

    store.put_many(KEY, IDS, np.stack([value(id, 1) for id in IDS]), recipe=RECIPE)
    with patched(scandir=lagging):
        late = FeatureStore(root)
        late.get(KEY, IDS[0])
        store.put_many(KEY, ["new"], value("new", 1)[None], recipe=RECIPE)
        store.compact(KEY)
        late.refresh()
        np.testing.assert_array_equal(late.get_many(KEY, IDS), np.stack([value(id, 1) for id in IDS]))
        with pytest.raises(MissingFeatureError):
            late.get(KEY, "new")
        monkeypatch.setitem(globals(), "LAG_S", 0.0)
        np.testing.assert_array_equal(late.get(KEY, "new"), value("new", 1))

"""How long the torture tests run, and where their figures go."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from figures import RESULTS, Figures, is_done, keep

SCALE = float(os.environ.get("TORTURE_SCALE", "1"))  # of all counts, for a quick look


@pytest.fixture(scope="session")
def rounds(long_run: bool) -> Callable[[int, int], int]:
    """rounds(short, long): how often to try, with `make test` and with `make torture`."""
    return lambda short, long: max(1, int((long if long_run else short) * SCALE))


ENDED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --resume leave out what an earlier long run came to the end of."""
    if not config.getoption("--resume"):
        return
    done = [item for item in items if is_done(_path(config), item.nodeid)]
    config.hook.pytest_deselected(items=done)
    items[:] = [item for item in items if item not in done]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Know which tests came to an end: one that was cut off counted a part only."""
    if call.when == "call":
        item.stash[ENDED] = True
    return (yield)


@pytest.fixture
def figures(long_run: bool, request: pytest.FixtureRequest) -> Iterator[Figures]:
    """Where a test writes what it counted.  A long run keeps it with the project, any run in --figures FILE."""
    kept: dict[str, Any] = {}
    yield Figures(kept, "long" if long_run else "short", request.node.nodeid.partition("::")[0])
    whole_run = (long_run and SCALE == 1) or request.config.getoption("--figures")
    if kept and whole_run and request.node.stash.get(ENDED, False):
        keep(_path(request.config), request.node.nodeid, kept)


def _path(config: pytest.Config) -> Path:
    return Path(config.getoption("--figures") or RESULTS)


@pytest.fixture(scope="session")
def fast_disk() -> Iterator[Path]:
    """A directory in RAM where there is one: for tests whose subject is not the disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="torture-", dir=memory) as folder:
        yield Path(folder)

"""How long the torture tests run, and where their figures go."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from figures import RESULTS, Figures, keep

SCALE = float(os.environ.get("TORTURE_SCALE", "1"))  # of all counts, for a quick look


@pytest.fixture(scope="session")
def rounds(long_run: bool) -> Callable[[int, int], int]:
    """rounds(short, long): how often to try, with `make test` and with `make torture`."""
    return lambda short, long: max(1, int((long if long_run else short) * SCALE))


@pytest.fixture(scope="session")
def _kept(request: pytest.FixtureRequest, long_run: bool) -> Iterator[dict[str, Any]]:
    """What all tests of the session counted.  A whole long run keeps it with the project, any run in --figures FILE."""
    kept: dict[str, Any] = {}
    yield kept
    path = request.config.getoption("--figures") or (RESULTS if long_run and SCALE == 1 else None)
    if path and kept:
        keep(Path(path), kept)


@pytest.fixture
def figures(_kept: dict[str, Any], long_run: bool, request: pytest.FixtureRequest) -> Figures:
    """Where a test writes what it counted."""
    return Figures(_kept, "long" if long_run else "short", request.node.nodeid.partition("::")[0])


@pytest.fixture(scope="session")
def fast_disk() -> Iterator[Path]:
    """A directory in RAM where there is one: for tests whose subject is not the disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="torture-", dir=memory) as folder:
        yield Path(folder)

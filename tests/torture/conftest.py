"""How long the torture tests run, and where their figures go."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "torture.json"
SCALE = float(os.environ.get("TORTURE_SCALE", "1"))  # of all counts, for a quick look


@pytest.fixture(scope="session")
def rounds(long_run: bool) -> Callable[[int, int], int]:
    """rounds(short, long): how often to try, with `make test` and with `make torture`."""
    return lambda short, long: max(1, int((long if long_run else short) * SCALE))


@pytest.fixture(scope="session")
def figures(long_run: bool) -> Iterator[dict[str, Any]]:
    """{test: {what: count}}; a long run keeps it, and the table of docs/reliability.md is made from it."""
    kept: dict[str, Any] = {}
    yield kept
    if long_run and SCALE == 1 and kept:
        before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"figures": {}}
        machine = {"python": platform.python_version(), "system": platform.platform(), "cpus": os.cpu_count()}
        document = {
            "command": "make torture",
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "machine": machine,
            "figures": {**before["figures"], **kept},
        }
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


@pytest.fixture(scope="session")
def fast_disk() -> Iterator[Path]:
    """A directory in RAM where there is one: for tests whose subject is not the disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="torture-", dir=memory) as folder:
        yield Path(folder)

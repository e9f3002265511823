"""What all tests share: where media for tests lie, and an environment in which nothing reaches outside."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

# Set before anything imports huggingface_hub, which reads it once: tests never fetch weights.
os.environ["HF_HUB_OFFLINE"] = "1"
# Tests send these to processes of their own, which a background job of a shell, or nohup, would let pass them by.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the torture tests in their long version")
    parser.addoption("--resume", action="store_true", help="leave out torture tests whose long run is kept already")
    parser.addoption("--figures", metavar="FILE", help="where to keep what the torture tests counted")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests marked `torture` unless --long is given."""
    if config.getoption("--long"):
        return
    long_ones = [item for item in items if item.get_closest_marker("torture")]
    if long_ones:
        config.hook.pytest_deselected(items=long_ones)
        items[:] = [item for item in items if item not in long_ones]


@pytest.fixture(scope="session")
def long_run(request: pytest.FixtureRequest) -> bool:
    """Whether --long was given; a torture test takes its number of rounds from it."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def shared_media() -> Path:
    """The folder `shared/media` beside the checkout: real and odd clips that are not part of the project."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "media"
    if not folder.is_dir():
        pytest.skip(f"no test media at {folder}")
    return folder


@pytest.fixture(scope="session")
def cpu_seconds() -> Callable[..., float]:
    """Function (*command) -> the least CPU time of nine runs: a busy machine disturbs it less than the clock's."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def least(*command: str) -> float:
        times = []
        for _ in range(9):
            before = used()
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
            times.append(used() - before)
        return min(times)

    return least


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No store of the user's, and a cache directory of the test run's own."""
    monkeypatch.delenv("FEATURESTORE_ROOT", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))

"""kill -9 at any moment: what was acknowledged is there, bit for bit, and nothing is half there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from victims import kill_many

KILLS_PER_STORE = 250


@pytest.mark.timeout(0)
def test_nothing_acknowledged_is_lost_when_writers_are_killed(
    tmp_path: Path, rounds: Callable[[int, int], int], figures: dict[str, Any]
) -> None:
    kills = rounds(2_000, 10_000)
    found: list[str] = []
    acknowledged = 0
    for number, start in enumerate(range(0, kills, KILLS_PER_STORE)):
        size = min(KILLS_PER_STORE, kills - start)
        some, count = kill_many(tmp_path / str(number), size, seed=number)
        found += some
        acknowledged += count
    assert found == []
    figures["kill -9"] = {"kills": kills, "samples acknowledged": acknowledged, "lost or wrong": len(found)}

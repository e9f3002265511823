"""Files that were made to harm: each is read, or refused in our own words, within a gigabyte and ten seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from figures import Figures

PROGRAM = Path(__file__).with_name("hostile_run.py")
MIB = 1 << 20


def run(folder: Path, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """(how the parent of all readers ended, its lines)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), "--folder", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout, done.stderr[-3000:]
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def summary(lines: list[dict[str, Any]]) -> dict[str, int]:
    """How hard it was tried: inputs of each kind, and the most that one of them took."""
    kinds = Counter(line["kind"] for line in lines)
    most = {
        "most MiB": max(line["bytes"] for line in lines) // MIB,
        "most milliseconds": round(1000 * max(line["seconds"] for line in lines)),
        "decoders that crashed in their process": sum(
            line["end"].startswith("signal") and not line["finding"] for line in lines
        ),
    }
    return {**kinds, **most}


@pytest.mark.timeout(0)  # those of the inputs end it
def test_hostile_inputs_are_read_or_refused(
    fast_disk: Path, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    count = rounds(300, 20_000)
    code, lines = run(fast_disk / "hostile", "--count", str(count), "--seed", "0")
    found = [line for line in lines if line["finding"]]
    executed = sum(line["executed"] for line in lines)
    bad = {
        "crashes of the parent": int(code != 0),
        "executed": executed,
        "other errors, crashes, over 1 GiB or 10 s": len(found) - executed,
    }
    figures.record("hostile inputs", len(lines), "inputs", bad, summary(lines))
    assert code == 0
    assert len(lines) == count
    told = [f"{line['kind']} {line['number']}: {line['finding']}\n{line['text'][-800:]}" for line in found]
    assert not told, "\n".join(told[:10])


@pytest.mark.timeout(0)
def test_readers_that_believe_what_they_are_given_are_caught(fast_disk: Path, figures: Figures) -> None:
    code, lines = run(fast_disk / "believing", "--mutants", "--seed", "0")
    assert code == 0
    for line in lines:
        if line["finding"]:
            figures.caught("hostile inputs", line["mutant"])
    assert [line["mutant"] for line in lines if not line["finding"]] == []

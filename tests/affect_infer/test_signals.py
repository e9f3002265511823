"""affect-infer ends in order by the signals of batch systems and closed terminals: answers stay, nobody is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from affect_infer.results import read_results
from featurestore.demo import CLIPS

HERE = Path(__file__).parent
OWN = """\
affect_infer: 1
store: features
mode: frameonly
policy: {{frame: live}}
encoders: {{frame: QUICK_PIXELS}}
frame: {{sampling: uniform}}
datasets: {{clips: {{manifest: {manifest}}}}}
"""


def of_group(group: int) -> list[int]:
    """The processes of a group that still run."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                state, _, member = Path(entry.path, "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(member) == group and state != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize(
    ("number", "word", "to"),
    [(signal.SIGTERM, "Terminated", "one"), (signal.SIGTERM, "Terminated", "all"), (signal.SIGHUP, "Hung up", "all")],
)
def test_a_signal_keeps_the_answers_and_leaves_nobody(
    demo: Path, tmp_path: Path, number: signal.Signals, word: str, to: str
) -> None:
    (tmp_path / "own.yaml").write_text(OWN.format(manifest=demo / "manifest.csv"))
    words = ["run", "--cfg-path", "own.yaml", "--output", "output", "--batch-size", "1", "--workers", "2"]
    child = subprocess.Popen(
        [sys.executable, str(HERE / "signalled_run.py"), *words, "--device", "cpu"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    results = tmp_path / "output" / "results-clips" / "own" / "answers.jsonl"
    deadline = time.monotonic() + 120
    while child.poll() is None and time.monotonic() < deadline:
        if results.exists() and results.read_bytes().count(b"\n") > 2:  # the first line is about the run
            break
        time.sleep(0.02)
    os.kill(child.pid, number) if to == "one" else os.killpg(child.pid, number)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 128 + number, said
    assert said.endswith(f"\n{word}; what was answered stays, and the same command goes on.\n")
    for wrong in ("Traceback", "resource_tracker", "leaked", "Exception ignored"):
        assert wrong not in said
    answered = read_results(results)[1]
    assert 2 <= len(answered) < len(CLIPS)
    deadline = time.monotonic() + 20
    while of_group(child.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert of_group(child.pid) == []

"""Inference runs killed at any moment: no sample is lost, none is repeated."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from figures import Figures

from affect_infer.results import read_results
from featurestore import FeatureStore

HERE = Path(__file__).resolve().parents[1] / "affect_infer"
PROOF = "inference runs killed"
KEY = "clips/frame/QUICK_PIXELS/uniform/8"
SAMPLES = 600
IDS = [f"-clip_{number:04}" for number in range(SAMPLES)]
OWN = """\
affect_infer: 1
store: features
mode: frameonly
policy: {frame: store_only}
encoders: {frame: QUICK_PIXELS}
frame: {sampling: uniform}
datasets: {clips: {manifest: clips.csv}}
"""


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    (tmp_path / "clips.csv").write_text("id\n" + "\n".join(IDS) + "\n")
    (tmp_path / "own.yaml").write_text(OWN)
    values = np.random.default_rng(0).normal(size=(SAMPLES, 8, 24)).astype(np.float32)
    FeatureStore(tmp_path / "features").put_many(KEY, IDS, values, recipe={"made": "here"})
    return tmp_path


def start(clips: Path, broken: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "stub_run.py"), str(clips / "own.yaml"), str(clips / "output"), broken]
    return subprocess.Popen(command, cwd=HERE, text=True, stderr=subprocess.PIPE)


def kill_runs(clips: Path, kills: int, broken: str = "") -> list[str]:
    """What is lost or repeated in runs that are killed in the middle and begun again."""
    chance, found = random.Random(0), []
    results = clips / "output" / "results-clips" / "own" / "answers.jsonl"
    for _ in range(kills):
        if results.exists() and len(read_results(results)[1]) >= SAMPLES - 60:
            results.unlink()  # begin again, so that every kill hits a run in the middle of its work
        before = results.stat().st_size if results.exists() else 0
        process = start(clips, broken)
        deadline = time.monotonic() + 60
        while (not results.exists() or results.stat().st_size <= before) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        lines = results.read_bytes().splitlines(keepends=True)
        ids = [json.loads(line)["id"] for line in lines[1:] if line.endswith(b"\n")]
        found += ["a sample was answered twice"] if len(ids) > len(set(ids)) else []
        found += ["an answer is missing in the middle"] if ids != IDS[: len(ids)] else []
        if found:
            break
    return found


@pytest.mark.timeout(0)
def test_killed_at_any_moment_no_sample_is_lost_or_repeated(
    clips: Path, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    kills = rounds(10, 100)
    found = kill_runs(clips, kills)
    figures.record(PROOF, kills, "kills", {"lost or repeated": len(found)})
    assert found == []
    process = start(clips, "")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    results = clips / "output" / "results-clips" / "own" / "answers.jsonl"
    lines = results.read_bytes().splitlines()
    answers = [json.loads(line) for line in lines[1:]]
    assert [answer["id"] for answer in answers] == IDS
    sums = FeatureStore(clips / "features").get_many(KEY, [answer["id"] for answer in answers])
    expected = [f"{a['id']}: {float(values.sum()):.4f}" for a, values in zip(answers, sums, strict=True)]
    assert [answer["answer"] for answer in answers] == expected
    exported = np.load(results.with_suffix(".npz"), allow_pickle=True)["name2reason"].tolist()
    assert exported == {answer["id"]: answer["answer"] for answer in answers}


@pytest.mark.parametrize("broken", ["forgets", "skips"])
def test_a_run_that_repeats_or_loses_samples_is_caught(clips: Path, broken: str, figures: Figures) -> None:
    """The mutants: a run that does not know what was answered, and one that takes the next batch for answered too."""
    assert kill_runs(clips, 4, broken)
    figures.caught(PROOF, f"a run that {broken}")

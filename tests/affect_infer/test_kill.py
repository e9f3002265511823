"""Killed at any moment: no sample is lost, none is repeated."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from affect_infer.results import read_results
from featurestore import FeatureStore

HERE = Path(__file__).parent
KEY = "clips/frame/QUICK_PIXELS/uniform/8"
SAMPLES = 600
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
    ids = [f"-clip_{number:04}" for number in range(SAMPLES)]
    (tmp_path / "clips.csv").write_text("id\n" + "\n".join(ids) + "\n")
    (tmp_path / "own.yaml").write_text(OWN)
    values = np.random.default_rng(0).normal(size=(SAMPLES, 8, 24)).astype(np.float32)
    FeatureStore(tmp_path / "features").put_many(KEY, ids, values, recipe={"made": "here"})
    return tmp_path


def start(clips: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "stub_run.py"), str(clips / "own.yaml"), str(clips / "output")]
    return subprocess.Popen(command, cwd=HERE, text=True, stderr=subprocess.PIPE)


def test_killed_at_any_moment_no_sample_is_lost_or_repeated(clips: Path, long_run: bool) -> None:
    kills, chance = (100 if long_run else 10), random.Random(0)
    results = clips / "output" / "results-clips" / "own" / "answers.jsonl"
    killed, torn = 0, 0
    while killed < kills:
        if results.exists() and len(read_results(results)[1]) >= SAMPLES - 60:
            results.unlink()  # begin again, so that every kill hits a run in the middle of its work
        before = results.stat().st_size if results.exists() else 0
        process = start(clips)
        deadline = time.monotonic() + 60
        while (not results.exists() or results.stat().st_size <= before) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        killed += 1
        lines = results.read_bytes().splitlines(keepends=True)
        torn += not lines[-1].endswith(b"\n")
        ids = [json.loads(line)["id"] for line in lines[1:] if line.endswith(b"\n")]
        assert len(ids) == len(set(ids)), "a sample was answered twice"
        assert ids == sorted(ids), "an answer is missing in the middle"
    process = start(clips)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    lines = results.read_bytes().splitlines()
    answers = [json.loads(line) for line in lines[1:]]
    assert [answer["id"] for answer in answers] == [f"-clip_{number:04}" for number in range(SAMPLES)]
    sums = FeatureStore(clips / "features").get_many(KEY, [answer["id"] for answer in answers])
    expected = [f"{a['id']}: {float(values.sum()):.4f}" for a, values in zip(answers, sums, strict=True)]
    assert [answer["answer"] for answer in answers] == expected
    exported = np.load(results.with_suffix(".npz"), allow_pickle=True)["name2reason"].tolist()
    assert exported == {answer["id"]: answer["answer"] for answer in answers}

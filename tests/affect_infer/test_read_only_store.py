"""A store that cannot be written is read all the same; what it lacks is computed, not kept, and counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from featurestore import FeatureStore

HERE = Path(__file__).parent
KEY = "mer2023/frame/QUICK_PIXELS/emotion_peak/8"


def test_what_cannot_be_kept_is_computed_and_counted(
    demo: Path, full_store: Path, tiny_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(HERE.parent / "torture"))
    from mounts import need_own_mounts

    need_own_mounts()
    room = tmp_path / "room"
    room.mkdir()
    llm, checkpoint = tiny_files
    command = [sys.executable, str(HERE / "read_only_run.py"), *map(str, (demo, full_store, room, llm, checkpoint))]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["report"]["inputs"]["frame"] == {"disk": 10, "not_kept": 2}
    assert told["report"]["not_kept"] == 2
    assert told["report"]["store_hit_rate"] == pytest.approx(46 / 48)
    assert "2 features were computed and not kept: the store cannot be written" in told["text"]
    frames = told["frames"]
    assert [id for id, (answer, _) in frames.items() if answer == "not_kept"] == ["sample_00000002", "sample_00000007"]
    for id, values in zip(frames, FeatureStore(full_store).get_many(KEY, list(frames)), strict=True):
        assert frames[id][1] == f"{float(values.sum()):.6f}", "what was computed is what had been stored"

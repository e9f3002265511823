"""SIGTERM in the middle of import, verify and compact: exit code 143, no traceback, and nothing half done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli_factories import IDS, KEY, files, make_store, run

from featurestore import FeatureStore

# `fstore` that stops where HOLD says, `before` or `after` a call of a function with a text among its arguments.
HOLDING = """
import os, sys, time
from importlib import import_module
from pathlib import Path

when, place, text = os.environ["HOLD"].split()
module, path = place.split(":")
*above, name = path.split(".")
owner = import_module(module)
for each in above:
    owner = getattr(owner, each)
real = getattr(owner, name)

def hold():
    Path(os.environ["HELD"]).touch()
    time.sleep(300)

def held(*args, **more):
    meant = text in str(args)
    if meant and when == "before":
        hold()
    found = real(*args, **more)
    if meant and when == "after":
        hold()
    return found

setattr(owner, name, held)
if "BROKEN" in os.environ:  # a program that knows nothing of signals
    from contextlib import nullcontext
    import featurestore.cli.program
    featurestore.cli.program._ending_in_order = nullcontext
from featurestore.cli import main
main()
"""


def ended(folder: Path, hold: str, *words: object) -> str:
    """`fstore WORDS`, held where `hold` says and ended by SIGTERM there; what it said."""
    script, mark = folder / "held.py", folder / "held"
    script.write_text(HOLDING, encoding="utf-8")
    mark.unlink(missing_ok=True)
    child = subprocess.Popen(
        [sys.executable, str(script), *map(str, words)],
        cwd=folder,
        env={**os.environ, "HOLD": hold, "HELD": str(mark)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not mark.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    held = mark.exists()
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=60)
    assert held, said
    assert child.returncode == 128 + signal.SIGTERM, said
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    assert said.endswith("Terminated; what was committed stays.\n")
    return said


FOLDERS = {
    f"mer2023/frame_CLIP_VIT_LARGE_{name}_8frms": number for number, name in enumerate(("uniform", "emotion_peak"))
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two feature folders of five samples each."""
    for name, seed in FOLDERS.items():
        (tmp_path / "tree" / name).mkdir(parents=True)
        for number in range(5):
            rows = np.random.default_rng([seed, number]).standard_normal((8, 768)).astype("f4")
            np.save(tmp_path / "tree" / name / f"s{number}.npy", rows)
    return tmp_path / "tree"


def test_an_import_that_is_ended_keeps_whole_batches_and_goes_on(tree: Path, tmp_path: Path) -> None:
    """Held when the first folder is handed to a thread that stores it, and the second is read."""
    words = ("import", tree, "--store", tmp_path / "store")
    ended(tmp_path, "before featurestore.affectgpt.importing:_Writer.put uniform", *words)
    store = FeatureStore(tmp_path / "store", read_only=True)
    assert [(str(key), len(store.ids(key))) for key in store.keys()] == [
        ("mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8", 5)
    ]
    assert "nothing wrong" in run("verify", "--store", tmp_path / "store", "--full").stdout
    assert "5 samples stored" in run(*words).stdout
    assert "0 samples stored" in run(*words).stdout
    assert "nothing wrong" in run("verify", "--store", tmp_path / "store", "--full").stdout


def test_a_verify_that_is_ended_changed_nothing(tmp_path: Path) -> None:
    """Held in the middle of reading, with damage in sight that it was asked to repair."""
    root = make_store(tmp_path)
    shard = max(root.rglob("c.0.0.0"), key=lambda path: path.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[9] ^= 1
    shard.write_bytes(data)
    before = files(root)
    words = ("verify", "--store", root, "--full", "--repair")
    ended(tmp_path, "after featurestore.quality.integrity:Damage._bad_row row", *words)
    assert files(root) == before
    assert "1 finding, 1 of them repaired" in run(*words, exit_code=1).stdout


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_compact_that_is_ended_lost_nothing(tmp_path: Path, when: str) -> None:
    """Held when the merged segment is written, before it is renamed to its place and after."""
    root = make_store(tmp_path)
    store = FeatureStore(root, read_only=True)
    expected = store.get_many(KEY, IDS)
    ended(tmp_path, f"{when} os:rename /segments/", "compact", KEY, "--store", root)
    again = FeatureStore(root)
    np.testing.assert_array_equal(again.get_many(KEY, IDS), expected)
    assert again.info(KEY).segments == (2 if when == "before" else 1)
    assert "nothing wrong" in run("verify", "--store", root, "--full").stdout
    run("compact", KEY, "--store", root)
    assert again.ids(KEY) == sorted(IDS)
    run("gc", "--store", root, "--grace", 0)
    np.testing.assert_array_equal(FeatureStore(root).get_many(KEY, IDS), expected)


def test_a_program_that_knows_nothing_of_signals_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_store(tmp_path)
    monkeypatch.setenv("BROKEN", "1")
    with pytest.raises(AssertionError):
        ended(tmp_path, "before os:rename /segments/", "compact", KEY, "--store", root)

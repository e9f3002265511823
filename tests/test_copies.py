"""Copies: a copy made as docs/cluster.md says never shows what was deleted, also while a writer is at work."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featurestore import FeatureKey, FeatureStore

KEY = FeatureKey("mer2023", "frame", "DUMMY", "uniform", 2)
RECIPE = {"weights": "random"}
PAGE = Path(__file__).resolve().parents[1] / "docs" / "cluster.md"


def options() -> list[str]:
    """What the page gives to rsync."""
    (words,) = re.findall(r"^rsync (.*?) /nfs", PAGE.read_text(), re.MULTILINE)
    return str(words).split()


def by_rsync(source: Path, target: Path, *words: str) -> int:
    target.mkdir(exist_ok=True)
    return subprocess.run(["rsync", *words, source / "data", f"{target}/"], capture_output=True).returncode


def by_hand(source: Path, target: Path, *words: str) -> int:
    """What rsync does: list, and then folder by folder delete, create, and write each file under another name first."""
    vanished = False
    listed = {Path(folder): (folders, files) for folder, folders, files in os.walk(source / "data")}
    for folder, (folders, files) in listed.items():
        there = target / folder.relative_to(source)
        there.mkdir(parents=True, exist_ok=True)
        for entry in there.iterdir() if "--delete" in words else ():
            if entry.name not in (*folders, *files):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for name in files:
            try:
                shutil.copy2(folder / name, there / f".{name}.part")
                (there / f".{name}.part").replace(there / name)
            except FileNotFoundError:
                vanished = True
    return 24 if vanished else 0


Copy = Callable[..., int]
COPIES = pytest.mark.parametrize(
    "copy",
    [
        pytest.param(by_rsync, marks=pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed")),
        by_hand,
    ],
)


def values(number: int) -> Any:
    return np.full((1, 2, 4), number, np.float32)


def put(store: FeatureStore, id: str, number: int, overwrite: bool = False) -> None:
    store.put_many(KEY, [id], values(number), recipe=RECIPE, overwrite=overwrite)


def gc(store: FeatureStore) -> None:
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    feature_set.gc(0)


def seen(root: Path) -> dict[str, float]:
    store = FeatureStore(root, read_only=True)
    return {id: float(store.get(KEY, id)[0, 0]) for id in store.ids(KEY)}


def life(root: Path, copy: Callable[[], int]) -> None:
    """Delete and overwrite, with everything done that makes the source forget it."""
    store = FeatureStore(root)
    for number, id in enumerate("wxyz"):
        put(store, id, number)
    store.compact(KEY)
    gc(store)
    assert copy() == 0
    store.delete(KEY, ["x"])
    put(store, "y", 7, overwrite=True)
    gc(store)
    put(store, "q", 9)
    store.compact(KEY)
    gc(store)
    assert copy() == 0


@COPIES
def test_the_line_of_the_page_copies_what_is_there_and_nothing_else(tmp_path: Path, copy: Copy) -> None:
    source, target = tmp_path / "source", tmp_path / "copy"
    life(source, lambda: copy(source, target, *options()))
    assert seen(target) == seen(source) == {"w": 0, "y": 7, "z": 3, "q": 9}


@COPIES
def test_without_deleting_the_dead_come_back(tmp_path: Path, copy: Copy) -> None:
    """Or the test above shows nothing."""
    source, target = tmp_path / "source", tmp_path / "copy"
    life(source, lambda: copy(source, target, "-a"))
    assert {"x": 1.0}.items() <= seen(target).items()


def write(root: str, log: str, stop: Any) -> None:
    """Add, overwrite, delete and merge without a rest; what is acknowledged is written down."""
    store, number = FeatureStore(root), 0
    while not stop.is_set():
        number += 1
        put(store, f"n{number}", number)
        put(store, "v", number, overwrite=True)
        store.delete(KEY, [f"n{number - 1}"])
        if number % 3 == 0:
            store.compact(KEY)
            gc(store)
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{number}\n")


def newest(log: Path) -> int:
    lines = log.read_text(encoding="utf-8").split("\n") if log.exists() else []
    return int(lines[-2]) if len(lines) > 1 else 0


def copied_beside_a_writer(folder: Path, copy: Copy, *words: str) -> list[str]:
    """What copies made one over the other showed that was gone before each began."""
    source, target, log = folder / "source", folder / "copy", folder / "log"
    spawn = multiprocessing.get_context("spawn")
    stop, wrong = spawn.Event(), []
    writer = spawn.Process(target=write, args=(str(source), str(log), stop))
    writer.start()
    try:
        while newest(log) < 3:
            assert writer.is_alive()
            time.sleep(0.01)
        for _ in range(8):
            acknowledged = newest(log)
            copy(source, target, *words)
            for id, number in seen(target).items():
                if number < acknowledged:
                    wrong.append(f"{id} is {number}, and {acknowledged} was acknowledged before")
            while newest(log) < acknowledged + 4:
                assert writer.is_alive()
                time.sleep(0.01)
    finally:
        stop.set()
        writer.join()
    assert copy(source, target, *words) == 0
    if not wrong:
        assert seen(target) == seen(source)
    return wrong


@COPIES
def test_a_copy_beside_a_writer_shows_nothing_that_is_gone(tmp_path: Path, copy: Copy) -> None:
    assert copied_beside_a_writer(tmp_path, copy, *options()) == []


def test_a_copy_beside_a_writer_that_deletes_nothing_is_caught(tmp_path: Path) -> None:
    assert copied_beside_a_writer(tmp_path, by_hand, "-a")

"""`make demo`: a dataset is made, extracted, extracted again, verified and read, by the commands a user would type.

At the end a table says what each step took. The clips are drawn and the weights random, so the features mean
nothing; the steps are those of real data.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from featurestore import FeatureKey, FeatureStore

DEMO = Path("demo")
KEY = "mer2023/frame/ViT-S-32.none/emotion_peak/8"
BIN = Path(sys.executable).parent


def step(title: str, *command: str) -> tuple[float, str]:
    """Run one of our commands as typed; (seconds, stdout)."""
    print(f"\n{title}\n  $ {shlex.join(command)}", flush=True)
    start = time.perf_counter()
    done = subprocess.run([str(BIN / command[0]), *command[1:]], stdout=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        print(done.stdout)
        sys.exit(f"{shlex.join(command)} ended with exit code {done.returncode}")
    return seconds, done.stdout


def microseconds(read: Callable[[str], Any], ids: list[str], rounds: int = 1) -> float:
    """Median time of reading one sample."""
    times = []
    for _ in range(rounds):
        for id in ids:
            start = time.perf_counter()
            read(id)
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def reading() -> tuple[list[tuple[str, str]], str]:
    """(rows of the table, hit rate) of reading the stored features next to the same features as .npy files."""
    key = FeatureKey.parse(KEY)
    store = FeatureStore(DEMO / "features")
    ids = store.ids(key)
    folder = DEMO / "npy"
    folder.mkdir()
    for id, values in zip(ids, FeatureStore(DEMO / "features").get_many(key, ids), strict=True):
        np.save(folder / f"{id}.npy", values)
    first = microseconds(lambda id: store.get(key, id), ids)
    later = microseconds(lambda id: store.get(key, id), ids, rounds=200)
    npy = microseconds(lambda id: np.load(folder / f"{id}.npy"), ids, rounds=200)
    for id in ids:
        np.testing.assert_array_equal(store.get(key, id), np.load(folder / f"{id}.npy"))
    stats = store.stats
    hits = stats.memory_hits + stats.disk_hits
    rows = [
        ("np.load of one file per sample", f"{npy:9.1f} us"),
        ("store, first read of a sample (checksum verified)", f"{first:9.1f} us   {npy / first:4.1f}x"),
        ("store, later reads", f"{later:9.1f} us   {npy / later:4.1f}x"),
    ]
    return rows, f"{hits} of {hits + stats.misses} ({100 * hits / (hits + stats.misses):.0f} %)"


def main() -> None:
    os.chdir(Path(__file__).resolve().parents[1])
    if DEMO.exists():
        shutil.rmtree(DEMO)
    manifest, store = str(DEMO / "manifest.csv"), str(DEMO / "features")
    where = ("--manifest", manifest, "--store", store)

    made, _ = step("1. A small dataset: drawn faces, MER-Factory files, a manifest", "fstore", "demo", str(DEMO))
    extract = ("fstore", "extract", KEY, *where, "--weights", "random:0")
    cold, told = step("2. Features of 8 frames around each emotion peak", *extract, "--json")
    summary = json.loads(told)
    warm, told = step("3. The same again: everything is stored already", *extract, "--json")
    again = json.loads(told)
    verify = ("fstore", "verify", KEY, *where, "--full")
    checked, told = step("4. Is every number as it was written, and is anything missing?", *verify)
    print(told.rstrip())
    rows, hit_rate = reading()

    print(f"\n{KEY}: {summary['computed']} clips computed, then {again['stored_before']} of them found stored\n")
    table = [
        ("draw and encode the dataset", f"{made:9.2f} s"),
        ("extract, whole command", f"{cold:9.2f} s"),
        *((f"    {name}", f"{seconds:9.2f} s") for name, seconds in summary["seconds"].items()),
        ("extract again, whole command", f"{warm:9.2f} s"),
        ("verify --full, whole command", f"{checked:9.2f} s"),
        *rows,
        ("hit rate of these reads", f"     {hit_rate}"),
    ]
    width = max(len(name) for name, _ in table)
    for name, value in table:
        print(f"{name:<{width}}  {value}")
    print(f"\nThe dataset and its store are in {DEMO}/; try: .venv/bin/fstore ls --store {store}")


if __name__ == "__main__":
    main()

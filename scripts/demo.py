"""`make demo`: a dataset is made, extracted twice, verified, used and read, by the commands a user would type.

At the end a table says what each step took. The clips are drawn and all weights random, so neither the features
nor the answers mean anything; the steps are those of real data.
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
from featurestore.cli.streams import prepare_streams

DEMO = Path("demo")
KEY = "mer2023/frame/ViT-S-32.none/emotion_peak/8"
BIN = Path(sys.executable).parent


def step(title: str, *command: str) -> tuple[float, str]:
    """Run one of our commands as typed; (seconds, stdout)."""
    print(f"\n{title}\n  $ {shlex.join(command)}", flush=True)
    start = time.perf_counter()
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], stdout=subprocess.PIPE, text=True, errors="backslashreplace", check=False
    )
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


def reading() -> list[tuple[str, str]]:
    """Rows of the table: stored features read one by one, next to the same features as .npy files."""
    key = FeatureKey.parse(KEY)
    start = time.perf_counter()
    store = FeatureStore(DEMO / "features")
    ids = store.ids(key)
    opened = time.perf_counter() - start
    first = microseconds(lambda id: store.get(key, id), ids)
    later = microseconds(lambda id: store.get(key, id), ids, rounds=200)
    stats = store.stats
    hits, asked = stats.memory_hits + stats.disk_hits, stats.memory_hits + stats.disk_hits + stats.misses

    folder = DEMO / "npy"
    folder.mkdir()
    for id in ids:
        np.save(folder / f"{id}.npy", store.get(key, id))
    npy = microseconds(lambda id: np.load(folder / f"{id}.npy"), ids, rounds=200)
    return [
        ("open the store and list its samples", f"{opened * 1e6:9.1f} us"),
        ("first read of a sample, checksum verified", f"{first:9.1f} us   {npy / first:5.1f} x np.load's speed"),
        ("later reads", f"{later:9.1f} us   {npy / later:5.1f} x"),
        ("np.load, one .npy file per sample", f"{npy:9.1f} us"),
        ("hit rate of these reads", f"{100 * hits / asked:9.1f} %    {hits} of {asked}"),
    ]


def main() -> None:
    os.chdir(Path(__file__).resolve().parents[1])
    if DEMO.exists():
        if not (DEMO / "mer2023.yaml").exists():
            sys.exit(f"{DEMO.absolute()} is there and not of an earlier run; move it away")
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
    tiny = DEMO / "tiny"
    step("5. A tiny language model and encoders, with random weights", "affect-infer", "tiny-model", str(tiny))
    infer = [
        *("affect-infer", "run", "--cfg-path", str(DEMO / "mer2023.yaml"), "--dataset", "mer2023"),
        *("--ckpt", str(tiny / "checkpoint.pth"), "--llm", str(tiny / "llm")),
        *("--weights", "ViT-S-32.none=random:0", "--weights", f"HUBERT_LARGE={tiny / 'hubert_large'}"),
        *("--weights", f"CLIP_TEXT={tiny / 'clip_text'}", "--max-new-tokens", "16", "--output", str(DEMO / "output")),
    ]
    half, told = step("6. The hybrid run for five clips: frames stored, the rest live", *infer, "--limit", "5")
    print(told.rstrip())
    rest, told = step("7. The same run, which goes on with the sixth", *infer)
    print(told.rstrip())
    seconds = summary["seconds"]
    table = [
        ("draw and encode the dataset", f"{made:9.2f} s"),
        (f"extract: {summary['computed']} of {summary['asked']} clips computed", f"{cold:9.2f} s"),
        ("    decode, added up over the workers", f"{seconds['decode']:9.2f} s"),
        ("    load torch and the network", f"{seconds['load']:9.2f} s"),
        ("    encode", f"{seconds['encode']:9.2f} s"),
        ("    write, durable", f"{seconds['write']:9.2f} s"),
        (f"extract again: {again['stored_before']} of {again['asked']} found stored", f"{warm:9.2f} s"),
        ("verify --full", f"{checked:9.2f} s"),
        ("inference: 5 clips", f"{half:9.2f} s"),
        ("inference, the other 7", f"{rest:9.2f} s"),
        *reading(),
    ]
    print()
    width = max(len(name) for name, _ in table)
    for name, value in table:
        print(f"{name:<{width}}  {value}")
    print(f"\nThe dataset and its store are in {DEMO}/; try: .venv/bin/fstore ls --store {store}")


if __name__ == "__main__":
    prepare_streams()
    main()

"""What `against.py` has two trees of the project do in turns: one process for each tree, which reads the name of a
measure and answers with what one turn of it took.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from harness import cpu_seconds

from featurestore import Extractor, FeatureKey, Features, FeatureStore, Sample, extract, register_encoder

KEY = FeatureKey("against", "frame", "CLIP_VIT_LARGE", "uniform", 8)
FREE = FeatureKey("against", "frame", "Free", "uniform", 8)
IDS = [f"sample_{i:08d}" for i in range(411)]
extract_all: Any = extract if callable(extract) else extract.extract  # a module of that name in commits before
CLI = "import sys; from featurestore.cli import main; sys.exit(main())"  # what the script `fstore` does

Turn = Callable[[], object]


def filled(root: Path) -> FeatureStore:
    """A store of the size of MER2023's test set."""
    store = FeatureStore(root)
    values = np.random.default_rng(0).standard_normal((len(IDS), 8, 768), dtype=np.float32)
    store.put_many(KEY, IDS, values, recipe={"benchmark": "against"})
    return store


def programs(times: int, *commands: list[str]) -> Turn:
    def turn() -> None:
        for command in commands * times:
            # -P: without it `-c` imports from the folder one is in, and both trees would be the working tree.
            subprocess.run([sys.executable, "-P", *command], stdout=subprocess.DEVNULL, check=True)

    return turn


def start_up(root: Path, much: int) -> Turn:
    """Importing the package, and `fstore --help`."""
    return programs(much, ["-c", "import featurestore"], ["-c", CLI, "--help"])


def first_hit(root: Path, much: int) -> Turn:
    """A process that reads one sample."""
    filled(root)
    hit = f"from featurestore import FeatureStore; FeatureStore({str(root)!r}).get({str(KEY)!r}, {IDS[7]!r})"
    return programs(2 * much, ["-c", hit])


def reads(root: Path, much: int) -> Turn:
    """Single hits, and batches of 64, in an order that changes."""
    store, random = filled(root), np.random.default_rng(0)

    def turn() -> None:
        for _ in range(40 * much):
            order = [IDS[i] for i in random.permutation(len(IDS))]
            for id in order:
                store.get(KEY, id)
            for at in range(0, len(order), 64):
                store.get_many(KEY, order[at : at + 64])

    return turn


def loader(root: Path, much: int) -> Turn:
    """Shuffled epochs of the loader for training."""
    from featurestore.torch import FeatureDataset
    from featurestore.torch import loader as batches_of

    batches = batches_of(FeatureDataset(filled(root), KEY), 64, shuffle=True)

    def turn() -> None:
        for _ in range(40 * much):
            for _ in batches:
                pass

    return turn


def writes(root: Path, much: int) -> Turn:
    """Commits of 64 samples into a new store, and a read of what they come to."""
    values = np.random.default_rng(0).standard_normal((len(IDS), 8, 768), dtype=np.float32)
    number = count()

    def turn() -> None:
        for _ in range(2 * much):
            store = FeatureStore(root / str(next(number)))
            for at in range(0, len(IDS), 64):
                store.put_many(KEY, IDS[at : at + 64], values[at : at + 64], recipe={"benchmark": "against"})
            assert len(store.ids(KEY)) == len(IDS)

    return turn


class Ready:
    """A compute that has its features already: what is measured is all that is around it."""

    def __init__(self) -> None:
        self.values = np.random.default_rng(0).standard_normal((8, 768), dtype=np.float32)

    def recipe(self, key: FeatureKey) -> dict[str, str]:
        return {"benchmark": "against"}

    def __call__(self, key: FeatureKey, ids: Iterable[str]) -> Iterator[tuple[str, Features]]:
        for id in ids:
            source = {"path": f"/data/{id}.mp4", "size": 1 << 20, "mtime_ns": 1 << 60, "sha256": "0" * 64}
            provenance = {"sources": [{**source, "column": "video"}], "note": {"peak": 7}}
            yield id, Features(self.values, np.arange(8), np.arange(8) / 25, provenance)


def misses(root: Path, much: int) -> Turn:
    """Samples one by one that a store does not have, with a compute that costs nothing."""
    compute, number = Ready(), count()

    def turn() -> None:
        store = FeatureStore(root / str(next(number)), compute=compute)
        for id in IDS[: 40 * much]:
            store.get(KEY, id)

    return turn


def extract(root: Path, much: int) -> Turn:
    """Clips of one second with an encoder that costs nothing: decoding, and all that is around it."""
    from clips import write_clips

    paths = write_clips(root / "clips", 2 * much, 1.0, different=1)
    register_encoder("Free", "encoders:Free")
    extractor = Extractor({FREE.dataset: {path.stem: Sample(path.stem, video=path) for path in paths}}, workers=1)
    number = count()

    def turn() -> None:
        store = FeatureStore(root / f"store{next(number)}", compute=extractor)
        assert extract_all(store, FREE, [path.stem for path in paths]).computed == len(paths)

    return turn


# Each is (its folder, how much to do) -> one turn.
MEASURES: dict[str, Callable[[Path, int], Turn]] = {
    "start-up": start_up,
    "first-hit": first_hit,
    "reads": reads,
    "loader": loader,
    "writes": writes,
    "misses": misses,
    "extract": extract,
}


def main() -> None:
    import featurestore

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="the tree that is measured")
    parser.add_argument("work", type=Path, help="where to make files")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    assert Path(featurestore.__file__).is_relative_to(chosen.source), f"{featurestore.__file__} is measured"
    turns: dict[str, Turn] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in turns:
            turns[name] = MEASURES[name](chosen.work / name, 1 if chosen.quick else 5)
        cpu, wall = cpu_seconds(), time.perf_counter()
        turns[name]()
        print(json.dumps([cpu_seconds() - cpu, time.perf_counter() - wall]), flush=True)


if __name__ == "__main__":
    main()

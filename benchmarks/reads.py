"""Reads of single samples and batches, first and later, warm, beside what a user would pick instead.

    python benchmarks/reads.py [--samples 2000] [--rounds 7]          about 3 minutes

A sample is (8, 768) float32, 24 KB, in random order.  Ratios are within one run; "times memcpy" is
against copying the same rows out of one array in memory.
Does not show: network file systems, a busy disk, other row sizes.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import zarr
from harness import interleaved, save, spread, table

from featurestore import FeatureKey, FeatureStore

KEY = FeatureKey("bench", "frame", "CLIP_VIT_LARGE", "uniform", 8)
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dir", type=Path, default=None)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="reads-", dir=arguments.dir))
    try:
        bench = Bench(root, arguments.samples)
        result = {"samples": arguments.samples, "rounds": arguments.rounds, **bench.run(arguments.rounds)}
    finally:
        shutil.rmtree(root)
    save("reads", result)
    for name in ("point", "batch", "cold"):
        print(table(result[name]), end="\n\n")


class Bench:
    """The same rows in every format, and one function per way to read all of them in one random order."""

    def __init__(self, root: Path, n: int) -> None:
        self.root = root
        self.n = n
        self.values = np.random.default_rng(0).standard_normal((n, 8, 768), dtype=np.float32)
        self.ids = [f"sample_{i:08d}" for i in range(n)]
        self.order = list(range(n))
        random.Random(0).shuffle(self.order)
        self.batches = [self.order[at : at + BATCH] for at in range(0, n - BATCH + 1, BATCH)]
        FeatureStore(root / "ours").put_many(KEY, self.ids, self.values, recipe={"benchmark": "reads"})
        (root / "npy").mkdir()
        for id, row in zip(self.ids, self.values, strict=True):
            np.save(root / "npy" / f"{id}.npy", row)
        self.zarr = zarr.create_array(
            root / "zarr", shape=self.values.shape, chunks=(1, 8, 768), dtype="float32", compressors=None
        )
        self.zarr[:] = self.values
        self.lmdb = lmdb.open(str(root / "lmdb"), map_size=self.values.nbytes * 2 + (64 << 20))
        with self.lmdb.begin(write=True) as transaction:
            for id, row in zip(self.ids, self.values, strict=True):
                transaction.put(id.encode(), row.tobytes())
        self.transaction = self.lmdb.begin()
        self.store = FeatureStore(root / "ours")
        self.later()

    def run(self, rounds: int) -> dict[str, Any]:
        few = self.order[: max(1, self.n // 10)]
        point = {
            "memcpy": self.memcpy,
            "featurestore, later reads": self.later,
            "featurestore, first reads": self.first,
            "np.load": self.np_load,
            "LMDB": self.lmdb_get,
            "zarr-python": lambda: [self.zarr[i] for i in few],
        }
        counts = {name: len(few) if name == "zarr-python" else self.n for name in point}
        batch = {
            "np.take": lambda: [np.take(self.values, rows, axis=0) for rows in self.batches],
            "featurestore, later reads": self.later_batches,
            "featurestore, first reads": self.first_batches,
            "np.load + np.stack": lambda: [np.stack([self.load(i) for i in rows]) for rows in self.batches],
            "LMDB": lambda: [np.stack([self.lmdb_row(i) for i in rows]) for rows in self.batches],
            "zarr-python": lambda: [self.zarr.oindex[rows] for rows in self.batches[:3]],
        }
        batches = {name: 3 if name == "zarr-python" else len(self.batches) for name in batch}
        return {
            "point": rows_of(interleaved(point, rounds), counts, "memcpy"),
            "batch": rows_of(interleaved(batch, rounds), batches, "np.take"),
            "cold": rows_of(self.cold(rounds), {"featurestore": len(few), "np.load": len(few)}, "np.load"),
        }

    def memcpy(self) -> None:
        for i in self.order:
            self.values[i].copy()

    def later(self) -> None:
        for i in self.order:
            self.store.get(KEY, self.ids[i])

    def first(self) -> None:
        # A new object has checked nothing yet; opening it is the price of its first read only.
        store = FeatureStore(self.root / "ours")
        for i in self.order:
            store.get(KEY, self.ids[i])

    def load(self, i: int) -> np.ndarray:
        return np.load(self.root / "npy" / f"{self.ids[i]}.npy")

    def np_load(self) -> None:
        for i in self.order:
            self.load(i)

    def lmdb_row(self, i: int) -> np.ndarray:
        raw = self.transaction.get(self.ids[i].encode())
        return np.frombuffer(raw, np.float32).reshape(8, 768).copy()

    def lmdb_get(self) -> None:
        for i in self.order:
            self.lmdb_row(i)

    def later_batches(self) -> None:
        for rows in self.batches:
            self.store.get_many(KEY, [self.ids[i] for i in rows])

    def first_batches(self) -> None:
        store = FeatureStore(self.root / "ours")
        for rows in self.batches:
            store.get_many(KEY, [self.ids[i] for i in rows])

    def cold(self, rounds: int) -> dict[str, list[float]]:
        """With the files' pages dropped from the page cache before each round."""
        few = self.order[: max(1, self.n // 10)]

        def dropped(folder: str, call: Callable[[], Any]) -> Callable[[], Any]:
            for path in (self.root / folder).rglob("*"):
                if path.is_file():
                    fd = os.open(path, os.O_RDONLY)
                    os.fsync(fd)
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                    os.close(fd)
            return call

        def ours() -> None:
            store = FeatureStore(self.root / "ours")
            for i in few:
                store.get(KEY, self.ids[i])

        def npy() -> None:
            for i in few:
                self.load(i)

        taken: dict[str, list[float]] = {"np.load": [], "featurestore": []}
        for _ in range(rounds):
            for name, folder, call in (("np.load", "npy", npy), ("featurestore", "ours", ours)):
                taken[name] += interleaved({name: dropped(folder, call)}, 1)[name]
        return taken


def rows_of(taken: dict[str, list[float]], counts: dict[str, int], unit: str) -> list[dict[str, Any]]:
    """Microseconds per read, and the ratio of the least to the rival's least."""
    least = min(taken[unit]) / counts[unit]
    return [
        {
            "read": name,
            **{f"{key} us": value for key, value in spread([t / counts[name] for t in times], 1e6).items()},
            f"times {unit}": round(min(times) / counts[name] / least, 3),
        }
        for name, times in taken.items()
    ]


if __name__ == "__main__":
    main()

"""Durable writes: bulk and one row at a time, against zarr-python, .npy + fsync and LMDB.

    python benchmarks/writes.py [--samples 2048] [--rounds 5]         about 2 minutes

Does not show: slower disks (fsync decides), other row sizes, concurrent writers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import lmdb
import numpy as np
import zarr
from harness import interleaved, save, seconds, spread, table

from featurestore import FeatureKey, FeatureStore

KEY = FeatureKey("bench", "frame", "CLIP_VIT_LARGE", "uniform", 8)
RECIPE = {"benchmark": "writes"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=None)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="writes-", dir=arguments.dir))
    try:
        result = run(root, arguments.samples, arguments.rounds)
    finally:
        shutil.rmtree(root)
    save("writes", result)
    print(table(result["bulk"] + result["single"]))


def run(root: Path, n: int, rounds: int) -> dict[str, object]:
    values = np.random.default_rng(0).standard_normal((n, 8, 768), dtype=np.float32)
    ids = [f"sample_{i:08d}" for i in range(n)]
    fresh = iter(range(10**6))

    def ours() -> None:
        FeatureStore(root / f"s{next(fresh)}").put_many(KEY, ids, values, recipe=RECIPE)

    def npy() -> None:
        folder = root / f"n{next(fresh)}"
        folder.mkdir()
        for id, row in zip(ids, values, strict=True):
            with open(folder / f"{id}.npy", "wb") as file:
                np.save(file, row)
                file.flush()
                os.fsync(file.fileno())

    def zarr_rows() -> None:
        array = zarr.create_array(
            root / f"z{next(fresh)}", shape=values.shape, chunks=(1, 8, 768), dtype="float32", compressors=None
        )
        for i, row in enumerate(values):
            array[i] = row
        os.sync()

    def zarr_bulk() -> None:
        array = zarr.create_array(
            root / f"z{next(fresh)}", shape=values.shape, chunks=(1, 8, 768), dtype="float32", compressors=None
        )
        array[:] = values
        os.sync()

    def lmdb_bulk() -> None:
        env = lmdb.open(str(root / f"l{next(fresh)}"), map_size=values.nbytes * 2 + (64 << 20))
        with env.begin(write=True) as transaction:
            for id, row in zip(ids, values, strict=True):
                transaction.put(id.encode(), row.tobytes())
        env.close()

    def floor() -> None:
        with open(root / f"f{next(fresh)}", "wb") as file:
            file.write(values.data)
            file.flush()
            os.fsync(file.fileno())

    taken = interleaved(
        {
            "featurestore": ours,
            "one file, write + fsync": floor,
            "zarr-python, array[:]": zarr_bulk,
            "zarr-python, row by row": zarr_rows,
            "np.save + fsync per sample": npy,
            "LMDB, one transaction": lmdb_bulk,
        },
        rounds,
    )
    least = min(taken["featurestore"])
    bulk = [
        {
            "write": name,
            "samples": n,
            "ms": spread(times, 1e3)["median"],
            "MB/s": round(values.nbytes / 1e6 / sorted(times)[len(times) // 2]),
            "times ours": round(min(times) / least, 2),
        }
        for name, times in taken.items()
    ]
    return {"bulk": bulk, "single": single(root, values, rounds)}


def single(root: Path, values: np.ndarray, rounds: int) -> list[dict[str, object]]:
    """One row per commit, beside the bare fsyncs that its promise needs."""
    store = FeatureStore(root / "single")
    store.put_many(KEY, ["first"], values[:1], recipe=RECIPE)
    bare = root / "bare"
    bare.mkdir()
    commits, fsyncs = [], []
    for i in range(40 * rounds):
        commits.append(seconds(lambda i=i: store.put_many(KEY, [f"one_{i}"], values[i : i + 1], recipe=RECIPE)))
        fsyncs.append(seconds(lambda i=i: bare_commit(bare / f"{i}", values[i])))
    return [
        {"write": "one row, featurestore", "samples": 1, "ms": spread(commits, 1e3)["median"], "MB/s": ""},
        {"write": "one row, its bare system calls", "samples": 1, "ms": spread(fsyncs, 1e3)["median"], "MB/s": ""},
    ]


def bare_commit(folder: Path, row: np.ndarray) -> None:
    """Three files, five fsyncs and one rename, and nothing else."""
    staging = folder.with_suffix(".tmp")
    os.mkdir(staging)
    for name, size in (("c.0.0.0", row.nbytes + 24), ("rows", 200), ("zarr.json", 1600)):
        fd = os.open(staging / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, bytes(size))
        os.fsync(fd)
        os.close(fd)
    for path, before in ((staging, True), (folder.parent, False)):
        if not before:
            os.rename(staging, folder)
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


if __name__ == "__main__":
    main()

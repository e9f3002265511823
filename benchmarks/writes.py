"""Durable writes: bulk and one row at a time, against zarr-python, .npy + fsync and LMDB.

    python benchmarks/writes.py [--samples 1024] [--rounds 5] [--quick]         about 1 minute

Every way ends with the bytes on the disk.  A store's first bulk write also makes its directories.
Does not show: slower disks (fsync decides), other row sizes, concurrent writers.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
from pathlib import Path

import google_crc32c
import lmdb
import numpy as np
import zarr
from harness import interleaved, options, save, scratch, seconds, spread, table

from featurestore import FeatureKey, FeatureStore

KEY = FeatureKey("bench", "frame", "CLIP_VIT_LARGE", "uniform", 8)
RECIPE = {"benchmark": "writes"}


def main() -> None:
    chosen = options(__doc__, samples=(1024, 256), rounds=(5, 2))
    with scratch(chosen.dir) as root:
        result = run(root, chosen.samples, chosen.rounds)
    save("writes", result)
    for name in ("bulk", "parts", "single"):
        print(table(result[name]), end="\n\n")


def run(root: Path, n: int, rounds: int) -> dict[str, list[dict[str, object]]]:
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
        after=lambda: [shutil.rmtree(path) if path.is_dir() else path.unlink() for path in root.iterdir()],
    )
    least = min(taken["featurestore"])
    bulk = [
        {
            "write": name,
            "samples": n,
            **{f"{key} ms": value for key, value in spread(times, 1e3).items()},
            "MB/s": round(values.nbytes / 1e6 / sorted(times)[len(times) // 2]),
            "times ours": round(min(times) / least, 3),
        }
        for name, times in taken.items()
    ]
    return {"bulk": bulk, "parts": parts(root, values, rounds), "single": single(root, values, rounds)}


def parts(root: Path, values: np.ndarray, rounds: int) -> list[dict[str, object]]:
    """What a bulk write consists of, each part alone; the digest runs beside the writing."""
    rows = [row.tobytes() for row in values]

    def write() -> None:
        with open(root / "part", "wb") as file:
            file.write(values.data)
            file.flush()
            os.fsync(file.fileno())

    taken = interleaved(
        {
            "write and fsync": write,
            "blake2b of the file": lambda: hashlib.blake2b(values).digest(),
            "crc32c of each row": lambda: [google_crc32c.value(row) for row in rows],
            "values are finite": lambda: [np.isfinite(row).all() for row in values],
            "copies into blocks": lambda: np.stack(list(values)).copy(),
        },
        rounds,
    )
    return [
        {"part": name, "ms": round(min(times) * 1e3, 2), "MB/s": round(values.nbytes / 1e6 / min(times))}
        for name, times in taken.items()
    ]


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
    # Medians of ten pairs each: fsync times drift, and pairs drift together.
    ratios = [
        statistics.median(commits[at : at + 10]) / statistics.median(fsyncs[at : at + 10])
        for at in range(0, len(commits), 10)
    ]
    return [
        {"write": "one row, featurestore", **_ms(commits), "times bare": round(statistics.median(ratios), 3)},
        {"write": "one row, its bare system calls", **_ms(fsyncs), "times bare": 1.0},
    ]


def _ms(times: list[float]) -> dict[str, float]:
    return {f"{key} ms": value for key, value in spread(times, 1e3).items()}


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

"""Reads of samples, batches and whole sets, first and later, warm and cold, beside what a user would pick instead.

    python benchmarks/reads.py [--samples 20000] [--few 411] [--rounds 20] [--quick]       about 6 minutes, 8 GB of disk

A sample is (8, 768): 24 KB in float32, 12 KB in float16.  All formats hold the same rows, are asked for them in one
random order, and must give the same numbers.  Times are microseconds per sample, also for batches.  Rivals take turns
within each round, and ratios are between the least times of one run.  Opening is not in them (`scale.py` has it).
"first" is the first time that a row is read in a process: its checksum is verified then.  "cold" is with the contents
of all files dropped from the page cache before each round, so each row is read for the first time as well.
Does not show: network file systems, a busy disk, other row sizes, several readers at once.
"""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from formats import KEY, RIVALS, ROW, Format, Memmap, Npy, Ours
from harness import dropped, options, save, scratch, seconds, spread, table

BATCHES = (32, 64, 256)
# What one rival reads in a round takes about this long: less than the scheduler lets a program run at a time, so
# that on a busy machine some rounds are undisturbed.
ROUND_S = 0.002
SCAN_ROUND_S = 0.02
WARM_UP_S = 3.0
COLD = 200  # samples read in a cold round
COLD_ROUNDS = 3


def main() -> None:
    chosen = options(__doc__, samples=(20_000, 411), few=(411, 411), rounds=(20, 1))
    rows: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    start = time.perf_counter()
    for n in dict.fromkeys((chosen.few, chosen.samples)):
        for dtype in (np.float32, np.float16):
            with scratch(chosen.dir) as root:
                print(f"{n:,} samples, {np.dtype(dtype).name}: ", end="", flush=True)
                bench = Bench(root, n, dtype, chosen.rounds)
                parts = [bench.warm, bench.cold]
                if n == chosen.samples and dtype is np.float32:
                    parts.append(bench.loaders)
                for part in parts:
                    rows += part()
                skipped |= bench.skipped
                print(f"done after {time.perf_counter() - start:.0f} s", flush=True)
    save("reads", {"rounds": chosen.rounds, "rows": rows, "skipped": skipped})
    print(table([row for row in rows if row["samples"] == chosen.samples and row["dtype"] == "float32"]))
    for name, why in skipped.items():
        print(f"skipped: {name}: {why}")


class Memory:
    """The limit: rows copied out of an array in memory."""

    name = "memcpy from RAM"

    def __init__(self, values: Any) -> None:
        self.values = values

    def one(self, i: int) -> Any:
        return self.values[i].copy()

    def many(self, rows: Sequence[int]) -> Any:
        out = np.empty((len(rows), *ROW), self.values.dtype)
        for slot, i in enumerate(rows):
            out[slot] = self.values[i]
        return out


class Take(Memory):
    name = "np.take from RAM"

    def many(self, rows: Sequence[int]) -> Any:
        return np.take(self.values, rows, axis=0)


class OneRead(Memmap):
    """Where files are cold: one read of an open file per sample, those of a batch announced beforehand."""

    name = "one bare read per sample"

    def open(self) -> None:
        self.file = open(self.path / "all.npy", "rb", buffering=0)
        self.size = ROW[0] * ROW[1] * np.dtype(self.dtype).itemsize
        self.start = os.fstat(self.file.fileno()).st_size - self.n * self.size

    def one(self, i: int) -> Any:
        out = np.empty(ROW, self.dtype)
        os.preadv(self.file.fileno(), [out], self.start + i * self.size)
        return out

    def many(self, rows: Sequence[int]) -> Any:
        for i in rows:
            os.posix_fadvise(self.file.fileno(), self.start + i * self.size, self.size, os.POSIX_FADV_WILLNEED)
        return [self.one(i) for i in rows]


class Bench:
    """Every format with the same rows, and each way to read them."""

    def __init__(self, root: Path, n: int, dtype: Any, rounds: int) -> None:
        self.root, self.n, self.dtype, self.rounds = root, n, dtype, rounds
        self.values = np.random.default_rng(0).standard_normal((n, *ROW), dtype=np.float32).astype(dtype)
        self.order = random.Random(0).sample(range(n), n)
        self.skipped: dict[str, str] = {}
        self.formats: dict[str, Any] = {each.name: each for each in map(self.made, [Ours, *RIVALS]) if each is not None}
        os.sync()  # nothing is written back while reads are measured
        for each in self.formats.values():
            self.read_once(each)

    def made(self, kind: type[Format]) -> Format | None:
        path = self.root / kind.folder
        try:
            if not path.exists():
                path.mkdir()
                kind.write(path, self.values)
            opened = kind(path, self.n, self.dtype)
            some = self.order[:5]
            assert np.array_equal(opened.one(some[0]), self.values[some[0]])
            assert np.array_equal(opened.many(some), self.values[some])
        except ImportError as error:
            self.skipped[kind.name] = f"{error.name} is not installed"
            return None
        return opened

    def read_once(self, reader: Format) -> None:
        """All rows, so that maps are filled in and our rows are checked; not to the end where it takes long."""
        end = time.perf_counter() + WARM_UP_S
        for start in range(0, self.n, 256):
            reader.many(range(start, min(start + 256, self.n)))
            if time.perf_counter() > end and not isinstance(reader, Ours):
                break

    def opened_anew(self, kind: type[Format]) -> Format:
        return kind(self.root / kind.folder, self.n, self.dtype)

    def warm(self) -> list[dict[str, Any]]:
        memory, take = Memory(self.values), Take(self.values)
        point: dict[str, Any] = {memory.name: memory, **self.formats}
        rows = self.measure("point", point, 1)
        for size in BATCHES:
            rows += self.measure(f"batch {size}", {**point, take.name: take}, size)
        return rows + self.measure("scan", point, min(256, self.n), in_order=True)

    def measure(self, access: str, readers: dict[str, Any], size: int, in_order: bool = False) -> list[dict[str, Any]]:
        """One row for each reader: times of reading as much as fits into a round, each round at other places."""
        order = list(range(self.n)) if in_order else self.order
        budget = SCAN_ROUND_S if in_order else ROUND_S
        parts = {name: Batches(order, size) for name in readers}
        counts = {}
        for name, reader in readers.items():
            one = min(seconds(lambda r=reader, b=parts[name]: read(r, b.take(1))) for _ in range(3))
            counts[name] = max(1, min(int(budget / one), self.n // size))
        taken: dict[str, list[float]] = {name: [] for name in [*readers, f"{Ours.name}, first reads"]}
        for _ in range(self.rounds):
            for name, reader in readers.items():
                wanted = parts[name].take(counts[name])
                taken[name].append(timed(reader, wanted))
                if name == Ours.name:
                    # Rows are checked once per object: a new one has checked none.
                    taken[f"{name}, first reads"].append(timed(self.opened_anew(Ours), wanted))
        return self.rows_of(access, "warm", taken)

    def cold(self) -> list[dict[str, Any]]:
        """Each format opened anew with the contents of its files out of the page cache."""
        rows = []
        kinds = [OneRead, *(type(each) for each in self.formats.values())]
        self.formats.clear()
        for access, size in (("point", 1), ("batch 64", 64), ("scan", min(256, self.n))):
            parts = Batches(list(range(self.n)) if access == "scan" else self.order, size)
            taken: dict[str, list[float]] = {kind.name: [] for kind in kinds}
            for _ in range(min(self.rounds, COLD_ROUNDS)):
                wanted = parts.take(max(1, min(COLD, self.n) // size))
                for kind in kinds:
                    gc.collect()  # what is still mapped could not be dropped
                    dropped(self.root / kind.folder)
                    taken[kind.name].append(timed(self.opened_anew(kind), wanted))
            rows += self.rows_of(access, "cold", taken)
        return rows

    def loaders(self) -> list[dict[str, Any]]:
        """Whole shuffled epochs in batches of 64, workers started before the clock."""
        from torch.utils.data import DataLoader, Dataset

        from featurestore import FeatureStore
        from featurestore.torch import FeatureDataset, loader

        class Files(Dataset[Any]):
            """What people write today: np.load in __getitem__."""

            def __init__(self, files: Npy) -> None:
                self.files = files

            def __len__(self) -> int:
                return self.files.n

            def __getitem__(self, index: int) -> Any:
                import torch

                return torch.from_numpy(self.files.one(index))

        dataset = FeatureDataset(FeatureStore(self.root / Ours.folder), KEY)
        files = Files(self.opened_anew(Npy))  # type: ignore[arg-type]
        epochs: dict[str, Any] = {f"{Ours.name}, own loader": loader(dataset, 64, shuffle=True)}
        for workers in (0, 2):
            own: Any = {"batch_size": 64, "shuffle": True, "num_workers": workers, "persistent_workers": workers > 0}
            epochs[f"{Ours.name}, DataLoader, {workers} workers"] = DataLoader(
                dataset, collate_fn=dataset.collate, **own
            )
            epochs[f"{Npy.name}, DataLoader, {workers} workers"] = DataLoader(files, **own)

        def epoch(batches: Any) -> None:
            for _ in batches:
                pass

        taken: dict[str, list[float]] = {name: [] for name in epochs}
        for number in range(min(self.rounds, 5) + 1):
            for name, batches in epochs.items():
                took = seconds(lambda b=batches: epoch(b)) / self.n
                if number:  # the first starts workers and checks rows
                    taken[name].append(took)
        return self.rows_of("epoch", "warm", taken)

    def rows_of(self, access: str, cache: str, taken: dict[str, list[float]]) -> list[dict[str, Any]]:
        limit = min(taken[Memory.name]) if Memory.name in taken else None
        return [
            {
                "samples": self.n,
                "dtype": np.dtype(self.dtype).name,
                "access": access,
                "cache": cache,
                "read": name,
                **{f"{key} us": value for key, value in spread(times, 1e6).items()},
                **({} if limit is None else {"times memcpy": round(min(times) / limit, 3)}),
            }
            for name, times in taken.items()
        ]


class Batches:
    """Batches of one order, over and over."""

    def __init__(self, order: Sequence[int], size: int) -> None:
        self.parts = [list(order[at : at + size]) for at in range(0, len(order) - size + 1, size)]
        self.at: Iterator[int] = iter(())

    def take(self, count: int) -> list[list[int]]:
        taken = []
        for _ in range(count):
            number = next(self.at, None)
            if number is None:
                self.at = iter(range(len(self.parts)))
                number = next(self.at)
            taken.append(self.parts[number])
        return taken


def read(reader: Any, wanted: list[list[int]]) -> None:
    """Single samples one by one, batches together."""
    if len(wanted[0]) == 1:
        one: Callable[[int], Any] = reader.one
        for (i,) in wanted:
            one(i)
    else:
        many: Callable[[Sequence[int]], Any] = reader.many
        for rows in wanted:
            many(rows)


def timed(reader: Any, wanted: list[list[int]]) -> float:
    """Seconds per sample."""
    return seconds(lambda: read(reader, wanted)) / (len(wanted) * len(wanted[0]))


if __name__ == "__main__":
    main()

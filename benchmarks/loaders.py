"""Training batches: shuffled epochs through each format's own loader, in process.

    python benchmarks/loaders.py [--samples 20000] [--rounds 5] [--quick]           about 6 minutes, 8 GB of disk

A sample is (8, 768) float32; batches of 64 come as tensors, in a new order each epoch, with no worker processes, so
that nothing but the format and its loader is in the time.  Later epochs: the first one is not counted.  A format
without a loader of its own goes through a DataLoader whose sampler hands it the rows of a whole batch, which is the
fastest way that PyTorch has.  Every epoch must give every sample once, which a sum over each batch shows.

Packages that are no dependencies of the project are put beside it: `pip install --target DIR litdata pylance
webdataset`, run with `PYTHONPATH=DIR`.  With NEWEST_ZARR_PYTHON=PATH, an interpreter with the newest zarr-python, that
one reads our segment in batches of 64 too, in a process of its own, beside our reader.  What is not there is left out
and named.  Does not show: several workers, cold files, the network, which LitData, Lance and webdataset are made for.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from formats import KEY, RIVALS, ROW, Format, Ours, Shard
from harness import options, save, scratch, seconds, table
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from featurestore import FeatureStore
from featurestore.torch import FeatureDataset, loader

BATCH = 64
PATIENCE_S = 10.0  # that is spent on one loader, in one epoch at least
ANY = "any order"
Epoch = Callable[[], Iterator[torch.Tensor]]


class Rows(Dataset[torch.Tensor]):
    """Whole batches of a format, by their rows."""

    def __init__(self, opened: Format) -> None:
        self.opened = opened

    def __len__(self) -> int:
        return self.opened.n

    def __getitem__(self, rows: Any) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.opened.many(rows)))


def by_rows(opened: Format) -> Epoch:
    dataset = Rows(opened)
    batches = BatchSampler(RandomSampler(dataset), BATCH, drop_last=False)
    return lambda: iter(DataLoader(dataset, batch_size=None, sampler=batches))


def by_own_loader(path: Path) -> Epoch:
    batches = loader(FeatureDataset(FeatureStore(path), KEY), BATCH, shuffle=True)
    return lambda: (batch.features for batch in batches)


class Own:
    """A format that brings its loader."""

    name: ClassVar[str]
    package: ClassVar[str]
    order: ClassVar[str] = ANY

    @staticmethod
    def write(path: Path, values: Any) -> None:
        """Make the files in an empty folder."""
        raise NotImplementedError

    @staticmethod
    def epochs(path: Path, n: int) -> Epoch:
        """What gives the batches of one epoch."""
        raise NotImplementedError


class LitData(Own):
    name, package = "LitData", "litdata"

    @staticmethod
    def write(path: Path, values: Any) -> None:
        from litdata.streaming import Cache

        cache = Cache(str(path), chunk_bytes="64MB")
        for number, row in enumerate(values):
            cache[number] = torch.from_numpy(row)
        cache.done()
        cache.merge()

    @staticmethod
    def epochs(path: Path, n: int) -> Epoch:
        from litdata import StreamingDataLoader, StreamingDataset

        batches = StreamingDataLoader(StreamingDataset(str(path), shuffle=True), batch_size=BATCH)
        return lambda: iter(batches)


class LanceTake(Own):
    name, package = "Lance, rows taken", "lance"

    @staticmethod
    def write(path: Path, values: Any) -> None:
        import lance
        import pyarrow as pa

        flat = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), ROW[0] * ROW[1])
        lance.write_dataset(pa.table({"rows": flat}), str(path / "rows.lance"))

    @staticmethod
    def epochs(path: Path, n: int) -> Epoch:
        import lance

        opened = lance.dataset(str(path / "rows.lance"))

        class Taken(Dataset[torch.Tensor]):
            def __len__(self) -> int:
                return n

            def __getitem__(self, rows: Any) -> torch.Tensor:
                column = opened.take(rows, columns=["rows"]).column(0).combine_chunks()
                return torch.from_numpy(column.flatten().to_numpy().reshape(-1, *ROW).copy())

        taken = Taken()
        batches = BatchSampler(RandomSampler(taken), BATCH, drop_last=False)
        return lambda: iter(DataLoader(taken, batch_size=None, sampler=batches))


class LanceDataset(LanceTake):
    name, order = "Lance, LanceDataset", "batches of neighbours, in any order"

    @staticmethod
    def epochs(path: Path, n: int) -> Epoch:
        from lance.sampler import ShardedBatchSampler
        from lance.torch.data import LanceDataset as Batches

        def batches() -> Iterator[torch.Tensor]:
            sampler = ShardedBatchSampler(0, 1, randomize=True)
            for batch in Batches(str(path / "rows.lance"), BATCH, columns=["rows"], sampler=sampler):
                yield (batch["rows"] if isinstance(batch, dict) else batch).reshape(-1, *ROW)

        return batches


class WebDataset(Own):
    name, package, order = "webdataset", "webdataset", "shards, and 1,000 samples at a time, in any order"

    @staticmethod
    def write(path: Path, values: Any) -> None:
        import webdataset as wds

        with wds.ShardWriter(str(path / "%05d.tar"), maxcount=1000, verbose=0) as shards:
            for number, row in enumerate(values):
                shards.write({"__key__": f"sample_{number:08d}", "npy": row})

    @staticmethod
    def epochs(path: Path, n: int) -> Epoch:
        import webdataset as wds

        tars = sorted(map(str, path.glob("*.tar")))
        opened = wds.WebDataset(tars, shardshuffle=len(tars)).shuffle(1000).decode().to_tuple("npy")
        batches = wds.WebLoader(opened.batched(BATCH), batch_size=None, num_workers=0)
        return lambda: (torch.as_tensor(values) for (values,) in batches)


class HuggingFace(Own):
    name, package = "Hugging Face datasets, with_format('torch')", "datasets"

    @staticmethod
    def write(path: Path, values: Any) -> None:
        """As reads.py has it: the same files."""

    @staticmethod
    def epochs(path: Path, n: int) -> Epoch:
        import datasets

        rows: Any = datasets.load_from_disk(str(path.with_name("datasets"))).with_format("torch")
        return lambda: (batch["rows"] for batch in DataLoader(rows, BATCH, shuffle=True))


OWN: list[type[Own]] = [LitData, LanceTake, LanceDataset, WebDataset, HuggingFace]


def main() -> None:
    chosen = options(__doc__, samples=(20_000, 411), rounds=(5, 1))
    values = np.random.default_rng(0).standard_normal((chosen.samples, *ROW), dtype=np.float32)
    with scratch(chosen.dir) as root:
        epochs, orders, skipped = made(root, values)
        sums = np.sort(values.sum((1, 2), dtype=np.float64))
        taken: dict[str, list[float]] = {name: [] for name in epochs}
        for number in range(chosen.rounds + 1):
            for name, epoch in epochs.items():
                if not number:
                    check(name, epoch, sums)
                elif sum(taken[name]) * len(values) < PATIENCE_S:
                    taken[name].append(seconds(lambda e=epoch: drain(e)) / len(values))
        best = statistics.median(taken["featurestore, own loader"])
        rows = [
            {
                "loader": name,
                "order": orders.get(name, ANY),
                "median us": round(statistics.median(times) * 1e6, 2),
                "min us": round(min(times) * 1e6, 2),
                "times ours": round(statistics.median(times) / best, 2),
            }
            for name, times in sorted(taken.items(), key=lambda item: statistics.median(item[1]))
        ]
        newest = newest_zarr(root, values, chosen.rounds)
    save("loaders", {"samples": len(values), "rows": rows, "newest_zarr": newest, "skipped": skipped})
    print(table(rows))
    print(table(newest))
    for name, why in skipped.items():
        print(f"skipped: {name}: {why}")


def made(root: Path, values: Any) -> tuple[dict[str, Epoch], dict[str, str], dict[str, str]]:
    """({name: an epoch}, {name: what its order is}, {name: why it is left out})."""
    epochs: dict[str, Epoch] = {}
    orders: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for kind in (Ours, *RIVALS):
        try:
            if not (path := root / kind.folder).exists():
                path.mkdir()
                kind.write(path, values)
            opened = kind(path, len(values), np.float32)
            opened.many([0])
        except ImportError as error:
            skipped[kind.name] = f"{error.name} is not installed"
            continue
        if kind is Ours:
            epochs["featurestore, own loader"] = by_own_loader(path)
        epochs[f"{kind.name}, DataLoader over batches"] = by_rows(opened)
    for each in OWN:
        path = root / each.name.replace(" ", "_")
        path.mkdir(exist_ok=True)
        try:
            each.write(path, values)
            epochs[each.name] = each.epochs(path, len(values))
        except ImportError as error:
            skipped[each.name] = f"{error.name} is not installed"
        orders[each.name] = each.order
    os.sync()  # nothing is written back while reads are measured
    return epochs, orders, skipped


def drain(epoch: Epoch) -> None:
    for _ in epoch():
        pass


def check(name: str, epoch: Epoch, sums: Any) -> None:
    """Every sample once: a first epoch, in which maps are filled in and our rows are checked."""
    found = np.sort(np.concatenate([batch.double().sum((1, 2)).numpy() for batch in epoch()]))
    assert found.shape == sums.shape, f"{name} gave {len(found)} samples"
    assert np.allclose(found, sums), f"{name} gave other samples"


SERVER = """
import sys, time, numpy, zarr
array = zarr.open_array(sys.argv[1], mode="r")
print(zarr.__version__, flush=True)
for line in sys.stdin:
    rows = [int(word) for word in line.split()]
    begun = time.perf_counter()
    for at in range(0, len(rows), 64):
        out = array.oindex[rows[at : at + 64]]
    print(time.perf_counter() - begun, float(out.sum(dtype="f8")), flush=True)
"""


def newest_zarr(root: Path, values: Any, rounds: int) -> list[dict[str, Any]]:
    """Batches of 64 of our segment, by the newest zarr-python in an interpreter of its own and by our reader."""
    python = os.environ.get("NEWEST_ZARR_PYTHON")
    if not python:
        return [{"read": "newest zarr-python, our segment", "skipped": "NEWEST_ZARR_PYTHON names no interpreter"}]
    ours = Ours(root / Ours.folder, len(values), np.float32)
    segment = str(Shard(root / Ours.folder, len(values), np.float32).segment())
    taken: dict[str, list[float]] = {}
    command = [python, "-c", SERVER, segment]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        name = f"zarr-python {server.stdout.readline().strip()}, our segment"
        for number in range(rounds + 1):
            rows = random.Random(number).sample(range(len(values)), min(len(values), 1024) // BATCH * BATCH)
            server.stdin.write(" ".join(map(str, rows)) + "\n")
            took, total = map(float, server.stdout.readline().split())
            assert np.isclose(total, values[rows[-BATCH:]].sum(dtype="f8"))
            own = seconds(lambda wanted=rows: [ours.many(part) for part in parts_of(wanted)])
            if number:
                taken.setdefault(name, []).append(took / len(rows))
                taken.setdefault("featurestore, get_many", []).append(own / len(rows))
        server.stdin.close()
    best = statistics.median(taken["featurestore, get_many"])
    return [
        {
            "read": read,
            "median us": round(statistics.median(times) * 1e6, 2),
            "times ours": round(statistics.median(times) / best, 2),
        }
        for read, times in taken.items()
    ]


def parts_of(rows: Sequence[int]) -> list[Sequence[int]]:
    return [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]


if __name__ == "__main__":
    main()

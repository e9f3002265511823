"""The same rows, (n, 8, 768), in this store and in what a user would pick instead.

Each format is a class: `write` makes the files, the constructor opens them, `one(i)` is a fresh array (8, 768) and
`many(rows)` a fresh array (k, 8, 768), both by the fastest way that its documentation shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from featurestore import FeatureKey, FeatureStore

KEY = FeatureKey("bench", "frame", "CLIP_VIT_LARGE", "uniform", 8)
ROW = (8, 768)


def names(n: int) -> list[str]:
    """Ids as datasets have them."""
    return [f"sample_{i:08d}" for i in range(n)]


class Format:
    """What `reads.py` needs of one."""

    name: ClassVar[str]
    folder: ClassVar[str]

    @staticmethod
    def write(path: Path, values: Any) -> None:
        """Make the files in an empty folder."""

    def __init__(self, path: Path, n: int, dtype: Any) -> None:
        self.path, self.n, self.dtype = path, n, dtype
        self.open()

    def open(self) -> None: ...

    def one(self, i: int) -> Any: ...

    def many(self, rows: Sequence[int]) -> Any:
        return np.stack([self.one(i) for i in rows])


class Ours(Format):
    name = "featurestore"
    folder = "ours"

    @staticmethod
    def write(path: Path, values: Any) -> None:
        FeatureStore(path).put_many(KEY, names(len(values)), values, recipe={"benchmark": "reads"})

    def open(self) -> None:
        self.ids = names(self.n)
        self.store = FeatureStore(self.path)
        len(self.store.feature_set(KEY).reader)  # opening is measured by scale.py

    def one(self, i: int) -> Any:
        return self.store.get(KEY, self.ids[i])

    def many(self, rows: Sequence[int]) -> Any:
        ids = self.ids
        return self.store.get_many(KEY, [ids[i] for i in rows])


class Npy(Format):
    name = "np.load, a file per sample"
    folder = "npy"

    @staticmethod
    def write(path: Path, values: Any) -> None:
        for id, row in zip(names(len(values)), values, strict=True):
            np.save(path / f"{id}.npy", row)

    def open(self) -> None:
        self.files = [str(self.path / f"{id}.npy") for id in names(self.n)]

    def one(self, i: int) -> Any:
        return np.load(self.files[i])


class Memmap(Format):
    name = "np.memmap, one file"
    folder = "memmap"

    @staticmethod
    def write(path: Path, values: Any) -> None:
        np.save(path / "all.npy", values)

    def open(self) -> None:
        self.rows = np.load(self.path / "all.npy", mmap_mode="r")

    def one(self, i: int) -> Any:
        return np.array(self.rows[i])

    def many(self, rows: Sequence[int]) -> Any:
        return np.array(self.rows[list(rows)])


class Lmdb(Format):
    name = "LMDB"
    folder = "lmdb"

    @staticmethod
    def write(path: Path, values: Any) -> None:
        import lmdb

        with lmdb.open(str(path), map_size=values.nbytes * 2 + (64 << 20)) as env, env.begin(write=True) as transaction:
            for id, row in zip(names(len(values)), values, strict=True):
                transaction.put(id.encode(), row.tobytes())

    def open(self) -> None:
        import lmdb

        self.keys = [id.encode() for id in names(self.n)]
        self.transaction = lmdb.open(str(self.path), readonly=True, lock=False).begin(buffers=True)

    def one(self, i: int) -> Any:
        return np.frombuffer(self.transaction.get(self.keys[i]), self.dtype).reshape(ROW).copy()


class H5py(Format):
    name = "h5py"
    folder = "h5py"

    @staticmethod
    def write(path: Path, values: Any) -> None:
        import h5py

        with h5py.File(path / "all.h5", "w") as file:
            file["rows"] = values

    def open(self) -> None:
        import h5py

        self.rows = h5py.File(self.path / "all.h5")["rows"]

    def one(self, i: int) -> Any:
        return self.rows[i]

    def many(self, rows: Sequence[int]) -> Any:
        unique, back = np.unique(rows, return_inverse=True)  # it takes increasing indices only
        return self.rows[unique][back]


class Safetensors(Format):
    name = "safetensors"
    folder = "safetensors"

    @staticmethod
    def write(path: Path, values: Any) -> None:
        from safetensors.numpy import save_file

        save_file({"rows": values}, path / "all.safetensors")

    def open(self) -> None:
        from safetensors import safe_open

        self.rows = safe_open(self.path / "all.safetensors", "numpy").get_slice("rows")

    def one(self, i: int) -> Any:
        return self.rows[i]


class Arrow(Format):
    name = "Arrow IPC, mapped"
    folder = "arrow"

    @staticmethod
    def write(path: Path, values: Any) -> None:
        import pyarrow as pa

        width = values[0].nbytes
        column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(values), [None, pa.py_buffer(values)])
        batch = pa.record_batch([column], ["rows"])
        with pa.OSFile(str(path / "all.arrow"), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)

    def open(self) -> None:
        import pyarrow as pa

        self.array = pa.array
        self.rows = pa.ipc.open_file(pa.memory_map(str(self.path / "all.arrow"))).get_batch(0).column(0)

    def one(self, i: int) -> Any:
        return np.frombuffer(self.rows[i].as_buffer(), self.dtype).reshape(ROW).copy()

    def many(self, rows: Sequence[int]) -> Any:
        taken = self.rows.take(self.array(list(rows)))
        return np.frombuffer(taken.buffers()[1], self.dtype, len(rows) * ROW[0] * ROW[1]).reshape(-1, *ROW).copy()


class HuggingFace(Format):
    name = "Hugging Face datasets"
    folder = "datasets"

    @staticmethod
    def write(path: Path, values: Any) -> None:
        import datasets

        datasets.disable_progress_bars()
        features = datasets.Features({"rows": datasets.Array2D(ROW, values.dtype.name)})
        datasets.Dataset.from_dict({"rows": values}, features=features).save_to_disk(path)

    def open(self) -> None:
        import datasets

        self.rows = datasets.load_from_disk(str(self.path)).with_format("numpy")

    def one(self, i: int) -> Any:
        return self.rows[i]["rows"]

    def many(self, rows: Sequence[int]) -> Any:
        return self.rows[list(rows)]["rows"]


class Diskcache(Format):
    name = "diskcache"
    folder = "diskcache"

    @staticmethod
    def write(path: Path, values: Any) -> None:
        import diskcache

        with diskcache.Cache(str(path), size_limit=1 << 40) as cache, cache.transact():
            for id, row in zip(names(len(values)), values, strict=True):
                cache.set(id, row)

    def open(self) -> None:
        import diskcache

        self.ids = names(self.n)
        self.cache = diskcache.Cache(str(self.path))

    def one(self, i: int) -> Any:
        return self.cache.get(self.ids[i])


class ZarrPython(Format):
    name = "zarr-python, a chunk per sample"
    folder = "zarr"

    @staticmethod
    def write(path: Path, values: Any) -> None:
        import zarr

        array = zarr.create_array(
            path / "a", shape=values.shape, chunks=(1, *ROW), dtype=values.dtype, compressors=None
        )
        array[:] = values

    def open(self) -> None:
        import zarr

        self.rows = zarr.open_array(self.path / "a", mode="r")

    def one(self, i: int) -> Any:
        return self.rows[i]

    def many(self, rows: Sequence[int]) -> Any:
        return self.rows.oindex[list(rows)]


class Shard(ZarrPython):
    """Our own segment, which is a Zarr array, through another reader."""

    name = "zarr-python, our segment"
    folder = "ours"

    def segment(self) -> Path:
        return next((self.path / "data").rglob("c.0.0.0")).parent

    def open(self) -> None:
        import zarr

        self.rows = zarr.open_array(self.segment(), mode="r")


class Zarrs(Shard):
    name = "zarrs, our segment"

    def open(self) -> None:
        import zarr
        import zarrs  # noqa: F401 - registers its pipeline

        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            super().open()


class Tensorstore(Shard):
    name = "tensorstore, our segment"

    def open(self) -> None:
        import tensorstore

        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(self.segment())}}
        self.rows = tensorstore.open(spec, read=True).result()

    def one(self, i: int) -> Any:
        return self.rows[i].read().result()

    def many(self, rows: Sequence[int]) -> Any:
        return self.rows[list(rows)].read().result()


RIVALS: list[type[Format]] = [
    Npy, Memmap, Lmdb, H5py, Safetensors, Arrow, HuggingFace, Diskcache, ZarrPython, Shard, Zarrs, Tensorstore,
]  # fmt: skip

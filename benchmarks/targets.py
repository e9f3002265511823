"""What was aimed at, what was reached, and for what was missed the limit that stands in the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """One figure to reach.

    reached   from the results, or None where they do not have it
    most      what it may be at most, or `least` at least
    limit     said where it is missed
    """

    what: str
    unit: str
    reached: Callable[[Results], float | None]
    most: float | None = None
    least: float | None = None
    limit: str | Callable[[Results], str] = ""

    @property
    def aim(self) -> str:
        bound = f"≤ {self.most:g}" if self.most is not None else f"≥ {self.least:g}"
        return f"{bound} {self.unit}".strip()

    def why(self, results: Results) -> str:
        return self.limit if isinstance(self.limit, str) else self.limit(results)

    def met(self, value: float) -> bool:
        return value <= self.most if self.most is not None else value >= (self.least or 0)


def find(rows: Any, **where: Any) -> Any:
    """The row with these cells."""
    for row in rows:
        if all(row.get(name) == value for name, value in where.items()):
            return row
    raise KeyError(where)


def most_samples(results: Results) -> int:
    return max(row["samples"] for row in results["reads"]["rows"])


def reads(results: Results, read: str, access: str = "point", cache: str = "warm", least: str = "min us") -> float:
    """Least microseconds per sample of the larger set in float32."""
    where = {"samples": most_samples(results), "dtype": "float32", "access": access, "cache": cache}
    return float(find(results["reads"]["rows"], read=read, **where)[least])


OURS, FIRST, NPY = "featurestore", "featurestore, first reads", "np.load, a file per sample"
MEMORY, TAKE, ZARR = "memcpy from RAM", "np.take from RAM", "zarr-python, a chunk per sample"


def extraction(results: Results, what: str, column: str, **where: Any) -> float:
    return float(find(results["extraction"]["rows"], what=what, **where)[column])


def bulk(results: Results, write: str) -> float:
    return float(find(results["writes"]["bulk"], write=write)["times ours"])


def single_row(results: Results) -> float:
    return float(find(results["writes"]["single"], write="one row, featurestore")["times bare"])


def started(results: Results, start: str, column: str) -> float:
    return float(find(results["startup"]["rows"], start=start)[column])


def scaled(results: Results, column: str, ids: int = 1_000_000, segments: int = 1) -> float:
    return float(find(results["scale"]["rows"], ids=ids, segments=segments)[column])


def worst_free(results: Results) -> float:
    rows = results["extraction"]["rows"]
    return max(row["times bound"] for row in rows if row["what"] == "extract, free encoder")


def _free_range(results: Results) -> str:
    rows = results["extraction"]["rows"]
    found = [row["times bound"] for row in rows if row["what"] == "extract, free encoder"]
    return (
        f"the same comparison came out between {min(found):.3g} and {max(found):.3g} x while other programs ran (see "
        "the load), so this is not known better; measure it again on a quiet machine"
    )


_COLD = (
    "both wait for one read of the disk, which takes longer than everything else; np.load is spared the look-up of "
    "the file, because only contents, not inodes, could be dropped from the cache"
)
_COMMIT = (
    "five fsyncs take about a millisecond on this disk, so that what Python does around them (checks, JSON, the "
    "digest of each file, opening what was written) is seen beside them; on a disk with slower fsyncs it is not"
)
TARGETS = [
    Target("a hit, first read of a row, against memcpy", "x", lambda r: reads(r, FIRST) / reads(r, MEMORY), most=3,
           limit="the checksum is one more pass over the row, and the copy out of the kernel costs a system call"),
    Target("the same, against np.load", "x faster", lambda r: reads(r, NPY) / reads(r, FIRST), least=10,
           limit="two passes over the bytes and the digest of the id take a fixed time; np.load of a file in the page "
                 "cache is opening it, which this kernel does fast"),
    Target("the same, against zarr-python", "x faster", lambda r: reads(r, ZARR) / reads(r, FIRST), least=100,
           limit="as above; zarr-python takes whatever its event loop takes"),
    Target("a hit, later reads, against memcpy", "x", lambda r: reads(r, OURS) / reads(r, MEMORY), most=2),
    Target("get_many(64), first reads, against np.take", "x",
           lambda r: reads(r, FIRST, "batch 64") / reads(r, TAKE, "batch 64"), most=3,
           limit="each row is copied and then passed over once more for its checksum, and pages are mapped one by one"),
    Target("get_many(64), later reads, against np.take", "x",
           lambda r: reads(r, OURS, "batch 64") / reads(r, TAKE, "batch 64"), most=1.6,
           limit="one look-up and one copy per row from Python, where np.take loops in C"),
    Target("get_many(64), later reads, against np.load and np.stack", "x faster",
           lambda r: reads(r, NPY, "batch 64") / reads(r, OURS, "batch 64"), least=25,
           limit=lambda r: "copying the rows within memory is itself only "
                           f"{reads(r, NPY, 'batch 64') / reads(r, MEMORY, 'batch 64'):.3g} times as fast as np.load"),
    Target("get_many(64), later reads, against LMDB", "x faster",
           lambda r: reads(r, "LMDB", "batch 64") / reads(r, OURS, "batch 64"), least=1),
    Target("through our loader, in-process", "us a sample", lambda r: reads(r, "featurestore, own loader", "epoch"),
           most=6, limit="a batch is a new array each time, and the kernel clears its pages before rows come in"),
    Target("cold hit, one sample, against np.load", "x faster",
           lambda r: reads(r, NPY, "point", "cold") / reads(r, OURS, "point", "cold"), least=4, limit=_COLD),
    Target("cold hit, batch of 64, against np.load", "x faster",
           lambda r: reads(r, NPY, "batch 64", "cold") / reads(r, OURS, "batch 64", "cold"), least=4, limit=_COLD),
    Target("bulk write, against zarr-python row by row", "x faster", lambda r: bulk(r, "zarr-python, row by row"),
           least=5, limit="both wait for the disk"),
    Target("bulk write, against np.save + fsync per sample", "x faster",
           lambda r: bulk(r, "np.save + fsync per sample"), least=3, limit="fsync of a small file is cheap here"),
    Target("bulk write, against LMDB", "of its speed", lambda r: bulk(r, "LMDB, one transaction"), least=0.25,
           limit="the shard is written, digested and checked; see the parts below"),
    Target("one-row commit, against its bare fsyncs", "x", single_row, most=1.3, limit=_COMMIT),
    Target("1,000,000 ids: open", "CPU s", lambda r: scaled(r, "open CPU s"), most=0.5),
    Target("1,000,000 ids: look-up", "us", lambda r: scaled(r, "look-up us"), most=5),
    Target("1,000,000 ids: memory", "MiB", lambda r: scaled(r, "MiB"), most=200),
    Target("1,000,000 ids: `fstore ls`", "CPU s", lambda r: scaled(r, "fstore ls CPU s"), most=1),
    Target("1,000,000 ids: `fstore info`", "CPU s", lambda r: scaled(r, "fstore info CPU s"), most=1),
    Target("4,096 segments of 64 rows: open", "CPU s", lambda r: scaled(r, "open CPU s", 4096 * 64, 4096), most=1,
           limit="three files are looked at for each segment; `fstore compact` makes them one"),
    Target("bytes on disk without the row lines, against the payload", "x",
           lambda r: r["scale"]["bytes"][0]["(store - rows) / payload"], most=1.01),
    Target("extraction with an encoder that costs nothing, against decoding alone (worst of all lengths)", "x",
           worst_free, most=1.25, limit=_free_range),
    Target("extraction with ViT-B/32 on the CPU, against (CPU s of decode + of encode) / cores", "x",
           lambda r: extraction(r, "extract, ViT-B-32 on the CPU", "times bound"), most=1.10,
           limit="the bound takes both cores for granted; other programs ran on them meanwhile (see the load), and "
                 "encoding alone misses the same bound by more"),
    Target("the same in CPU seconds, which others on the machine do not change", "x",
           lambda r: extraction(r, "extract, ViT-B-32 on the CPU", "CPU times bound's"), most=1.10),
    Target("a miss on demand, beyond decode and encode", "s",
           lambda r: extraction(r, "a miss on demand, beyond decode and encode", "median s"), most=0.03,
           limit=lambda r: "a job goes to a worker and back, and five fsyncs follow, each waiting for its turn; the "
                           f"least was {extraction(r, 'a miss on demand, beyond decode and encode', 'min s'):.3g} s"),
    Target("memory of an extract, ViT-B/32 included", "MiB",
           lambda r: extraction(r, "peak memory of the process, model included", "MiB"), most=2048),
    Target("extract again, 12,799 stored", "CPU s",
           lambda r: started(r, "extract again, 12799 stored", "CPU s"), most=2),
    Target("`import featurestore`, above bare Python", "CPU s",
           lambda r: started(r, "import featurestore", "above bare python CPU s"), most=0.05),
    Target("`fstore --help`, above bare Python", "CPU s",
           lambda r: started(r, "fstore --help", "above bare python CPU s"), most=0.12),
]  # fmt: skip

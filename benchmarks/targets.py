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


def fastest_rival(results: Results) -> float:
    """Median epoch of the next one, np.memmap left out, in epochs of our loader."""
    rivals = (row for row in results["loaders"]["rows"] if not row["loader"].startswith(("featurestore", "np.memmap")))
    return float(min(row["times ours"] for row in rivals))


def cold(results: Results, read: str, access: str) -> float:
    """The same with cold files: the median, because a disk has good moments."""
    return reads(results, read, access, "cold", "median us")


def raced(results: Results, clip: str, frames: str) -> float:
    """Median CPU time of ours, in those of torchcodec."""
    rows = [row for row in results["decoding"]["rivals"] if (row["clip"], row["frames"]) == (clip, frames)]
    theirs = next((row for row in rows if row["reader"].endswith("exact")), None)
    if theirs is None:
        raise KeyError("torchcodec")  # it was not there
    return float(find(rows, reader="featurestore")["median"] / theirs["median"])


def worst_race(results: Results, clip: str) -> float:
    return max(raced(results, clip, frames) for frames in ("uniform/8", "emotion_peak/8"))


def lasting(results: Results) -> tuple[float, float]:
    """CPU seconds and MiB of the long video, if there was one."""
    for row in results["decoding"]["long"]:
        return row["index with digest, CPU s"] + row["uniform/8, CPU s"], row["most MiB"]
    raise KeyError("long")


_RACE_LIMIT = (
    "two thirds of the time are in the same decoder, for the same packets: of the keyframes before the frames that are "
    "asked for and what lies between, only pictures that no other needs can be left out"
)
OURS, FIRST, NPY = "featurestore", "featurestore, first reads", "np.load, a file per sample"
MEMORY, TAKE, DISK = "memcpy from RAM", "np.take from RAM", "one bare read per sample"
ZARR = "zarr-python, a chunk per sample"


def _long_limit(results: Results) -> str:
    row = results["decoding"]["long"][0]
    digest, packets = row["digest alone, CPU s"], row["packets alone, CPU s"]
    return (
        f"the digest alone takes {digest:.3g} s, and FFmpeg, through PyAV, {packets:.3g} s to hand out packets; both "
        "share one read, and the rest is what Python asks of each packet. Of Python's digests SHA-256 is the fastest "
        "strong one where a processor has instructions for it, and neither larger reads nor FFmpeg without its parser "
        "takes much away. To read the tables of an mp4 without FFmpeg would spare the second, and be a second reader "
        "that has to be right"
    )


def _import_limit(results: Results) -> str:
    spent = find(results["importing"]["rows"], what="import", cache="warm").get("CPU x np.load")
    work = "" if spent is None else f"of the processor's time it took {spent:.3g} x; "
    return f"{work}it waits for fsyncs and np.load for nothing; {_disturbed(results, 'importing')}"


def imported(results: Results, what: str, cache: str, column: str) -> float:
    return float(find(results["importing"]["rows"], what=what, cache=cache)[column])


def loaded(results: Results, what: str, column: str) -> float:
    return float(find(results["loading"]["rows"], what=what)[column])


def extraction(results: Results, what: str, column: str, **where: Any) -> float:
    return float(find(results["extraction"]["rows"], what=what, **where)[column])


def bulk(results: Results, write: str) -> float:
    return float(find(results["writes"]["bulk"], write=write)["times ours"])


def single_row(results: Results) -> float:
    return float(find(results["writes"]["single"], write="one row, featurestore")["times bare"])


def shaped(results: Results, part: str, **where: Any) -> Any:
    return find(results["shapes"][part], **where)


def started(results: Results, start: str, column: str) -> float:
    return float(find(results["startup"]["rows"], start=start)[column])


def scaled(results: Results, column: str, ids: int = 1_000_000, segments: int = 1) -> float:
    return float(find(results["scale"]["rows"], ids=ids, segments=segments)[column])


def worst_free(results: Results) -> float:
    rows = results["extraction"]["rows"]
    return max(row["times bound"] for row in rows if row["what"] == "extract, free encoder")


def _disturbed(results: Results, name: str) -> str:
    """What is said of wall seconds, by how busy other programs kept the cores meanwhile."""
    others = results[name]["machine"].get("others_cores")
    if others is None:
        return "other programs may have run meanwhile (see the load), and waits for them are in it"
    if others >= 0.1 * results[name]["machine"]["cores"]:
        return f"other programs and the kernel kept {others:.3g} cores busy meanwhile, and waits for them are in it"
    return "nothing else ran"


def _free_limit(results: Results) -> str:
    rows = [row for row in results["extraction"]["rows"] if row["what"] == "extract, free encoder"]
    ratios = ", ".join(
        f"{row['times bound']:.3g} x for clips of {row['clip s']:g} s on {row['workers']}"
        f" worker{'s' if row['workers'] > 1 else ''}"
        for row in rows
    )
    return (
        f"it was {ratios}; beyond decoding an extract scans the packets and digests the file of each clip, hands eight "
        f"pictures over, and commits with five fsyncs, and the fewer the clips the more these weigh; "
        f"{_disturbed(results, 'extraction')}"
    )


def _cpu_limit(results: Results) -> str:
    alone = extraction(results, "encode only, ViT-B-32", "CPU s") / results["extraction"]["cores"]
    wall = extraction(results, "encode only, ViT-B-32", "min s")
    return (
        f"the bound takes all cores for granted at every moment; encoding alone takes {wall / alone:.3g} times its CPU "
        f"seconds / cores, before anything is decoded beside it; {_disturbed(results, 'extraction')}"
    )


def _cold_limit(access: str) -> Callable[[Results], str]:
    def limit(results: Results) -> str:
        theirs, ours, disk = (cold(results, what, access) for what in (NPY, OURS, DISK))
        return (
            f"reading the same bytes from the disk takes {disk:.3g} of our {ours:.3g} us, so no more than "
            f"{theirs / disk:.3g} times was there to be had; np.load is spared the look-up of the file, because only "
            "contents, not inodes, could be dropped from the cache"
        )

    return limit


def _first_limit(results: Results) -> str:
    first, memory, later = (reads(results, what) for what in (FIRST, MEMORY, OURS))
    return (
        f"of {first:.3g} us a copy of the bytes takes {memory:.3g}; the rest is the system call, the checksum, which "
        f"is one more pass over them, and the digest of the id; a later read, without these, takes {later:.3g}"
    )


def gpu(results: Results, column: str, best: Callable[[Any], float]) -> float:
    rows = results["extraction"]["rows"]
    found = [row[column] for row in rows if row["what"].startswith("extract, ViT-B-32 on a GPU") and column in row]
    if not found:
        raise KeyError(column)
    return float(best(found))


def _commit_limit(results: Results) -> str:
    rows = {row["write"]: row["median ms"] for row in results["writes"]["single"]}
    ours, bare = rows["one row, featurestore"], rows["one row, its bare system calls"]
    return (
        f"the five fsyncs take {bare:.3g} of {ours:.3g} ms on this disk, so that what Python does around them (checks, "
        "JSON, the digest of each file, opening what was written) is seen beside them; on a slower disk it is not"
    )


def loop(results: Results, what: str) -> float:
    return float(find(results["inference_loop"]["loop"], what=what)["median ms a sample"])


def batched(results: Results, size: int) -> float:
    return float(find(results["inference_loop"]["batches"], batch=size)["times one by one"])


def on_gpu(what: str) -> Callable[[Results], float | None]:
    def reached(results: Results) -> float | None:
        (row,) = [row for row in results["inference_loop"]["gpu"] if row["what"].startswith(what)]
        return None if row["reached"] == "not measured" else float(row["reached"])

    return reached


def _loop_limit(results: Results) -> str:
    inside = loop(results, "tokenizing, heads, splice and clean-up in it")
    return f"{inside:.3g} ms of it are tokenizing, heads and splice"


TARGETS = [
    Target("a hit, first read of a row, against memcpy", "x", lambda r: reads(r, FIRST) / reads(r, MEMORY), most=3,
           limit=_first_limit),
    Target("the same, against np.load", "x faster", lambda r: reads(r, NPY) / reads(r, FIRST), least=10,
           limit=lambda r: f"{_first_limit(r)}; np.load takes {reads(r, NPY):.3g}, so that "
                           f"a bare copy is {reads(r, NPY) / reads(r, MEMORY):.3g} times as fast"),
    Target("the same, against zarr-python", "x faster", lambda r: reads(r, ZARR) / reads(r, FIRST), least=100,
           limit=lambda r: f"{_first_limit(r)}; zarr-python takes {reads(r, ZARR):.3g} us, and a bare copy is "
                           f"{reads(r, ZARR) / reads(r, MEMORY):.3g} times as fast"),
    Target("a hit, later reads, against memcpy", "x", lambda r: reads(r, OURS) / reads(r, MEMORY), most=2,
           limit="Python finds the place of the row and counts the hit, beside a copy of so few bytes"),
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
           lambda r: reads(r, "LMDB", "batch 64") / reads(r, OURS, "batch 64"), least=1,
           limit="LMDB hands out pointers into its map, so that what is left is one copy, as here"),
    Target("through our loader, in-process", "us a sample", lambda r: reads(r, "featurestore, own loader", "epoch"),
           most=6, limit="a batch is a new array each time, and the kernel clears its pages before rows come in"),
    Target("our loader in process, against the fastest rival but np.memmap", "x faster", fastest_rival, least=1,
           limit="a batch is a new array each time, and the kernel clears its pages before rows come in"),
    Target("cold hit, one sample, against np.load", "x faster",
           lambda r: cold(r, NPY, "point") / cold(r, OURS, "point"), least=4, limit=_cold_limit("point")),
    Target("cold hit, batch of 64, against np.load", "x faster",
           lambda r: cold(r, NPY, "batch 64") / cold(r, OURS, "batch 64"), least=4, limit=_cold_limit("batch 64")),
    Target("bulk write, against zarr-python row by row", "x faster", lambda r: bulk(r, "zarr-python, row by row"),
           least=5,
           limit="zarr-python leaves its files to one sync at the end, and this store makes each of its own durable"),
    Target("bulk write, against np.save + fsync per sample", "x faster",
           lambda r: bulk(r, "np.save + fsync per sample"), least=3,
           limit="an fsync of a small file is cheap on this disk"),
    Target("bulk write, against LMDB", "of its speed", lambda r: bulk(r, "LMDB, one transaction"), least=0.25,
           limit="the shard is written, digested and checked; see the parts below"),
    Target("one-row commit, against its bare fsyncs", "x", single_row, most=1.3, limit=_commit_limit),
    Target("1,000,000 ids: open", "CPU s", lambda r: scaled(r, "open CPU s"), most=0.5,
           limit="32 bytes a row are read, digested and sorted before the first answer"),
    Target("1,000,000 ids: look-up", "us", lambda r: scaled(r, "look-up us"), most=5,
           limit="a digest of the id and a search in a sorted column, which numpy is asked for row by row"),
    Target("1,000,000 ids: memory", "MiB", lambda r: scaled(r, "MiB"), most=200,
           limit="the place and the checksum of each row stay in memory"),
    Target("1,000,000 ids: `fstore ls`", "CPU s", lambda r: scaled(r, "fstore ls CPU s"), most=1,
           limit="Python starts and each segment's header is read"),
    Target("1,000,000 ids: `fstore info`", "CPU s", lambda r: scaled(r, "fstore info CPU s"), most=1,
           limit="Python starts and each segment's header is read"),
    Target("4,096 segments of 64 rows: open", "CPU s", lambda r: scaled(r, "open CPU s", 4096 * 64, 4096), most=1,
           limit="three files are looked at for each segment; `fstore compact` makes them one"),
    Target("bytes on disk without the row lines, against the payload", "x",
           lambda r: r["scale"]["bytes"][0]["(store - rows) / payload"], most=1.01,
           limit="the shard has an index of 16 bytes and a checksum of 4 bytes a row, and each segment a header"),
    Target("exact frames of 720p, a keyframe every 12, uniform/8, against torchcodec", "x its CPU time",
           lambda r: raced(r, "keyframe every 12", "uniform/8"), most=0.85, limit=_RACE_LIMIT),
    Target("the same, emotion_peak/8", "x", lambda r: raced(r, "keyframe every 12", "emotion_peak/8"), most=0.85,
           limit=_RACE_LIMIT),
    Target("exact frames of 720p, one keyframe (worst of both)", "x its CPU time",
           lambda r: worst_race(r, "one keyframe"), most=0.8, limit=_RACE_LIMIT),
    Target("exact frames of noisy 720p (worst of both)", "x its CPU time",
           lambda r: worst_race(r, "noisy, 3 Mbit/s, keyframe every 12"), most=1.1, limit=_RACE_LIMIT),
    Target("uniform/8 of two hours of 1080p, with its digest", "CPU s", lambda r: lasting(r)[0], most=4,
           limit=_long_limit),
    Target("the same: memory", "MiB", lambda r: lasting(r)[1], most=150,
           limit="Python, FFmpeg, and what each packet says"),
    Target("extraction with an encoder that costs nothing, against decoding alone (worst of all lengths)", "x",
           worst_free, most=1.25, limit=_free_limit),
    Target("extraction with ViT-B/32 on the CPU, against (CPU s of decode + of encode) / cores", "x",
           lambda r: extraction(r, "extract, ViT-B-32 on the CPU", "times bound"), most=1.10,
           limit=_cpu_limit),
    Target("the same in CPU seconds, which others on the machine do not change", "x",
           lambda r: extraction(r, "extract, ViT-B-32 on the CPU", "CPU times bound's"), most=1.10,
           limit="workers, commits and hand-over cost the processor as well"),
    Target("extraction with ViT-B/32 on a GPU, against the slower of decode and encode", "x",
           lambda r: gpu(r, "times bound", min), most=1.15, limit="see the table of extraction"),
    Target("share of the time in which the GPU encodes, while decoding keeps up", "of the time",
           lambda r: gpu(r, "GPU busy", max), least=0.9, limit="decoding does not keep up on these cores"),
    Target("a miss on demand, beyond decode and encode", "s",
           lambda r: extraction(r, "a miss on demand, beyond decode and encode", "median s"), most=0.03,
           limit=lambda r: "a job goes to a worker and back, and five fsyncs follow, each waiting for its turn; the "
                           f"least was {extraction(r, 'a miss on demand, beyond decode and encode', 'min s'):.3g} s; "
                           f"{_disturbed(r, 'extraction')}"),
    Target("memory of an extract, ViT-B/32 included", "MiB",
           lambda r: extraction(r, "peak memory of the process, model included", "MiB"), most=2048,
           limit="PyTorch, the model and pictures of the clips in work are in memory"),
    Target("one frame of a ragged (300, 768) float32 sample, first read", "of all of it",
           lambda r: shaped(r, "frames", read="one frame, first")["of all"], most=1 / 15,
           limit="finding the sample, two checksums and a numpy call take as long as some hundred kilobytes do"),
    Target("the same, later", "of all of it",
           lambda r: shaped(r, "frames", read="one frame, later")["of all"], most=1 / 20,
           limit="finding the sample and one numpy call take as long as some ten kilobytes do"),
    Target("a sample of 4 MiB, later", "of the speed of `array.copy()`",
           lambda r: shaped(r, "large")["of the speed of a copy"], least=0.8,
           limit="the page cache has pages of 4 KiB, and numpy's own memory larger ones"),
    Target("three keys of 200 segments, later epochs", "x one key",
           lambda r: shaped(r, "keys", read="three keys, 200 segments")["times one key"], most=1.5,
           limit="each map that is not kept open is mapped again"),
    Target("one-sample commits with thousands of segments there", "x their fsyncs",
           lambda r: r["shapes"]["commits"][-1]["times bare"], most=1.3,
           limit="what is known of the segments is copied for each commit, so that threads may read meanwhile"),
    Target("segments of 300 lengths under one key, merged", "segments",
           lambda r: r["shapes"]["lengths"][0]["segments"], most=64, limit="a segment has 1 GiB at most"),
    Target("bytes on disk without records, lines and frame checksums, against the values", "x",
           lambda r: r["shapes"]["lengths"][0]["all else / payload"], most=1.01,
           limit="zeros fill up the last inner chunk, 1 % at most"),
    Target("extract again, 12,799 stored", "CPU s",
           lambda r: started(r, "extract again, 12799 stored", "CPU s"), most=2,
           limit="each sample is looked up, and its media are asked whether they changed"),
    Target("`import featurestore`, above bare Python", "CPU s",
           lambda r: started(r, "import featurestore", "above bare python CPU s"), most=0.05,
           limit="Python reads the modules that every use needs"),
    Target("`fstore --help`, above bare Python", "CPU s",
           lambda r: started(r, "fstore --help", "above bare python CPU s"), most=0.12,
           limit="Python reads click and the commands' names"),
    Target("import of 12,799 files of (8, 768), warm", "x np.load",
           lambda r: imported(r, "import", "warm", "x np.load"), most=2, limit=lambda r: _import_limit(r)),
    Target("the same, cold", "x np.load", lambda r: imported(r, "import", "cold", "x np.load"), most=1.3,
           limit="beside reading the files, their rows are written and fsynced on the same disk"),
    Target("audit of the same", "s", lambda r: imported(r, "audit", "warm", "median"), most=60,
           limit="each file is opened, read and looked through"),
    Target("bytes that differ after import and export", "", lambda r: r["importing"]["differing"], most=0),
    Target("loading of a track 1 run, 88,185 rows", "s", lambda r: loaded(r, "featurestore-reader", "median"), most=1,
           limit="each row is copied and checked, and the table of ids read"),
    Target("the same against np.load in a pool of 8", "x", lambda r: loaded(r, "featurestore-reader", "times faster"),
           least=20, limit="a pool's processes share the cores, and files in memory cost only their opening"),
    Target("inference loop over a stub, all stored", "ms a sample",
           lambda r: loop(r, "the loop over a stub, all stored"), most=0.3, limit=_loop_limit),
    Target("batches of 8, 4 layers of 256 on the CPU, against one by one", "x", lambda r: batched(r, 8), least=3,
           limit="reading the prompt is arithmetic that a batch does not make cheaper; only the steps after it gain"),
    Target("batched on a GPU, 7B, against one by one", "x", on_gpu("batched"), least=8,
           limit="reading the prompts is arithmetic that a batch does not make cheaper"),
    Target("feature preparation on a GPU, hybrid mode", "% of the time", on_gpu("feature"), most=5,
           limit="faces and sound are decoded and encoded for every sample, and only frames are stored"),
]  # fmt: skip

"""Many ids and many segments: opening, look-ups, memory, listing, compaction, and bytes on disk.

    python benchmarks/scale.py [--ids 1000000] [--quick]          about 4 minutes and 1.5 GB of disk

Rows are small, (1, 64) float32, because what is measured does not depend on them; compaction and the
bytes on disk are measured with rows of (8, 768).
Opening and listing are CPU seconds, which on a quiet machine are the wall seconds.
Does not show: a cold page cache, network file systems.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import cpu_seconds, options, save, scratch, seconds, table

from featurestore import FeatureKey, FeatureStore

KEY = FeatureKey("bench", "frame", "Small", "uniform", 1)
WIDE = FeatureKey("bench", "frame", "CLIP_VIT_LARGE", "uniform", 8)
RECIPE = {"benchmark": "scale"}
CLI = "import sys; from featurestore.cli import main; sys.exit(main())"

# In a process of its own: what a user's first look-up costs, and what it leaves in memory.
PROBE = """
import json, random, resource, sys, time
from featurestore import FeatureStore
import numpy, featurestore.store
root, key, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
rss = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before, start, begun = rss(), time.process_time(), time.perf_counter()
store = FeatureStore(root)
reader = store.feature_set(key).reader
count = len(reader)
opened, wall = time.process_time() - start, time.perf_counter() - begun
ids = [f"sample_{i:08d}" for i in random.Random(0).sample(range(n), min(n, 20000))]
start = time.process_time()
for id in ids:
    assert reader.find(id) is not None
found = (time.process_time() - start) / len(ids)
mib = (rss() - before) / 2**20
print(json.dumps({"open wall s": wall, "open CPU s": opened, "look-up us": found * 1e6, "MiB": mib}))
"""


def main() -> None:
    chosen = options(__doc__, ids=(1_000_000, 10_000))
    with scratch(chosen.dir) as root:
        rows = [of_ids(root, n, segments) for n, segments in shapes(chosen.ids)]
        result = {"rows": rows, "compaction": compaction(root), "bytes": on_disk(root)}
    save("scale", result)
    print(table(rows))
    print(table(result["compaction"]))
    print(table(result["bytes"]))


def shapes(most: int) -> list[tuple[int, int]]:
    """(ids, segments)."""
    many = [(4096 * 64, 256), (4096 * 64, 4096)] if most > 10_000 else [(64 * 64, 64)]
    return [(n, 1) for n in (10_000, 100_000, 1_000_000) if n <= most] + many


def of_ids(root: Path, n: int, segments: int) -> dict[str, Any]:
    store = FeatureStore(root / f"{n}-{segments}")
    per = n // segments
    for start in range(0, n, per):
        ids = [f"sample_{i:08d}" for i in range(start, start + per)]
        store.put_many(KEY, ids, np.ones((per, 1, 64), np.float32), recipe=RECIPE)
    program = [sys.executable, "-c", PROBE, str(store.root), str(KEY), str(n)]
    probes = [json.loads(subprocess.check_output(program)) for _ in range(3)]
    best = {name: min(probe[name] for probe in probes) for name in probes[0]}
    listing = {
        f"fstore {command} CPU s": round(_command([command, *([str(KEY)] if command == "info" else [])], store.root), 3)
        for command in ("ls", "info")
    }
    row = {
        "ids": n,
        "segments": segments,
        "open wall s": round(best["open wall s"], 3),
        "open CPU s": round(best["open CPU s"], 3),
        "look-up us": round(best["look-up us"], 2),
        "MiB": round(best["MiB"], 1),
        **listing,
        "store.ids s": round(seconds(lambda: FeatureStore(store.root).ids(KEY)), 2),
    }
    shutil.rmtree(store.root)
    return row


def _command(arguments: list[str], root: Path) -> float:
    command = [sys.executable, "-c", CLI, *arguments, "--store", str(root)]
    spent = []
    for _ in range(2):
        before = cpu_seconds()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        spent.append(cpu_seconds() - before)
    return min(spent)


def compaction(root: Path) -> list[dict[str, Any]]:
    """Merging 64 segments of 64 wide rows, and single reads by a neighbour meanwhile."""
    values = np.random.default_rng(0).standard_normal((64, 8, 768), dtype=np.float32)
    store = FeatureStore(root / "compaction")
    for number in range(64):
        store.put_many(WIDE, [f"{number}-{i}" for i in range(64)], values, recipe=RECIPE)
    reader = FeatureStore(store.root)
    quiet = _reads(reader, 0.5)
    script = (
        "import sys, time; from featurestore import FeatureStore; "
        f"store = FeatureStore({str(store.root)!r}); store.ids({str(WIDE)!r}); "
        "wall, cpu = time.perf_counter(), time.process_time(); "
        f"store.compact({str(WIDE)!r}); "
        "print(time.perf_counter() - wall, time.process_time() - cpu)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    busy: list[float] = []
    while process.poll() is None:
        busy += _reads(reader, 0.1)
    taken, cpu = map(float, process.communicate()[0].split())
    assert process.returncode == 0
    return [
        {
            "compact": "64 segments into 1",
            "MB/s": round(64 * values.nbytes / 1e6 / taken),
            "MB per CPU s": round(64 * values.nbytes / 1e6 / cpu),
            "read us, quiet": round(statistics.median(quiet) * 1e6, 1),
            "read us, meanwhile": round(statistics.median(busy) * 1e6, 1),
            "p99 us": round(sorted(busy)[int(0.99 * len(busy))] * 1e6, 1),
        }
    ]


def _reads(store: FeatureStore, for_s: float) -> list[float]:
    taken, end, number = [], time.perf_counter() + for_s, 0
    while time.perf_counter() < end:
        id = f"{number % 64}-{number % 61}"
        taken.append(seconds(lambda id=id: store.get(WIDE, id)))
        number += 1
    return taken


def on_disk(root: Path) -> list[dict[str, Any]]:
    """Bytes of a store with one segment, beside what was put into it."""
    values = np.random.default_rng(0).standard_normal((2000, 8, 768), dtype=np.float32)
    store = FeatureStore(root / "bytes")
    provenance = [
        {"sources": [{"path": f"/data/mer2023/video/sample_{i:08d}.mp4", "size": i, "mtime_ns": i, "sha256": "0" * 64}]}
        for i in range(2000)
    ]
    store.put_many(
        WIDE,
        [f"sample_{i:08d}" for i in range(2000)],
        values,
        recipe=RECIPE,
        frame_indices=np.arange(16000).reshape(2000, 8),
        provenance=provenance,
    )
    whole = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())
    lines = sum(path.stat().st_size for path in store.root.rglob("rows"))
    return [
        {
            "payload bytes": values.nbytes,
            "store bytes": whole,
            "of which rows": lines,
            "(store - rows) / payload": round((whole - lines) / values.nbytes, 5),
            "npy bytes": 2000 * (values.nbytes // 2000 + 128),
        }
    ]


if __name__ == "__main__":
    main()

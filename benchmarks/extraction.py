"""Extraction against its bounds, and against the loops that people write.

    python benchmarks/extraction.py [--clips 12] [--rounds 3] [--quick]          about 5 minutes

Clips are 720p h264 with one keyframe, made in code; `encode` is ViT-B-32 with random weights.  With an encoder that
costs nothing the bound is decoding alone on the same workers; with a real one on the CPU it is (CPU seconds of decode
+ of encode) / cores.  Also: what a miss on demand costs beyond decode and encode, and peak memory.
Does not show: other codecs, a slow disk; without a GPU, a GPU.
"""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from clips import decode, decoded, write_clips
from harness import cpu_seconds, interleaved, options, save, scratch, table

from featurestore import Extractor, FeatureKey, FeatureStore, Sample, register_encoder
from featurestore.extract import extract
from featurestore.media import DecodePool

FREE = FeatureKey("bench", "frame", "Free", "uniform", 8)
VIT = FeatureKey("bench", "frame", "ViT-B-32.none", "uniform", 8)
CORES = len(os.sched_getaffinity(0))
LENGTHS_S = {2: 16, 5: 12, 15: 6, 60: 2}  # seconds of a clip -> how many
WEIGHTS = {"ViT-B-32.none": "random:0"}

register_encoder("Free", "encoders:Free")
_numbers = iter(range(10**6))


def main() -> None:
    chosen = options(__doc__, clips=(12, 4), rounds=(3, 1))
    lengths = {2: 4} if chosen.quick else LENGTHS_S
    with scratch(chosen.dir) as root:
        rows = []
        for seconds, count in lengths.items():
            paths = write_clips(root / f"clips{seconds}", count, seconds, different=min(3, count))
            rows += against_decoding(root, paths, seconds, CORES, chosen.rounds)
        paths = write_clips(root / "clips", chosen.clips, 2 if chosen.quick else 5)
        rows += against_decoding(root, paths, 5, 1, chosen.rounds)
        rows += against_both(root, paths, chosen.rounds)
        rows += on_demand(root, paths)
        rows += on_a_gpu(root, paths)
    save("extraction", {"clips": chosen.clips, "rounds": chosen.rounds, "cores": CORES, "rows": rows})
    print(table(rows))


def samples(paths: list[Path]) -> dict[str, dict[str, Sample]]:
    return {"bench": {path.stem: Sample(path.stem, video=path) for path in paths}}


def whole(root: Path, extractor: Extractor, key: FeatureKey, paths: list[Path]) -> Callable[[], Any]:
    """One extract of all clips into a new store."""

    def call() -> None:
        store = FeatureStore(root / f"store{next(_numbers)}", compute=extractor)
        assert extract(store, key, [path.stem for path in paths]).computed == len(paths)

    return call


def against_decoding(root: Path, paths: list[Path], length: int, workers: int, rounds: int) -> list[dict[str, Any]]:
    """With an encoder that costs nothing an extract should take as long as decoding alone."""
    with DecodePool(workers) as pool, Extractor(samples(paths), workers=workers) as extractor:

        def decode_only() -> None:
            jobs = [pool.submit(decode, path) for path in paths]
            for job in jobs:
                job.result()

        calls = {"decode only": decode_only, "extract, free encoder": whole(root, extractor, FREE, paths)}
        for call in calls.values():
            call()  # workers are warm now
        taken = interleaved(calls, rounds)
    bound = min(taken["decode only"])
    about = {"clip s": length, "clips": len(paths), "workers": workers}
    return [{"what": name, **about, **rate(times, len(paths), bound)} for name, times in taken.items()]


def against_both(root: Path, paths: list[Path], rounds: int) -> list[dict[str, Any]]:
    """With a real encoder on the CPU the bound is all CPU seconds over all cores."""
    import datasets

    datasets.disable_progress_bars()
    with Extractor(samples(paths), weights=WEIGHTS, device="cpu", workers=CORES) as extractor:
        encoder = extractor.encoder(VIT)

        def encode_only() -> None:
            images = np.zeros((32, 224, 224, 3), np.uint8)
            for _ in range(len(paths) * 8 // 32):
                encoder.encode(images)

        def sequential() -> None:
            """Today's script, re-stated: one clip after the other, one file each."""
            folder = root / f"npy{next(_numbers)}"
            folder.mkdir()
            for path in paths:
                np.save(folder / f"{path.stem}.npy", encoder.encode(decoded(path)))

        def mapped() -> None:
            """`datasets.map` with a function that decodes and encodes four clips at a time."""

            def features(batch: dict[str, list[str]]) -> dict[str, Any]:
                values = encoder.encode(np.concatenate([decoded(Path(path)) for path in batch["video"]]))
                return {"features": values.reshape(len(batch["video"]), 8, -1)}

            videos = datasets.Dataset.from_dict({"video": [str(path) for path in paths]})
            videos.map(features, batched=True, batch_size=4, new_fingerprint=f"run{next(_numbers)}")

        calls = {
            "decode in one process": lambda: [decode(path) for path in paths],
            "encode only, ViT-B-32": encode_only,
            "extract, ViT-B-32 on the CPU": whole(root, extractor, VIT, paths),
            "a loop over clips, np.save": sequential,
            "datasets.map": mapped,
        }
        encode_only()  # weights are read and threads are started
        whole(root, extractor, VIT, paths)()
        taken: dict[str, list[float]] = {name: [] for name in calls}
        cpu: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                before = cpu_seconds()
                start = time.perf_counter()
                call()
                taken[name].append(time.perf_counter() - start)
                cpu[name].append(cpu_seconds() - before)
    both = min(cpu["decode in one process"]) + min(cpu["encode only, ViT-B-32"])
    bound = both / CORES
    about = {"clip s": 5, "clips": len(paths), "workers": CORES}
    rows: list[dict[str, Any]] = [
        {"what": "(decode + encode CPU s) / cores", **about, "min s": round(bound, 3), "times bound": 1.0}
    ]
    for name, times in taken.items():
        share = {"CPU s": round(min(cpu[name]), 3), "CPU times bound's": round(min(cpu[name]) / both, 3)}
        rows.append({"what": name, **about, **rate(times, len(paths), bound), **share})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [*rows, {"what": "peak memory of the process, model included", "clips": len(paths), "MiB": round(peak)}]


def on_demand(root: Path, paths: list[Path]) -> list[dict[str, Any]]:
    """`get` of samples that are not stored, one by one, beside the decode that each needs."""
    beyond = []
    with Extractor(samples(paths), workers=CORES) as extractor:
        store = FeatureStore(root / "demand", compute=extractor)
        store.get(FREE, paths[0].stem)  # starts the workers, makes the key's first commit
        for path in paths[1:]:
            before = extractor.seconds.decode + extractor.seconds.encode
            start = time.perf_counter()
            store.get(FREE, path.stem)
            wall = time.perf_counter() - start
            beyond.append(wall - (extractor.seconds.decode + extractor.seconds.encode - before))
    return [
        {
            "what": "a miss on demand, beyond decode and encode",
            "clips": len(beyond),
            "min s": round(min(beyond), 4),
            "median s": round(statistics.median(beyond), 4),
        }
    ]


def on_a_gpu(root: Path, paths: list[Path]) -> list[dict[str, Any]]:
    """Clips per second and the share of the time in which the GPU encodes, by batch size and arithmetic."""
    import torch

    what = "extract, ViT-B-32 on a GPU"
    if not torch.cuda.is_available():
        return [{"what": what, "note": "not measured: no GPU"}]
    rows = []
    for compute_dtype in ("float32", "bfloat16"):
        for size in (32, 128):
            with Extractor(
                samples(paths), weights=WEIGHTS, device="cuda", compute_dtype=compute_dtype, batch_size=size
            ) as extractor:
                call = whole(root, extractor, VIT, paths)
                call()
                before, start = extractor.seconds.encode, time.perf_counter()
                call()
                wall = time.perf_counter() - start
                share = round((extractor.seconds.encode - before) / wall, 3)
            about = {"clip s": 5, "clips": len(paths), "workers": extractor.workers}
            rows.append(
                {"what": f"{what}, {compute_dtype}, batch {size}", **about, **rate([wall], len(paths)), "encode": share}
            )
    return rows


def rate(times: list[float], clips: int, bound: float | None = None) -> dict[str, float]:
    """Least and median seconds, clips per second, and the ratio of the least to the bound."""
    found = {
        "min s": round(min(times), 3),
        "median s": round(statistics.median(times), 3),
        "clips/s": round(clips / min(times), 2),
    }
    return found if bound is None else {**found, "times bound": round(min(times) / bound, 3)}


if __name__ == "__main__":
    main()

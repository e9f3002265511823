"""Extraction against its bounds, and against the loops that people write.

    python benchmarks/extraction.py [--clips 12] [--rounds 3] [--quick]          about 5 minutes

Clips are 720p h264 with one keyframe, made in code; `encode` is ViT-B-32 with random weights.  With an encoder that
costs nothing the bound is decoding alone on the same workers; with a real one on the CPU it is (CPU seconds of decode
+ of encode) / cores.  Also: what a miss on demand costs beyond decode and encode, and peak memory.  On a GPU, where
there is one: clips per second, the share of the time in which it encodes, against the slower of decode and encode, by
batch size and arithmetic; and copies to it out of pinned memory and out of any other.
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
from harness import cpu_seconds, interleaved, options, save, scratch, seconds, table

from featurestore import Extractor, FeatureKey, FeatureStore, Sample, register_encoder
from featurestore.compute.extraction import extract
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
    lengths = {2: 4} if chosen.quick else {**LENGTHS_S, 5: chosen.clips}
    with scratch(chosen.dir) as root:
        rows, clips = [], {}
        for length, count in lengths.items():
            # Drawing a clip takes longer than decoding it: of the long ones all are alike.
            clips[length] = write_clips(root / f"clips{length}", count, length, different=3 if length <= 5 else 1)
            rows += against_decoding(root, clips[length], length, CORES, chosen.rounds)
        usual = 5 if 5 in lengths else 2
        rows += against_decoding(root, clips[usual], usual, 1, chosen.rounds)
        rows += against_both(root, clips[usual], usual, chosen.rounds)
        rows += on_demand(root, clips[usual])
        rows += on_a_gpu(root, clips[usual], usual)
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


def against_both(root: Path, paths: list[Path], length: int, rounds: int) -> list[dict[str, Any]]:
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
    about = {"clip s": length, "clips": len(paths), "workers": CORES}
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


def on_a_gpu(root: Path, paths: list[Path], length: int, device: str = "cuda") -> list[dict[str, Any]]:
    """By batch size and arithmetic: encode alone, and whole extracts against the slower of decode and encode."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        what = ("encode only, ViT-B-32 on a GPU", "extract, ViT-B-32 on a GPU", "copies of images to a GPU")
        return [{"what": each, "note": "not measured: no GPU"} for each in what]
    about = {"clip s": length, "clips": len(paths), "workers": CORES}
    rows: list[dict[str, Any]] = []
    with DecodePool(CORES) as pool:
        jobs = [pool.submit(decode, path) for path in paths]
        assert all(job.result() for job in jobs)  # workers are warm now
        decoding = seconds(lambda: [job.result() for job in [pool.submit(decode, path) for path in paths]])
    for compute_dtype in ("float32", "bfloat16"):
        for size in (32, 128):
            images = [np.zeros((size, 224, 224, 3), np.uint8)] * -(-len(paths) * 8 // size)
            with Extractor(
                samples(paths), weights=WEIGHTS, device=device, compute_dtype=compute_dtype, batch_size=size,
                workers=CORES,
            ) as extractor:  # fmt: skip
                encoder, call = extractor.encoder(VIT), whole(root, extractor, VIT, paths)
                call()
                # What comes back is an array, so the GPU was waited for.
                encoding = seconds(lambda e=encoder, i=images: [e.encode(batch) for batch in i])
                before = extractor.seconds.encode
                wall = seconds(call)
                busy = (extractor.seconds.encode - before) / wall
            case = f"ViT-B-32 on a GPU, {compute_dtype}, batch {size}"
            rows.append({"what": f"encode only, {case}", **about, **rate([encoding], len(paths))})
            limit = "decoding is slower" if decoding > encoding else "encoding is slower"
            shares = {"GPU busy": round(busy, 3), "note": limit}
            rows.append(
                {"what": f"extract, {case}", **about, **rate([wall], len(paths), max(decoding, encoding)), **shares}
            )
    return rows + (copies(device) if device == "cuda" else [])


def copies(device: str) -> list[dict[str, Any]]:
    """A batch of images from memory to a GPU: out of an array as numpy makes it, and out of pinned memory."""
    import torch

    images = torch.zeros((128, 224, 224, 3), dtype=torch.uint8)
    rows = []
    for what, source in (("pageable", images), ("pinned", images.pin_memory())):

        def copy(source: torch.Tensor = source) -> None:
            source.to(device, non_blocking=True)
            torch.cuda.synchronize()

        copy()
        taken = min(seconds(copy) for _ in range(20))
        gb_s = f"{images.nbytes / 1e9 / taken:.1f} GB/s"
        rows.append({"what": f"copies of images to a GPU, {what} memory", "min s": round(taken, 6), "note": gb_s})
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

"""Extraction against its bounds: decoding alone on the same workers, and decode plus encode over the cores.

    python benchmarks/extraction.py [--clips 24] [--rounds 3] [--encode 12]          about 5 minutes

Clips are 5 s of 720p h264 with one keyframe, made in code.  `encode` is ViT-B-32 with random weights on
the CPU.  Also: what a miss on demand costs beyond decode and encode, and the peak memory of an extract.
Does not show: a GPU (then decoding is the bound), other codecs, a slow disk.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from clips import decode, write_clips
from harness import interleaved, save, table

from featurestore import Extractor, FeatureKey, FeatureStore, Sample, register_encoder
from featurestore.extract import extract
from featurestore.media import DecodePool

FREE = FeatureKey("bench", "frame", "Free", "uniform", 8)
VIT = FeatureKey("bench", "frame", "ViT-B-32.none", "uniform", 8)
CORES = len(os.sched_getaffinity(0))

register_encoder("Free", "encoders:Free")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encode", type=int, default=12, help="clips that go through ViT-B-32")
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="extraction-"))
    try:
        paths = write_clips(root / "clips", arguments.clips)
        rows = against_decoding(root, paths, arguments.rounds)
        rows += against_both(root, paths[: arguments.encode])
        rows += on_demand(root, paths)
    finally:
        shutil.rmtree(root)
    save("extraction", {"clips": arguments.clips, "rounds": arguments.rounds, "cores": CORES, "rows": rows})
    print(table(rows))


def against_decoding(root: Path, paths: list[Path], rounds: int) -> list[dict[str, Any]]:
    """With an encoder that costs nothing an extract should take as long as decoding alone."""
    source = {path.stem: Sample(path.stem, video=path) for path in paths}
    number = iter(range(10**6))
    with DecodePool(CORES) as pool, Extractor({"bench": source}, workers=CORES) as extractor:

        def decode_only() -> None:
            jobs = [pool.submit(decode, path) for path in paths]
            for job in jobs:
                job.result()

        def whole() -> None:
            store = FeatureStore(root / f"free{next(number)}", compute=extractor)
            report = extract(store, FREE, list(source))
            assert report.computed == len(paths)

        decode_only()
        whole()  # both pools are warm now
        taken = interleaved({"decode only": decode_only, "extract, free encoder": whole}, rounds)
    least = min(taken["decode only"])
    return [
        {
            "what": name,
            "clips": len(paths),
            "s": round(statistics.median(times), 3),
            "clips/s": round(len(paths) / statistics.median(times), 2),
            "times bound": round(min(times) / least, 3),
        }
        for name, times in taken.items()
    ]


def against_both(root: Path, paths: list[Path]) -> list[dict[str, Any]]:
    """With a real encoder the bound is all CPU seconds over all cores."""
    source = {path.stem: Sample(path.stem, video=path) for path in paths}
    with Extractor({"bench": source}, weights={"ViT-B-32.none": "random:0"}, workers=CORES) as extractor:
        encoder = extractor.encoder(VIT)
        images = np.zeros((32, 224, 224, 3), np.uint8)
        encoder.encode(images)  # weights are read and threads are started
        encode_cpu = _cpu_seconds(lambda: [encoder.encode(images) for _ in range(len(paths) * 8 // 32)])
        decode_cpu = _cpu_seconds(lambda: [decode(path) for path in paths])
        extractor.pool()
        start = time.perf_counter()
        report = extract(FeatureStore(root / "vit", compute=extractor), VIT, list(source))
        wall = time.perf_counter() - start
        assert report.computed == len(paths)
    bound = (encode_cpu + decode_cpu) / CORES
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        {"what": "(decode + encode CPU s) / cores", "clips": len(paths), "s": round(bound, 3), "times bound": 1.0},
        {
            "what": "extract, ViT-B-32 on the CPU",
            "clips": len(paths),
            "s": round(wall, 3),
            "clips/s": round(len(paths) / wall, 2),
            "times bound": round(wall / bound, 3),
            "peak MiB with model": round(peak_mib),
        },
    ]


def on_demand(root: Path, paths: list[Path]) -> list[dict[str, Any]]:
    """`get` of samples that are not stored, one by one, beside the decode that each needs."""
    source = {path.stem: Sample(path.stem, video=path) for path in paths}
    beyond = []
    with Extractor({"bench": source}, workers=CORES) as extractor:
        store = FeatureStore(root / "demand", compute=extractor)
        store.get(FREE, paths[0].stem)  # starts the workers, makes the key's first commit
        for path in paths[1:]:
            before = extractor.seconds.decode + extractor.seconds.encode
            start = time.perf_counter()
            store.get(FREE, path.stem)
            wall = time.perf_counter() - start
            beyond.append(wall - (extractor.seconds.decode + extractor.seconds.encode - before))
    milliseconds = statistics.median(beyond) * 1e3
    return [{"what": "a miss beyond decode and encode, ms", "clips": len(beyond), "s": round(milliseconds / 1e3, 4)}]


def _cpu_seconds(call: Any) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()

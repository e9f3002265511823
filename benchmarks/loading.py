"""What one fusion run of MERTools' track 1 reads: three sets of one vector a sample, from files and from a store.

    python benchmarks/loading.py [--samples 29395] [--rounds 3] [--quick]       about 5 minutes and 1 GB of disk

Theirs is a pool of 8 processes that np.load one file a task, in the stand-in of tests/stand_ins; ours the reader
package in its place, which is opened anew in each round: it lists the store, reads its tables, and checks every row.
"later" is the same object asked again.  Files and store are in the page cache; both give the same bits, which is
compared.  Does not show: cold disks and network file systems, where a file a sample costs a trip each; frames (`-FRA`),
of which each sample has a number of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from harness import cpu_seconds, options, save, scratch, seconds, spread, table

from featurestore import FeatureStore

ROOT = Path(__file__).resolve().parents[1]
SETS = {
    "chinese-hubert-large": ("audio", 1024),
    "chinese-roberta-wwm-ext-large": ("au", 1024),
    "clip-vit-large-patch14": ("face", 768),
}


def main() -> None:
    chosen = options(__doc__, samples=(29_395, 300), rounds=(3, 1))
    sys.path[:0] = [str(ROOT / "tests" / "stand_ins"), str(ROOT / "scripts" / "reader_package")]
    with scratch(chosen.dir) as root:
        result = run(root, chosen.samples, chosen.rounds)
    save("loading", result)
    print(table(result["rows"]))
    print(f"{result['samples_read']} rows, {result['differing']} differ; {result['times faster']} times faster")


def run(root: Path, samples: int, rounds: int) -> dict[str, Any]:
    from featurestore_reader import checked
    from featurestore_reader.mertools import FeatureReader
    from toolkit.utils.read_data import func_read_multiprocess

    names = [f"samplenew3_{number:08d}" for number in np.random.default_rng(0).permutation(samples)]
    write(root, names)
    folders = [str(root / "files" / f"{encoder}-UTT") for encoder in SETS]
    readers: list[Any] = []

    def theirs() -> list[Any]:
        return [func_read_multiprocess(folder, names) for folder in folders]

    def ours() -> list[Any]:
        readers[:] = [FeatureReader(str(root / "features"), "mer2026")]
        return later()

    def later() -> list[Any]:
        return [readers[0](folder, names) for folder in folders]

    differing = sum(
        not same(one, other)
        for (found, _), (wanted, _) in zip(ours(), theirs(), strict=True)
        for one, other in zip(found, wanted, strict=True)
    )
    calls = {"np.load, a pool of 8": theirs, "featurestore-reader": ours, "featurestore-reader, later": later}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            cpu_s = cpu_seconds()
            wall_s = seconds(call)
            taken[name].append((wall_s, cpu_seconds() - cpu_s))
    rows = []
    for name, values in taken.items():
        row = {"what": name, **spread(wall for wall, _ in values)}
        pairs = zip(values, taken["np.load, a pool of 8"], strict=True)
        row["times faster"] = round(spread(base / wall for (wall, _), (base, _) in pairs)["median"], 1)
        row["CPU s"] = spread(cpu for _, cpu in values)["median"]
        rows.append(row)
    return {
        "samples": samples,
        "samples_read": samples * len(SETS),
        "checked": checked,
        "differing": differing,
        "times faster": rows[1]["times faster"],
        "rows": rows,
    }


def same(one: Any, other: Any) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


def write(root: Path, names: list[str]) -> None:
    """The same vectors as files, as MERTools' scripts write them, and in a store, in the order of a listing."""
    generator, store = np.random.default_rng(0), FeatureStore(root / "features")
    for encoder, (modality, dim) in SETS.items():
        folder = root / "files" / f"{encoder}-UTT"
        folder.mkdir(parents=True)
        values = generator.standard_normal((len(names), dim), dtype=np.float32)
        for name, row in zip(names, values, strict=True):
            np.save(folder / f"{name}.npy", row)
        order = np.argsort(names)
        key = f"mer2026/{modality}/{encoder}/utterance/1"
        store.put_many(key, [names[i] for i in order], values[order, None], recipe={"imported": True})


if __name__ == "__main__":
    main()

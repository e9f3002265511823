"""Import and audit of a tree of .npy folders, against np.load over the same files; and the way back.

    python benchmarks/importing.py [--rounds 3] [--sets 9] [--quick]        about 2 minutes and 1.5 GB of disk

The tree has the 12,799 test samples of the nine sets, (8, 768) float32. "cold" drops the files from the page
cache before each run. On a busy machine the import, which uses several threads and waits for the disk, is slowed
down more than np.load; CPU seconds tell how much work each is. Does not show: slower disks (the import is durable,
np.load only reads), other row sizes.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import cpu_seconds, options, save, scratch, seconds, spread, table

from featurestore import FeatureStore
from featurestore.affectgpt.exporting import export_tree, exportable
from featurestore.affectgpt.importing import import_tree
from featurestore.datasets import dataset_names, resolve_dataset

FOLDER = "frame_CLIP_VIT_LARGE_emotion_peak_8frms"


def main() -> None:
    chosen = options(__doc__, rounds=(3, 1), sets=(9, 1))
    with scratch(chosen.dir) as root:
        result = run(root, chosen.rounds, chosen.sets)
    save("importing", result)
    print(table(result["rows"]))
    print(f"files {result['files']}, differing after the way back {result['differing']}, findings {result['findings']}")


def run(root: Path, rounds: int, sets: int) -> dict[str, Any]:
    tree = root / "preextracted_features"
    files = write_tree(tree, sets)
    fresh = iter(range(10**6))

    def load() -> None:
        for file in files:
            np.load(file)

    def take_in() -> None:
        import_tree(tree, FeatureStore(root / f"store{next(fresh)}"))

    calls: dict[str, Callable[[], Any]] = {
        "np.load": load,
        "import": take_in,
        "audit": lambda: import_tree(tree, None, audit=True),
    }

    def tidy() -> None:
        """Stores of earlier rounds fill the page cache, in which the files of the tree should stay."""
        for store in sorted(root.glob("store*")):
            shutil.rmtree(store)
        load()

    rows = measure("warm", calls, rounds, tidy)
    os.sync()  # pages that are not written yet cannot be dropped
    rows += measure("cold", {name: calls[name] for name in ("np.load", "import")}, rounds, lambda: drop(files))
    store = FeatureStore(root / "back-from")
    import_tree(tree, store)
    for key in exportable(store):
        export_tree(store, key, root / "back")
    pairs = [(file, root / "back" / file.relative_to(tree)) for file in files]
    differing = sum(not filecmp.cmp(one, other, shallow=False) for one, other in pairs)
    findings = len(import_tree(tree, None, audit=True).findings)
    return {"files": len(files), "rows": rows, "differing": differing, "findings": findings}


def measure(
    state: str, calls: dict[str, Callable[[], Any]], rounds: int, before: Callable[[], Any]
) -> list[dict[str, Any]]:
    """Rows with wall seconds, CPU seconds, and both as multiples of np.load in the same round."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            before()
            cpu_s = cpu_seconds()
            wall_s = seconds(call)
            taken[name].append((wall_s, cpu_seconds() - cpu_s))
    rows = []
    for name, values in taken.items():
        pairs = list(zip(values, taken["np.load"], strict=True))
        row = {"what": name, "cache": state, **spread(wall for wall, _ in values)}
        row["x np.load"] = spread(wall / base for (wall, _), (base, _) in pairs)["median"]
        row["CPU s"] = spread(cpu for _, cpu in values)["median"]
        row["CPU x np.load"] = spread(cpu / base for (_, cpu), (_, base) in pairs)["median"]
        rows.append(row)
    return rows


def write_tree(tree: Path, sets: int) -> list[Path]:
    generator = np.random.default_rng(0)
    files = []
    for name in dataset_names():
        if len({file.parent for file in files}) == sets:
            break
        split = resolve_dataset(name).splits.get("test")
        if split is None or split.count is None or split.count > 10_000:
            continue
        folder = tree / name / FOLDER
        folder.mkdir(parents=True)
        for number in range(split.count):
            files.append(folder / f"sample_{number:08d}.npy")
            np.save(files[-1], generator.standard_normal((8, 768), dtype=np.float32))
    return files


def drop(files: list[Path]) -> None:
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


if __name__ == "__main__":
    main()

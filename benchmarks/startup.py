"""What starting costs: imports, help, the first hit, and a second extract over everything that is stored.

    python benchmarks/startup.py [--rounds 9] [--quick]          about 1 minute

CPU seconds are what waits for nothing but the processor; on a quiet machine they are the wall seconds.
Does not show: a cold page cache, network file systems.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from harness import cpu_seconds, interleaved, options, save, scratch, seconds, table

from featurestore import FeatureKey, FeatureStore

KEY = FeatureKey("bench", "frame", "CLIP_VIT_LARGE", "uniform", 8)
CLI = "import sys; from featurestore.cli import main; sys.exit(main())"  # what the script `fstore` does
STORED = 12_799  # the test samples of the nine sets of MER-UniBench


def main() -> None:
    chosen = options(__doc__, rounds=(9, 2))
    with scratch(chosen.dir) as root:
        # As where it is installed: else each start compiles the sources anew.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(root / "compiled")
        rows = [*processes(root, chosen.rounds), second_run(root)]
    save("startup", {"rounds": chosen.rounds, "rows": rows})
    print(table(rows))


def processes(root: Path, rounds: int) -> list[dict[str, object]]:
    """Least seconds of whole processes, and CPU seconds above a Python that does nothing."""
    FeatureStore(root / "small").put_many(
        KEY, ["one"], np.ones((1, 8, 768), np.float32), recipe={"benchmark": "startup"}
    )
    hit = f"from featurestore import FeatureStore; FeatureStore({str(root / 'small')!r}).get({str(KEY)!r}, 'one')"
    programs = {
        "python, nothing": ["-c", "pass"],
        "import featurestore": ["-c", "import featurestore"],
        "import affect_infer": ["-c", "import affect_infer"],
        "fstore --help": ["-c", CLI, "--help"],
        "fstore ls": ["-c", CLI, "ls", "--store", str(root / "small")],
        "first hit in a process": ["-c", hit],
        "import zarr (what a hit does not need)": ["-c", "import zarr"],
    }

    spent: dict[str, list[float]] = {name: [] for name in programs}

    def run(name: str) -> None:
        before = cpu_seconds()
        subprocess.run([sys.executable, *programs[name]], check=True, stdout=subprocess.DEVNULL)
        spent[name].append(cpu_seconds() - before)

    taken = interleaved({name: lambda name=name: run(name) for name in programs}, rounds)
    bare = min(spent["python, nothing"])
    return [
        {
            "start": name,
            "wall s": round(min(times), 3),
            "CPU s": round(min(spent[name]), 4),
            "above bare python CPU s": max(0.0, round(min(spent[name]) - bare, 4)),
        }
        for name, times in taken.items()
    ]


def second_run(root: Path) -> dict[str, object]:
    """`fstore extract` where everything is stored already; the process must not import torch."""
    folder = root / "media"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"never opened: everything is stored")
    ids = [f"sample_{i:08d}" for i in range(STORED)]
    (root / "manifest.csv").write_text("id,video\n" + "".join(f"{id},media/a.mp4\n" for id in ids))
    program = (
        "import sys\n"
        "from featurestore import FeatureKey, FeatureStore, Extractor, read_manifest\n"
        "from featurestore.compute.extraction import extract\n"
        f"key = FeatureKey.parse('bench/frame/ViT-S-32.none/uniform/8')\n"
        f"source = read_manifest({str(root / 'manifest.csv')!r})\n"
        "extractor = Extractor({'bench': source}, weights={'ViT-S-32.none': 'random:0'})\n"
        f"store = FeatureStore({str(root / 'big')!r}, compute=extractor)\n"
        "if sys.argv[1:] == ['fill']:\n"
        "    import numpy as np\n"
        "    values = np.random.default_rng(0).standard_normal((len(source), 8, 384), dtype=np.float32)\n"
        "    provenance = [{'sources': [{'path': str(s.video), 'size': s.video.stat().st_size,\n"
        "                   'mtime_ns': s.video.stat().st_mtime_ns, 'sha256': ''}]} for s in source.values()]\n"
        "    store.put_many(key, list(source), values, recipe=extractor.recipe(key), provenance=provenance)\n"
        "else:\n"
        "    report = extract(store, key, list(source))\n"
        "    assert report.stored_before == len(source) and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, "fill"], check=True)
    taken, spent = [], []
    for _ in range(3):
        before = cpu_seconds()
        taken.append(seconds(lambda: subprocess.run([sys.executable, "-c", program], check=True)))
        spent.append(cpu_seconds() - before)
    return {"start": f"extract again, {STORED} stored", "wall s": round(min(taken), 3), "CPU s": round(min(spent), 3)}


if __name__ == "__main__":
    main()

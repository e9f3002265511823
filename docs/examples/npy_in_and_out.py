"""Move a tree of .npy folders into a store, read from the store instead, and write the same tree again.

The tree is one as AffectGPT's scripts write it, a folder for each kind of features and a file for each sample. Here
it is made of random numbers; point `fstore import` at yours.
"""

import filecmp
import subprocess
import sys
from pathlib import Path

import numpy as np

from featurestore import FeatureStore

TREE = Path("preextracted_features")
FOLDER = TREE / "mer2023" / "frame_CLIP_VIT_LARGE_emotion_peak_8frms"
KEY = "mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8"  # what the name of the folder says, as a key


def make_tree() -> None:
    """20 files of (8, 768) float32."""
    generator = np.random.default_rng(0)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for number in range(20):
        np.save(FOLDER / f"sample_{number:08}.npy", generator.standard_normal((8, 768), dtype=np.float32))


def fstore(*arguments: str) -> None:
    """Run the command line, as typed in an environment that is activated."""
    print("$ fstore", *arguments, flush=True)
    subprocess.run([Path(sys.executable).with_name("fstore"), *arguments], check=True)


def main() -> None:
    make_tree()
    fstore("import", str(TREE))  # --audit also says which files should not be trusted

    store = FeatureStore("features")
    ids = store.ids(KEY)
    stored = store.get_many(KEY, ids)  # (20, 8, 768), in place of 20 calls of np.load
    files = np.stack([np.load(FOLDER / f"{id}.npy") for id in ids])
    print("read back:", stored.shape, "bit for bit the same:", stored.tobytes() == files.tobytes())

    fstore("export", "--layout", "affectgpt", "back")
    back = Path("back", *FOLDER.parts[1:])
    names = sorted(path.name for path in FOLDER.iterdir())
    same, different, errors = filecmp.cmpfiles(FOLDER, back, names, shallow=False)
    print(f"written again: {len(same)} files the same byte for byte, {len(different) + len(errors)} not")


if __name__ == "__main__":
    main()

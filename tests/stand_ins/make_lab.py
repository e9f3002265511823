"""A lab's place for a page to run in: `python make_lab.py` makes it here.

`lab` is an environment without this package, of Python 3.10 where there is one with a numpy for it (which
tests/test_reader_package.py keeps), else of this Python; `dist` has the wheel of the reader; `MER2026_Track1` has the
stand-in of MERTools; `mer2026-dataset` and `mer2026-dataset-process` have labels and features of random numbers, in
the layout in which they are published, with the faults that such trees have.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]
from interpreters import interpreter  # noqa: E402

WORDS = ("neutral", "angry", "happy", "sad", "worried", "surprise")
TRAIN, CANDIDATES = 60, 40
SETS = {"chinese-hubert-large": 1024, "chinese-roberta-wwm-ext-large": 1024, "clip-vit-large-patch14": 768}


def make_environment() -> None:
    kept = ROOT / ".pytest_cache" / "d" / "old-packages" / "3.10-numpy-2.2.6-google-crc32c"
    python, packages = interpreter("3.10"), kept
    if python is None or not kept.is_dir():
        python, packages = sys.executable, Path(np.__file__).parents[1]
    subprocess.run([python, "-m", "venv", "lab"], check=True)
    (site,) = Path("lab/lib").glob("python*/site-packages")
    # By a link: Python 3.10 reads this file in the encoding of the locale, which may not hold the path.
    (site / "packages").symlink_to(packages)
    (site / "packages.pth").write_text("packages\n", encoding="utf-8")


def make_labels(names: list[str]) -> None:
    folder = Path("mer2026-dataset")
    folder.mkdir()
    write(folder / "track1_train.csv", ["name", "discrete"], ([n, WORDS[i % 6]] for i, n in enumerate(names[:TRAIN])))
    write(folder / "track1_track2_candidate.csv", ["name"], ([name] for name in names[TRAIN:]))
    write(folder / "subtitle_chieng.csv", ["name", "chinese", "english"], ([name, "好", "good"] for name in names))


def write(path: Path, header: list[str], rows: object) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])  # type: ignore[misc]


def make_features(names: list[str]) -> None:
    rng = np.random.default_rng(0)
    for stem, dim in SETS.items():
        made = [Path("mer2026-dataset-process/features", f"{stem}-{level}") for level in ("FRA", "UTT")]
        for folder in made:
            folder.mkdir(parents=True)
        for number, name in enumerate(names):
            frames = rng.standard_normal((8 + number % 5, dim), dtype=np.float32)
            if "roberta" in stem and number in (7, 70):
                frames = np.zeros((1, dim))  # of an empty text, and float64
            np.save(made[0] / f"{name}.npy", frames)
            np.save(made[1] / f"{name}.npy", frames.mean(axis=0))


def main() -> None:
    names = [f"sample_{number:08d}" for number in range(TRAIN)]
    names += [f"samplenew3_{number:08d}" for number in range(CANDIDATES)]
    make_environment()
    make_labels(names)
    make_features(names)
    build = ["sh", str(ROOT / "scripts" / "build_reader.sh"), sys.executable, "dist"]
    subprocess.run(build, check=True)
    Path("MER2026_Track1").mkdir()
    shutil.copytree(ROOT / "tests" / "stand_ins" / "toolkit", "MER2026_Track1/toolkit")


if __name__ == "__main__":
    main()

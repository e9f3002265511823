"""What the tests of the command line share: running `fstore`, in this process or one of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

from featurestore import FeatureStore
from featurestore.cli import fstore
from featurestore.storage.feature_set import FeatureSet

KEY = "mer2023/frame/CLIP_VIT_LARGE/uniform/8"
OTHER = "mer2023/audio/HUBERT_LARGE/const_clips/8"
IDS = ["sample_00000001", "sample_00000002", "-6aNcD3dYJg_00"]


PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell begin without
sys.path.insert(0, {tests!r})
from encoder_factories import NAMES
from featurestore import register_encoder
from featurestore.cli import main
for name, target in NAMES.items():
    register_encoder(name, target)
if __name__ == "__main__":
    main()
"""


def run(*words: object, input: str | None = None, exit_code: int = 0) -> Result:
    """One `fstore` line; its exit code must be the expected one.  What is raised on purpose is no traceback."""
    result = CliRunner().invoke(fstore, [str(word) for word in words], input=input)
    assert result.exit_code == exit_code, f"{result.output}\n{result.exception!r}"
    assert "Traceback" not in result.output
    return result


def program(folder: Path) -> list[str]:
    """`fstore` with the encoders of these tests, as a process of its own."""
    script = folder / "fstore_with_encoders.py"
    script.write_text(PROGRAM.format(tests=str(Path(__file__).parent)))
    return [sys.executable, str(script)]


def files(root: Path) -> dict[Path, bytes]:
    """What is in a store, lock files left out."""
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"}


def values(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((count, 8, 4)).astype("f4")


def make_store(folder: Path) -> Path:
    """The root of a store with two keys; the first has one recipe, in two segments."""
    store = FeatureStore(folder / "my features")
    video = folder / "a video.mp4"
    video.write_bytes(b"frames")
    status = video.stat()
    source = {
        "path": str(video),
        "size": 6,
        "mtime_ns": status.st_mtime_ns,
        "sha256": "08ac2211b19a46e69c28b85018e46c61d3d94e6c96fb9e53a1e5b4c9e37ea0b9",
    }
    store.put_many(
        KEY,
        IDS[:2],
        values(2),
        recipe={"weights": "a", "dtype": "float32"},
        frame_indices=np.tile(np.arange(8) * 5, (2, 1)),
        timestamps_s=np.tile(np.arange(8) / 5, (2, 1)),
        provenance=[{"sources": [source], "note": {"peak": 10}}, {}],
    )
    store.put_many(KEY, IDS[2:], values(1, 1), recipe={"weights": "a", "dtype": "float32"})
    store.put_many(OTHER, ["x"], values(1).astype("f2"), recipe={"origin": "imported"})
    return store.root


def feature_set_of(root: Path, key: str = KEY) -> FeatureSet:
    feature_set = FeatureStore(root).feature_set(key)
    assert feature_set is not None
    return feature_set


def second_recipe(root: Path) -> tuple[str, str]:
    """Prefixes of the first and of a second recipe."""
    first = feature_set_of(root).fingerprint
    FeatureStore(root).put_many(KEY, ["only here"], values(1), recipe={"weights": "b"})
    (second,) = set(FeatureStore(root).recipes(KEY)) - {first}
    return first[:8], second[:8]


def first_recipe(root: Path) -> str:
    return next(name for name, recipe in FeatureStore(root).recipes(KEY).items() if "weights" in recipe.data)

"""Wrote the store of `format2/`, once: python tests/golden/make_format2.py NEW_FOLDER.

The store that is committed was written by the first version of format 2 and is never written again: every later version
must read it, bit for bit as `expected.json` says.  It holds what a store can hold: stacked and ragged samples of every
dtype, of frames with one axis and with several, with and without checksums of their own, in one inner chunk and in
several with zeros behind the last; bfloat16; two recipes of one key; overwritten and deleted samples whose old segments
are still there; a segment of no samples; ids that are no file names; the record of a failure; manifests, and the list
of keys.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import sys
import zlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from featurestore import Failure, FeatureKey, Features, FeatureStore, Recipe
from featurestore.storage import writer
from featurestore.storage.feature_set import FeatureSet
from featurestore.storage.rows import IMPORTED

FRAME = FeatureKey("mer2023", "frame", "CLIP_VIT_LARGE", "uniform", 2)
TOKENS = FeatureKey("mer2023", "frame", "DINO2_LARGE", "uniform", 3)
WIDE = FeatureKey("mer2023", "frame", "WIDE", "uniform", 1)
PIXELS = FeatureKey("mer2023", "face", "PIXELS", "all", "all")
MANY = FeatureKey("mer2023", "face", "MANY", "uniform", 1)
LAYERS = FeatureKey("mer2023", "audio", "HUBERT_LARGE", "windows", "all")
AUDIO = FeatureKey("mer2023", "audio", "HUBERT_LARGE", "const_clips", 1)
TEXT = FeatureKey("iemocap", "au", "CLIP_TEXT", "au_summary", "all")
FUSED = FeatureKey("iemocap", "multi", "A.B", "complete", 1)
ONE = Recipe({"encoder": {"name": "CLIP_VIT_LARGE", "weights": "sha256:00"}, "dtype": "float32", "é": [1, 2.5, None]})
TWO = Recipe({"origin": "import", "dtype": "float16"})
THREE = Recipe({"origin": "import", "dtype": "float64"})


def values(seed: int, *shape: int, dtype: Any = np.float32) -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def pixels(seed: int, *shape: int) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write(root: Path) -> None:
    store = FeatureStore(root)
    sources = [{"path": "videos/é 1.mp4", "size": 12345, "mtime_ns": 1753000000123456789, "sha256": "ab" * 32}]
    store.put_many(
        FRAME,
        ["plain", "../é/样本", "overwritten", "deleted"],
        np.stack([values(seed, 2, 3) for seed in range(4)]),
        recipe=ONE,
        frame_indices=np.array([[0, 7], [3, 3], [1, 2], [5, 6]], np.int64),
        timestamps_s=np.array([[0.0, 0.28], [0.12, 0.12], [0.04, 1 / 3], [0.2, 0.24]]),
        provenance=[{"sources": sources, "note": {"peak": 3}}, {"sources": []}, {}, {}],
    )
    store.put_many(FRAME, ["-later"], values(10, 1, 2, 3), recipe=ONE)
    store.put_many(FRAME, ["overwritten"], values(11, 1, 2, 3), recipe=ONE, overwrite=True)
    store.delete(FRAME, ["deleted"], fingerprint=ONE.fingerprint)
    store.put_many(FRAME, ["half"], values(20, 1, 2, 3, dtype=np.float16), recipe=TWO)
    store.put_many(FRAME, ["plain"], values(21, 1, 2, 3, dtype=np.float16), recipe=TWO)
    store.compact(FRAME, fingerprint=TWO.fingerprint)
    store.put_many(TOKENS, ["a", "b"], values(30, 2, 3, 4, 5), recipe=ONE, axes=("token", "feature"))
    brain = values(31, 3, 4, 5, dtype=ml_dtypes.bfloat16)
    store.put(TOKENS, "bfloat16", brain, recipe=ONE, axes=("token", "feature"))
    # Frames of 16 KiB, which have checksums of their own.
    store.put_many(WIDE, ["a", "b"], np.arange(8192, dtype=np.float32).reshape(2, 1, 4096), recipe=ONE)
    store.put_many(
        PIXELS, ["one", "three"], [pixels(40, 1, 4, 5, 3), pixels(41, 3, 4, 5, 3)], recipe=ONE,
        axes=("height", "width", "channel"),
    )  # fmt: skip
    writer.CHUNK_BYTES = 64  # several inner chunks of some kB
    store.put_many(MANY, [f"s{number}" for number in range(101)], pixels(50, 101, 1, 2), recipe=ONE)
    layers = [values(seed, n, 2, 3, dtype=np.float16) for seed, n in ((60, 70), (61, 30), (62, 1))]
    store.put_many(LAYERS, ["long", "longer", "short"], layers, recipe=ONE, axes=("layer", "feature"))
    writer.CHUNK_BYTES = 1 << 20
    lengths = (1, 3, 2, 1)
    store.put_many(TEXT, ["one", "three", "two", "more"], [values(70 + n, n, 3) for n in lengths], recipe=ONE)
    store.put_many(TEXT, ["more"], [values(80, 5, 3)], recipe=ONE, overwrite=True)
    store.put_many(AUDIO, ["gone"], values(90, 1, 1, 3), recipe=ONE)
    store.delete(AUDIO, ["gone"])
    FeatureSet(root, FUSED, THREE.fingerprint, THREE).put(
        {id: Features(values(seed, 1, 3, dtype=np.float64)) for seed, id in ((100, "a"), (101, "b"))}, dtypes=IMPORTED
    )
    feature_set = store.feature_set(TEXT)
    assert feature_set is not None
    feature_set.fail("broken", Failure("description", "broken: no summary_description", sources=sources))
    store.compact(AUDIO)  # nothing to merge; a manifest and the list of keys are written at its end


def expected(root: Path) -> list[dict[str, Any]]:
    """Every row as JSON; the bytes of the values in base64, compressed."""
    store = FeatureStore(root)
    rows = []
    for key in store.keys():
        for fingerprint in store.recipes(key):
            feature_set = store.feature_set(key, fingerprint=fingerprint)
            assert feature_set is not None
            for id in store.ids(key, fingerprint=fingerprint):
                features = store.get_features(key, id, fingerprint=fingerprint)
                line = feature_set.line(id)
                raw = features.values.astype(features.values.dtype.newbyteorder("<")).tobytes()
                rows.append(
                    {
                        "key": str(key),
                        "recipe": fingerprint,
                        "dtype": str(features.values.dtype),
                        "shape": features.values.shape,
                        "axes": features.axes,
                        "values": base64.b64encode(zlib.compress(raw, 9)).decode(),
                        "line": line,
                    }
                )
    return rows


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir()  # refuses to write over the one that is there
    socket.gethostname = lambda: "host"
    write(folder / "store")
    for made_on_demand in (folder / "store" / ".fstore").rglob("*"):
        if made_on_demand.name in ("locks", "tmp"):
            shutil.rmtree(made_on_demand)
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in expected(folder / "store"))
    (folder / "expected.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

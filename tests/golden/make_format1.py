"""Wrote the store of `format1/`, once: python tests/golden/make_format1.py NEW_FOLDER.

The store that is committed was written by the first version of format 1 and is never written again:
every later version must read it, bit for bit as `expected.json` says.  It holds what a store can hold:
three keys, two recipes of one of them, float16 and float32, rows of several lengths, compressed rows, an
overwritten and a deleted row whose old segments are still there, a segment of no rows, ids that are no
file names, and the record of a failure.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore import Failure, FeatureKey, FeatureStore, Recipe

FRAME = FeatureKey("mer2023", "frame", "CLIP_VIT_LARGE", "uniform", 2)
AUDIO = FeatureKey("mer2023", "audio", "HUBERT_LARGE", "const_clips", 1)
TEXT = FeatureKey("iemocap", "au", "CLIP_TEXT", "au_summary", "all")
ONE = Recipe({"encoder": {"name": "CLIP_VIT_LARGE", "weights": "sha256:00"}, "dtype": "float32", "é": [1, 2.5, None]})
TWO = Recipe({"origin": "import", "dtype": "float16"})


def values(seed: int, n: int = 2, dtype: Any = np.float32) -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal((n, 3)).astype(dtype)


def write(root: Path) -> None:
    store = FeatureStore(root)
    sources = [{"path": "videos/é 1.mp4", "size": 12345, "mtime_ns": 1753000000123456789, "sha256": "ab" * 32}]
    store.put_many(
        FRAME,
        ["plain", "../é/样本", "overwritten", "deleted"],
        np.stack([values(seed) for seed in range(4)]),
        recipe=ONE,
        frame_indices=np.array([[0, 7], [3, 3], [1, 2], [5, 6]], np.int64),
        timestamps_s=np.array([[0.0, 0.28], [0.12, 0.12], [0.04, 1 / 3], [0.2, 0.24]]),
        provenance=[{"sources": sources, "note": {"peak": 3}}, {"sources": []}, {}, {}],
    )
    store.put_many(FRAME, ["-later"], values(10)[None], recipe=ONE)
    store.put_many(FRAME, ["overwritten"], values(11)[None], recipe=ONE, overwrite=True)
    store.delete(FRAME, ["deleted"], fingerprint=ONE.fingerprint)
    for seed, id in ((20, "half"), (21, "plain")):
        store.put_many(FRAME, [id], values(seed, dtype=np.float16)[None], recipe=TWO)
    store.compact(FRAME, fingerprint=TWO.fingerprint, codec="zstd")
    store.put_many(TEXT, ["one", "three", "two", "more"], [values(30 + n, n) for n in (1, 3, 2, 1)], recipe=ONE)
    store.put_many(AUDIO, ["gone"], values(40, 1)[None], recipe=ONE)
    store.delete(AUDIO, ["gone"])
    feature_set = store.feature_set(TEXT)
    assert feature_set is not None
    feature_set.fail("broken", Failure("description", "broken: no summary_description", sources=sources))


def expected(root: Path) -> list[dict[str, Any]]:
    """Every row as JSON; float32 and float16 survive that unchanged."""
    store = FeatureStore(root)
    rows = []
    for key in store.keys():
        for fingerprint in store.recipes(key):
            for id in store.ids(key, fingerprint=fingerprint):
                features = store.get_features(key, id, fingerprint=fingerprint)
                frames, seconds = features.frame_indices, features.timestamps_s
                rows.append(
                    {
                        "key": str(key),
                        "recipe": fingerprint,
                        "id": id,
                        "dtype": str(features.values.dtype),
                        "values": features.values.tolist(),
                        "frame_indices": None if frames is None else frames.tolist(),
                        "timestamps_s": None if seconds is None else seconds.tolist(),
                        "provenance": features.provenance,
                    }
                )
    return rows


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir()  # refuses to write over the one that is there
    write(folder / "store")
    for made_on_demand in (folder / "store" / ".fstore").rglob("*"):
        if made_on_demand.name in ("locks", "tmp"):
            shutil.rmtree(made_on_demand)
    text = json.dumps(expected(folder / "store"), ensure_ascii=False, indent=1)
    (folder / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

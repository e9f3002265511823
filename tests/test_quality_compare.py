"""The one comparison of features: what rounding explains passes, what went wrong does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_factories import make_clip, make_tower
from comparisons import Array, smooth_images

from featurestore import Extractor, FeatureKey, FeatureStore, read_manifest
from featurestore.demo import write_dataset
from featurestore.encoders import load_encoder
from featurestore.quality.compare import DEEPEST, STEP, alike, bound, distance, farthest, layers, rounding

ROWS = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)


def test_a_distance_by_hand() -> None:
    one, other = np.array([[3.0, 4.0], [0.0, 1.0]], np.float32), np.array([[3.0, 4.0], [2.0, 0.0]], np.float32)
    off = distance(one, other)
    assert (off.max_abs, off.scale, off.relative, off.cosine, off.length) == (2.0, 4.0, 0.5, 0.0, 2.0)
    same = distance(one, one)
    assert (same.max_abs, same.relative, same.length) == (0.0, 0.0, 1.0)
    assert same.cosine == pytest.approx(1.0)
    assert distance(one[:0], one[:0]).within(0.0)


def test_a_zero_row_is_like_a_zero_row_and_like_no_other() -> None:
    zero = np.zeros((2, 4), np.float32)
    one = np.ones((2, 4), np.float32)
    both, either = distance(zero, zero), distance(zero, one)
    assert (both.relative, both.cosine, both.length) == (0.0, 1.0, 1.0)
    assert (either.relative, either.cosine, either.length) == (1.0, 0.0, float("inf"))
    assert alike(both.cosine, both.length)
    assert not alike(either.cosine, either.length)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_near_nothing(bad: float) -> None:
    spoilt = ROWS.copy()
    spoilt[3, 5] = bad
    for off in (distance(ROWS, spoilt), distance(spoilt, ROWS), farthest([(ROWS, ROWS), (ROWS, spoilt)])):
        assert not off.within(1.0)
        assert not alike(off.cosine, off.length)


def test_the_sample_that_is_farthest_off_counts_however_small_its_values_are() -> None:
    small = ROWS / 1000
    assert farthest([(ROWS, ROWS), (small, small * 1.5)]).relative == pytest.approx(1 / 3)


def test_normalised_rows_have_the_same_direction_and_are_not_alike() -> None:
    off = distance(ROWS, ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True))
    assert off.cosine == pytest.approx(1.0)
    assert not alike(off.cosine, off.length)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("CLIP_VIT_LARGE", 24), ("CLIP_TEXT", 12), ("HUBERT_LARGE", 24), ("WAVLM_LARGE", 24), ("DATA2VEC_BASE", 12),
        ("DINO2_LARGE", 24), ("SigLIP_SO", 27), ("ViT-B-32.none", 12), ("RN50.none", 16), ("coca_ViT-L-14.none", 24),
        ("convnext_base.none", None),
    ],
)  # fmt: skip
def test_every_encoder_says_how_deep_it_is(name: str, blocks: int | None) -> None:
    """timm's do not: they are taken for the deepest."""
    config = load_encoder(name, "random:0").config()
    assert layers(config) == layers({"encoder": {"version": 1, "config": config}, "dtype": "float32"}) == blocks
    assert bound(config) == rounding(blocks or DEEPEST)


def test_the_bound_follows_from_dtype_and_depth() -> None:
    assert rounding(1) < rounding(12) < rounding(48) < rounding(1, "float16") < rounding(1, "bfloat16")
    assert bound({}) == bound({"origin": "imported"}) == bound({"encoder": 3}) == rounding(DEEPEST)
    assert bound({"compute_dtype": "bfloat16"}) == rounding(DEEPEST, "bfloat16")
    kept = bound({}, np.dtype("f4"), np.dtype("f2"))
    assert kept == rounding(DEEPEST) + STEP


@pytest.mark.parametrize("layers", [[], [0], True, "12", [1, "2"], -1, None])
def test_layers_that_are_none_are_taken_for_the_deepest(layers: Any) -> None:
    assert bound({"architecture": {"layers": layers}}) == rounding(DEEPEST)


def test_float16_rows_on_either_side_of_a_step_are_the_same() -> None:
    """Values that differ by a last bit of float32 may be stored a step of float16 apart."""
    middle = np.float32(1 + 2.0**-11)
    one, other = (np.full((1, 4), value, np.float32) for value in (np.nextafter(middle, 0), np.nextafter(middle, 2)))
    off = distance(one.astype(np.float16), other.astype(np.float16))
    assert off.relative > 9e-4
    assert not off.within(bound({}))
    assert off.within(bound({}, np.dtype("f2")))


# -- errors that it must find: each is at least ten times as far off as rounding goes ----------------------------------


def left_out(encoder: Any) -> None:
    chain = max((part for part in encoder.network.modules() if type(part).__name__ == "ModuleList"), key=len)
    del chain[len(chain) // 2]


def wrongs(encoder: Any, images: Array) -> dict[str, Array]:
    """{what went wrong: the rows then}."""
    right = encoder.encode(images)
    swapped, stray = right.copy(), right[:4].copy()
    swapped[[0, 1]] = right[[1, 0]]
    stray[2] = right[4]
    said = encoder.describe()
    found = {
        "two rows swapped": swapped[:4],
        "a row of another sample": stray,
        "channels swapped": encoder.encode(images[:4, ..., ::-1].copy()),
        "one row shifted by one pixel": np.concatenate([encoder.encode(np.roll(images[:1], 1, axis=2)), right[1:4]]),
    }
    encoder.describe = lambda: {**said, "mean": [0.0] * 3, "std": [1.0] * 3}
    found["not normalised"] = encoder.encode(images[:4])
    encoder.describe = lambda: said
    left_out(encoder)
    found["a layer left out"] = encoder.encode(images[:4])
    return found


@pytest.mark.parametrize("kind", ["CLIP", "vit of 12 layers"])
def test_real_errors_are_far_beyond_rounding(kind: str, tmp_path: Path) -> None:
    if kind == "CLIP":
        encoder: Any = load_encoder("CLIP_VIT_LARGE", str(make_clip(tmp_path / "clip")), "cpu")
        images = smooth_images()
    else:
        encoder = load_encoder("RN50.none", str(make_tower("vit", tmp_path / "vit", layers=12)), "cpu")
        images = smooth_images()[:, ::3, ::3][:, :64, :64].copy()
    allowed = bound(encoder.config())
    alone = np.concatenate([encoder.encode(image[None]) for image in images])
    right = encoder.encode(images)
    assert distance(alone, right).within(allowed)
    for what, rows in wrongs(encoder, images).items():
        assert distance(rows, right[:4]).relative > 10 * allowed, what


# -- the whole way: extract here, make again elsewhere -----------------------------------------------------------------

AGAIN = """
import sys
from pathlib import Path
from featurestore import Extractor, FeatureKey, read_manifest
from featurestore.quality import check_store
if __name__ == "__main__":
    root, manifest, weights, key, batch = sys.argv[1:]
    source = {"demo": read_manifest(manifest)}
    options = {"weights": {"RN50.none": weights}, "workers": 1, "batch_size": int(batch), "device": "cpu"}
    with Extractor(source, **options) as compute:
        report = check_store(Path(root), {FeatureKey.parse(key): None}, sources=source, recompute=4, compute=compute)
    print(report.made_again, *(f"{finding.kind}:{','.join(finding.ids)}" for finding in report.findings))
"""


def made_again(folder: Path, key: str, batch: int, **settings: str) -> str:
    """What verify says in a process of its own, of four samples: there are no more."""
    (folder / "again.py").write_text(AGAIN)
    given = [folder / "store", folder / "demo" / "four.csv", folder / "tower", key, str(batch)]
    command = [sys.executable, str(folder / "again.py"), *map(str, given)]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_verify_is_silent_about_batches_threads_and_instructions_and_tells_mistakes(tmp_path: Path) -> None:
    pytest.importorskip("av")
    key = "demo/frame/RN50.none/uniform/4"
    write_dataset(tmp_path / "demo")
    lines = (tmp_path / "demo" / "manifest.csv").read_text().splitlines()
    (tmp_path / "demo" / "four.csv").write_text("\n".join(lines[:5]) + "\n")
    source = read_manifest(tmp_path / "demo" / "manifest.csv")
    ids = list(source)[:4]
    weights = str(make_tower("vit", tmp_path / "tower", layers=12))
    with Extractor({"demo": source}, weights={"RN50.none": weights}, workers=1, batch_size=64, device="cpu") as compute:
        store = FeatureStore(tmp_path / "store", compute=compute)
        store.get_many(key, ids)
        recipe = compute.recipe(FeatureKey.parse(key))
    other = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive", "ATEN_CPU_CAPABILITY": "default",
             "MKL_CBWR": "COMPATIBLE"}  # fmt: skip
    assert made_again(tmp_path, key, 1, **other) == "4"
    one, two = (store.get_features(key, id) for id in ids[:2])
    swapped = np.stack([two.values, one.values])
    frames = np.stack([one.frame_indices, two.frame_indices])  # type: ignore[arg-type]
    store.put_many(key, ids[:2], swapped, recipe=recipe, frame_indices=frames, overwrite=True)
    assert made_again(tmp_path, key, 4) == f"4 differs:{','.join(sorted(ids[:2]))}"

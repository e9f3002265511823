"""How far features of the same inputs come to lie apart, and how far wrong ones do.

    python benchmarks/rounding.py [--quick]     10 minutes on two cores

Every family of encoders, as a tiny checkpoint and some in full size with random weights, encodes the same rows in
batches of many sizes, at other places in the batch, and in processes with other numbers of threads and other
instructions.  The spread is the largest difference of a value between any two of those, by the largest value of its
row.  Beside it stands what `featurestore.quality.compare` allows, and the distance of results that are wrong on
purpose.

Does not show: GPUs, published weights, instructions that this processor lacks, other versions of the libraries.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import options, save, scratch, table

from featurestore.quality.compare import DEEPEST, MARGIN, SPREAD, UNIT, bound, distance, layers

HERE = Path(__file__).parent
SETTINGS: dict[str, dict[str, str]] = {
    "as it is": {},
    "ATEN_CPU_CAPABILITY=default": {"ATEN_CPU_CAPABILITY": "default"},
    "ATEN_CPU_CAPABILITY=avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "ATEN_CPU_CAPABILITY=avx512": {"ATEN_CPU_CAPABILITY": "avx512"},
}
BASE = "as it is"
THREADS = (1, 2, 4)
SIZES = (1, 2, 3, 4, 5, 7, 8, 12, 16, 24, 31, 32)  # of batches; three of them with other settings
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Network:
    """One to measure.

    make   its weights in a folder: a function of tests/checkpoint_factories.py with its arguments; "" for random:0
    """

    encoder: str
    make: tuple[str, ...] = ()
    depth: int = 0
    rows: int = 32

    def sizes(self, threads: int, setting: str) -> list[int]:
        """Of batches."""
        few = threads > 1 or not self.make or setting != BASE
        return [n for n in ((1, 8, 32) if few else SIZES) if n <= self.rows]


NETWORKS = {
    **{f"open_clip, {kind}": Network("RN50.none", ("make_tower", kind)) for kind in ("vit", "resnet", "coca")},
    **{f"open_clip, {depth} layers": Network("RN50.none", ("make_tower", "vit"), depth) for depth in (12, 48)},
    **{f"open_clip, {kind}": Network("RN50.none", ("make_tower", kind), rows=4) for kind in ("timm", "rotary")},
    "CLIP": Network("CLIP_VIT_LARGE", ("make_clip",), rows=8),
    "CLIP, text": Network("CLIP_TEXT", ("make_clip",)),
    "HuBERT": Network("HUBERT_LARGE", ("make_hubert",), rows=8),
    "WavLM": Network("WAVLM_LARGE", ("make_wavlm",), rows=8),
    "data2vec": Network("DATA2VEC_BASE", ("make_data2vec",), rows=8),
    "DINOv2": Network("DINO2_LARGE", ("make_dinov2",), rows=8),
    "SigLIP": Network("SigLIP_SO", ("make_siglip",), rows=8),
    "ViT-B/32, full size": Network("ViT-B-32.none", rows=8),
}
QUICK = ("open_clip, vit", "open_clip, coca", "CLIP, text", "open_clip, 12 layers")


def main() -> None:
    chosen = options(__doc__)
    names = QUICK if chosen.quick else tuple(NETWORKS)
    with scratch(chosen.dir) as folder:
        make_all(folder, names)
        lacking, spans, refused = [], {}, {}
        for setting, variables in SETTINGS.items():
            ran = run_child(folder, setting, variables, names)
            if ran is None:
                lacking.append(setting)
            else:
                spans[setting] = ran
                if what := json.loads((folder / "refused.json").read_text()):
                    refused[setting] = what
        wrong = json.loads((folder / "wrong.json").read_text())
    rows = [row for name in names for row in judged(name, spans, wrong)]
    print(table([{key: value for key, value in row.items() if key != "wrong"} for row in rows]))
    allowed = {dtype: {"unit": UNIT[dtype], "spread": SPREAD[dtype], "margin": MARGIN[dtype]} for dtype in DTYPES}
    save("rounding", {"settings": [name for name in SETTINGS if name not in lacking], "lacking": lacking,
                      "refused": refused, "allowed": allowed, "rows": rows})  # fmt: skip


def judged(name: str, spans: dict[str, Any], wrong: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row of the result for each dtype."""
    for dtype in DTYPES:
        found = {setting: each[name, dtype] for setting, each in spans.items() if (name, dtype) in each}
        if not found:
            continue
        config = wrong[name][dtype]["config"]
        blocks = layers(config) or DEEPEST
        least, most = (np.stack([each[i] for each in found.values()]) for i in (0, 1))
        within = max(spread(low, high) for low, high in zip(least, most, strict=True))
        apart = spread(least.min(0), most.max(0))
        allowed = bound(config)
        # A fresh network may scale a layer to nothing, or make one row of every picture: that is no mistake there.
        errors = {what: far for what, far in wrong[name][dtype]["errors"].items() if far > apart}
        nearest = min(errors, key=errors.__getitem__, default=None)
        yield {
            "network": name,
            "dtype": dtype,
            "blocks": blocks,
            "settings": len(found),
            "one process": within,
            "all": apart,
            "units a block": apart / UNIT[dtype] / math.sqrt(blocks + 2),
            "allowed": allowed,
            "allowed by all": allowed / apart if apart else None,
            "nearest": nearest,
            "nearest distance": errors.get(nearest),
            "nearest by allowed": errors[nearest] / allowed if nearest else None,
            "off float32": wrong[name][dtype]["off"],
            "wrong": errors,
        }


def spread(least: Any, most: Any) -> float:
    """The largest difference of a value, by the largest value of its row."""
    scale = np.maximum(np.abs(least), np.abs(most)).max(-1, keepdims=True)
    return float(((most.astype(np.float64) - least) / scale).max())


# -- processes of their own ------------------------------------------------------------------------------------------


def run_child(folder: Path, setting: str, variables: dict[str, str], names: tuple[str, ...]) -> dict[Any, Any] | None:
    """{(network, dtype): (least, most) of every value}, or None where this processor lacks the instructions."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", **variables}
    done = subprocess.run([sys.executable, __file__, str(folder), setting, *names], env=environment, check=False)
    if done.returncode == LACKING:
        print(f"this processor lacks {setting}", flush=True)
        return None
    if done.returncode:
        raise SystemExit(f"{setting}: exit code {done.returncode}")
    with np.load(folder / "spans.npz") as arrays:
        return {(name, dtype): (arrays[f"{name}|{dtype}|least"], arrays[f"{name}|{dtype}|most"])
                for name in names for dtype in DTYPES if f"{name}|{dtype}|least" in arrays}  # fmt: skip


LACKING = 77


def child(folder: Path, setting: str, names: list[str]) -> None:
    """Encode the rows of each network in every way that one process has."""
    import torch

    asked, exact = SETTINGS[setting].get("ATEN_CPU_CAPABILITY"), None
    if asked and asked != torch.backends.cpu.get_cpu_capability().lower():
        sys.exit(LACKING)
    arrays, wrong, refused = {}, {}, []
    for name in names:
        network = NETWORKS[name]
        # Without its vector instructions half precision of full size takes an hour.
        for dtype in DTYPES if network.make or setting == BASE else DTYPES[:1]:
            encoder = loaded(network, folder / name.replace("/", " "), dtype)
            half = dtype != "float32"
            rows = inputs(encoder, network.rows)[: 8 if half else None]
            ways: list[Any] = []
            try:
                for threads in THREADS if setting == BASE else THREADS[: 2 if asked else 1]:
                    torch.set_num_threads(threads)
                    sizes = [1, min(8, network.rows)] if half else network.sizes(threads, setting)
                    ways += every_way(encoder, rows, sizes)
            except RuntimeError as error:
                # On a processor with AMX torch itself refuses this without AVX-512.
                if not half or "only supported when avx512" not in str(error):
                    raise
                refused.append(f"{name} in {dtype}")
                continue
            finally:
                torch.set_num_threads(1)
            arrays[f"{name}|{dtype}|least"] = np.min(ways, axis=0)
            arrays[f"{name}|{dtype}|most"] = np.max(ways, axis=0)
            if setting == BASE:
                exact = exact if half else ways[0]
                off = distance(ways[0], exact[: len(rows)]).relative
                wrong.setdefault(name, {})[dtype] = {"config": encoder.config(), "off": off,
                                                     "errors": errors(encoder, rows)}  # fmt: skip
        print(f"{setting}: {name}", flush=True)
    np.savez(folder / "spans.npz", **arrays)
    (folder / "refused.json").write_text(json.dumps(refused))
    if setting == BASE:
        (folder / "wrong.json").write_text(json.dumps(wrong))


def every_way(encoder: Any, rows: Any, sizes: list[int]) -> Iterator[Any]:
    """The same rows in batches of each size, begun elsewhere: a row has other places and neighbours each time."""
    for size in sizes:
        order = [(size // 2 + i) % len(rows) for i in range(len(rows))]
        turned = [rows[i] for i in order] if isinstance(rows, list) else rows[order]
        parts = [encoder.encode(turned[at : at + size]) for at in range(0, len(order), size)]
        yield np.concatenate(parts)[np.argsort(order)]


# -- networks, what they are given, and what goes wrong --------------------------------------------------------------


def make_all(folder: Path, names: tuple[str, ...]) -> None:
    """The tiny checkpoints, by the functions that make those of the tests."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    import checkpoint_factories

    for name in names:
        network, own = NETWORKS[name], folder / name.replace("/", " ")
        if network.make:
            maker, *given = network.make
            more = {"layers": network.depth} if network.depth else {}
            getattr(checkpoint_factories, maker)(*given, own, **more)
            settings = own / "preprocessor_config.json"
            if settings.exists() and "sampling_rate" in settings.read_text():
                # Windows of a sample are normalised jointly: then another batch is another input.
                settings.write_text(json.dumps({**json.loads(settings.read_text()), "do_normalize": False}))


def loaded(network: Network, folder: Path, dtype: str) -> Any:
    from featurestore.encoders import load_encoder

    encoder: Any = load_encoder(network.encoder, str(folder) if network.make else "random:0", "cpu", dtype)
    if encoder.modality == "audio" and not network.make:
        described = {**encoder.describe(), "normalised": False}
        encoder.describe = lambda: described
    return encoder


def inputs(encoder: Any, count: int) -> Any:
    """Rows of what the encoder takes: gradients with noise, tones with noise, sentences; no two alike."""
    generator = np.random.default_rng(3)
    if encoder.modality == "frame":
        height, width = encoder.size
        y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
        base = np.stack([255 * x, 180 * y, 120 * (1 - x * y)], axis=-1)
        shade, noise = generator.uniform(0.5, 1, (count, 1, 1, 3)), generator.uniform(0, 30, (count, height, width, 3))
        return (base * shade + noise).astype(np.uint8)
    if encoder.modality == "audio":
        pitch = generator.uniform(80, 400, (count, 1))
        noise = generator.normal(0, 0.02, (count, 32000))
        return (0.1 * np.sin(2 * np.pi * pitch * np.arange(32000) / 16000) + noise).astype(np.float32)
    faces = ("brows raised", "a slight smile", "lips pressed", "eyes wide", "jaw dropped")
    return [f"The person shows {faces[n % 5]}, AU{n + 1} at {10 * n} %." for n in range(count)]


def errors(encoder: Any, rows: Any) -> dict[str, float]:
    """{what went wrong: how far the sample then is from the right one}; a sample is half of the rows, at most 8."""
    half = min(8, len(rows) // 2)
    right, other = encoder.encode(rows[:half]), encoder.encode(rows[half : 2 * half])
    found = {}
    if half > 1:
        order = [1, 0, *range(2, half)]
        found["two rows swapped"] = distance(right[order], right).relative
    stray = right.copy()
    stray[0] = other[0]
    found["a row of another sample"] = distance(stray, right).relative
    if encoder.modality == "frame":
        found["channels swapped"] = distance(encoder.encode(rows[:half, ..., ::-1].copy()), right).relative
        found["another filter"] = distance(*(encoder.encode(resized(rows[:half], kind)) for kind in range(2))).relative
    said = encoder.describe()
    changes = {"not normalised": {"mean": [0.0] * 3, "std": [1.0] * 3}, "normalised": {"normalised": True}}
    for name, change in changes.items():
        if change.keys() <= said.keys():
            encoder.describe = lambda changed={**said, **change}: changed
            found[name] = distance(encoder.encode(rows[:half]), right).relative
            encoder.describe = lambda: said
    if left_out(encoder.network):
        found["a layer left out"] = distance(encoder.encode(rows[:half]), right).relative
    return found


def resized(images: Any, kind: int) -> Any:
    """From three quarters of the size by a bilinear or a bicubic filter."""
    from PIL import Image

    height, width = images.shape[1:3]
    method = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)[kind]
    small = [Image.fromarray(image).resize((width * 3 // 4, height * 3 // 4)) for image in images]
    return np.stack([np.asarray(image.resize((width, height), method)) for image in small])


def left_out(network: Any) -> bool:
    """Take the middle one out of the longest chain of equal blocks; False where there is none."""
    import torch

    chains = [part for part in network.modules() if isinstance(part, torch.nn.ModuleList | torch.nn.Sequential)]
    chains = [chain for chain in chains if len(chain) > 1 and len({type(block) for block in chain}) == 1
              and len({str(block) for block in chain}) == 1]  # fmt: skip
    if not chains:
        return False
    chain = max(chains, key=len)
    del chain[len(chain) // 2]
    return True


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[2] in SETTINGS:
        child(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
    else:
        main()

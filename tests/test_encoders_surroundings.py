"""Features are those of their recipe whatever the process has set in torch, and the process finds it as it left it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_factories import MAKERS
from comparisons import assert_same, smooth_images
from torch.nn.attention import SDPBackend, sdpa_kernel

from featurestore import Extractor, FeatureKey, FeatureStore, Sample, encoders, register_encoder
from featurestore.encoders import load_encoder, surroundings
from featurestore.encoders.surroundings import undisturbed
from featurestore.quality.compare import bound, rounding

pytestmark = pytest.mark.filterwarnings("ignore:.*autocast:UserWarning")  # of a GPU that is not there

NAMES = ("CLIP_VIT_LARGE", "CLIP_TEXT", "HUBERT_LARGE", "DINO2_LARGE")  # one of each kind
TEXTS = ["Cheek raiser (intensity: 1.45)", "Neutral expression at the overall peak frame."]


def batch_for(name: str) -> Any:
    if name == "CLIP_TEXT":
        return TEXTS
    if name == "HUBERT_LARGE":
        return np.random.default_rng(0).normal(0, 0.1, (2, 32000)).astype(np.float32)
    return smooth_images()[:2]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: MAKERS[name](tmp_path_factory.mktemp("made") / name) for name in NAMES}


@pytest.fixture(scope="module")
def wanted(checkpoints: dict[str, Path]) -> dict[str, tuple[Any, Any]]:
    """{name: (encoder, features)} of a process that has set nothing."""
    loaded = {name: load_encoder(name, folder, "cpu") for name, folder in checkpoints.items()}
    return {name: (encoder, encoder.encode(batch_for(name))) for name, encoder in loaded.items()}


@contextmanager
def told(write: Callable[[Any], Any], value: Any, before: Any) -> Iterator[None]:
    write(value)
    try:
        yield
    finally:
        write(before)


def cudnn(name: str, value: Any) -> AbstractContextManager[None]:
    return told(lambda each: setattr(torch.backends.cudnn, name, each), value, getattr(torch.backends.cudnn, name))


@contextmanager
def everything() -> Iterator[None]:
    with ExitStack() as stack:
        for name, disturbance in DISTURBANCES.items():
            if name not in ("everything", "flash attention alone"):
                stack.enter_context(disturbance())
        yield


DISTURBANCES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast to bfloat16": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "autocast of a GPU": lambda: torch.autocast("cuda", dtype=torch.float16),
    "double precision": lambda: told(torch.set_default_dtype, torch.float64, torch.float32),
    "half precision": lambda: told(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "a default device": lambda: told(torch.set_default_device, "meta", "cpu"),
    "a device around": lambda: torch.device("meta"),
    "coarse products": lambda: told(torch.set_float32_matmul_precision, "medium", "highest"),
    "deterministic algorithms": lambda: told(torch.set_deterministic_debug_mode, 2, 0),
    "warnings of algorithms": lambda: told(torch.set_deterministic_debug_mode, 1, 0),
    "search for convolutions": lambda: cudnn("benchmark", True),
    "attention written out": lambda: sdpa_kernel(SDPBackend.MATH),
    "flash attention alone": lambda: sdpa_kernel(SDPBackend.FLASH_ATTENTION),
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "another state of the generator": lambda: told(torch.manual_seed, 12345, 0),
    "everything": everything,
}


def state() -> list[Any]:
    """Whatever must be as it was."""
    settings = [setting.read() for setting in surroundings._settings()]
    kinds = [torch.is_autocast_enabled(kind) for kind in surroundings._kinds()]
    modes = [torch.get_default_device(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()]
    return [*settings, *kinds, *modes, torch.get_rng_state().tolist(), torch.get_autocast_dtype("cpu")]


@pytest.mark.parametrize("disturbance", DISTURBANCES)
def test_features_are_the_same_bits_whatever_the_process_has_set(
    disturbance: str, checkpoints: dict[str, Path], wanted: dict[str, tuple[Any, Any]]
) -> None:
    """Loaded before, the same kernels see the same shapes, and the bits are equal; loaded inside, its weights lie at
    another place in memory."""
    with DISTURBANCES[disturbance]():
        before = state()
        for name, (encoder, features) in wanted.items():
            np.testing.assert_array_equal(encoder.encode(batch_for(name)), features, err_msg=name)
            again = load_encoder(name, checkpoints[name], "cpu")
            assert again.config() == encoder.config()
            assert_same(again.encode(batch_for(name)), features, bound(encoder.config()))
        assert state() == before
    assert_same(again.encode(batch_for(name)), features, bound(again.config()))  # what was loaded inside works outside


def test_random_weights_are_drawn_in_float32_on_the_cpu_whatever_the_process_has_set() -> None:
    images = smooth_images()[:1]
    wanted = load_encoder("ViT-S-32.none", "random:0", "cpu").encode(images)
    for name in ("everything", "double precision", "a default device"):
        with DISTURBANCES[name]():
            before = state()
            features = load_encoder("ViT-S-32.none", "random:0", "cpu").encode(images)
            assert state() == before
        assert_same(features, wanted, rounding(12))


class _Deaf:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


OURS = "featurestore.encoders.surroundings"
MUTANTS: dict[str, tuple[str, str, Any]] = {
    "leaves autocast on": ("autocast to bfloat16", f"{OURS}._kinds", lambda: ()),
    "leaves settings of the process": ("double precision", f"{OURS}._plain_process", _Deaf()),
    "leaves the default device": ("a default device", f"{OURS}._without_modes", _Deaf),
    "draws from the generator": ("no gradients", "torch.random.fork_rng", lambda **options: _Deaf()),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_surroundings_that_are_not_set_aside_are_caught(
    mutant: str, checkpoints: dict[str, Path], wanted: dict[str, tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    disturbance, target, broken = MUTANTS[mutant]
    monkeypatch.setattr(target, broken)
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        test_features_are_the_same_bits_whatever_the_process_has_set(disturbance, checkpoints, wanted)


def test_settings_of_the_process_come_back_when_the_last_thread_leaves() -> None:
    both, one = threading.Barrier(2), threading.Event()
    seen: list[Any] = []

    def first() -> None:
        with undisturbed():
            both.wait(20)
        one.set()

    def second() -> None:
        with undisturbed():
            both.wait(20)
            assert one.wait(20)
            seen.append(torch.get_default_dtype())  # the first has left

    with DISTURBANCES["double precision"]():
        threads = [threading.Thread(target=run) for run in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [torch.float32]
        assert torch.get_default_dtype() == torch.float64


def test_what_is_raised_inside_leaves_the_settings_as_they_were() -> None:
    with DISTURBANCES["everything"]():
        before = state()
        with pytest.raises(ZeroDivisionError), undisturbed(), undisturbed():
            raise ZeroDivisionError
        assert state() == before


def test_torch_is_not_loaded_to_leave_it_undisturbed() -> None:
    code = """
import sys
from featurestore.encoders.surroundings import undisturbed
with undisturbed():
    pass
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# -- misses, and encoders of other packages ----------------------------------------------------------------------------


class Mixing:
    """An encoder of another package, which relies on torch's defaults as most code does."""

    modality, version, dim = "au", 1, 4

    def __init__(self, weights: str | None, device: str | None) -> None: ...

    def config(self) -> dict[str, Any]:
        return {}

    def encode(self, texts: list[str]) -> Any:
        lengths = torch.tensor([[len(text) / 7] * 64 for text in texts])
        return (lengths @ torch.linspace(0, 1, 256).reshape(64, 4)).numpy()


@pytest.fixture
def mixing(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(encoders, "_registry", dict(encoders._registry))
    register_encoder("MIXING", f"{__name__}:Mixing")
    return "MIXING"


@pytest.mark.parametrize("name", ["MIXING", "CLIP_TEXT"])
def test_a_miss_in_the_middle_of_training_is_that_of_its_recipe(
    name: str, mixing: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "a_au_analysis.json"
    path.write_text(json.dumps({"overall_peak_au_description": TEXTS[0]}))
    weights = {"CLIP_TEXT": str(checkpoints["CLIP_TEXT"])}
    key, found = f"d/au/{name}/au_summary/all", {}
    for disturbance in (None, *DISTURBANCES):
        with Extractor({"d": {"a": Sample("a", au_json=path)}}, weights=weights, device="cpu") as compute:
            store = FeatureStore(tmp_path / str(disturbance), compute=compute)
            with DISTURBANCES[disturbance]() if disturbance else nullcontext():
                row = store.get(key, "a")
                found[disturbance] = (row.dtype, row.tobytes(), compute.recipe(FeatureKey.parse(key)).fingerprint)
    assert set(found.values()) == {found[None]}

"""The battery that every encoder goes through, on tiny checkpoints in the published formats."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_factories import MAKERS
from comparisons import assert_same

from featurestore import Recipe
from featurestore.encoders import ENCODERS, Encoder, load_encoder, weights_identity
from featurestore.errors import ConfigError, ValuesError, WeightsNotFoundError
from featurestore.quality.compare import bound

# Each encoder, with the dim of its tiny checkpoint and of the published model.
DIMS = {
    "CLIP_VIT_LARGE": (40, 768),
    "CLIP_TEXT": (40, 512),
    "HUBERT_LARGE": (48, 1024),
    "WAVLM_LARGE": (48, 1024),
    "DATA2VEC_BASE": (48, 768),
    "DINO2_LARGE": (48, 1024),
    "SigLIP_SO": (48, 1152),
}
TEXTS = ["The person shows happiness with a slight smile.", "眉毛上扬，嘴角下垂", "", "AU12 " * 100]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny checkpoint for each encoder."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: make(root / name) for name, make in MAKERS.items()}


@pytest.fixture(params=DIMS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def encoder(name: str, checkpoints: dict[str, Path]) -> Encoder:
    return load_encoder(name, str(checkpoints[name]), device="cpu")


def batch_for(encoder: Encoder, n: int = 4) -> Any:
    """n rows of what the encoder takes; no two alike."""
    generator = np.random.default_rng(1)
    if encoder.modality == "frame":
        return generator.integers(0, 256, (n, *encoder.size, 3), dtype=np.uint8)
    if encoder.modality == "audio":
        return generator.normal(0, 0.1, (n, 32000)).astype(np.float32)
    return TEXTS[:n]


def test_every_registered_encoder_is_in_this_list() -> None:
    # Other tests in this process may have registered some of their own.
    ours = {name for name, target in ENCODERS.items() if target.startswith("featurestore.")}
    assert set(DIMS) == ours == set(MAKERS)


def test_features_have_one_row_for_each_input_in_float32(encoder: Encoder, name: str) -> None:
    features = encoder.encode(batch_for(encoder))
    assert features.shape == (4, DIMS[name][0]) == (4, encoder.dim)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert len(np.unique(features, axis=0)) == 4


def test_the_same_input_twice_is_equal(encoder: Encoder) -> None:
    np.testing.assert_array_equal(encoder.encode(batch_for(encoder)), encoder.encode(batch_for(encoder)))


def test_two_loads_of_the_same_weights_are_equal(encoder: Encoder, name: str, checkpoints: dict[str, Path]) -> None:
    again = load_encoder(name, str(checkpoints[name]), device="cpu")
    # The weights lie elsewhere in memory, for which some processors take other kernels.
    assert_same(encoder.encode(batch_for(encoder)), again.encode(batch_for(encoder)), bound(encoder.config()))


def test_a_batch_of_one_equals_its_row_of_a_batch(name: str, checkpoints: dict[str, Path]) -> None:
    encoder = load_encoder(name, str(checkpoints[name]), "cpu")
    batch = batch_for(encoder)
    if encoder.modality == "audio":  # all windows are of one sample; with equal windows joint normalisation is the same
        batch[:] = batch[0]
    together = encoder.encode(batch)
    for i in range(len(batch)):
        assert_same(encoder.encode(batch[i : i + 1]), together[i : i + 1], bound(encoder.config()))


def test_an_empty_batch_gives_no_rows(encoder: Encoder) -> None:
    assert encoder.encode(batch_for(encoder)[:0]).shape == (0, encoder.dim)


def test_the_input_is_left_as_it_was(encoder: Encoder) -> None:
    batch = batch_for(encoder)
    before = [*batch] if isinstance(batch, list) else batch.copy()
    encoder.encode(batch)
    assert np.array_equal(batch, before)


def test_config_survives_json_and_a_recipe(encoder: Encoder, name: str) -> None:
    config = encoder.config()
    assert json.loads(json.dumps(config)) == config
    Recipe({"encoder": config, "weights": weights_identity(encoder)})
    assert config["compute_dtype"] == "float32"
    assert encoder.version == 1
    assert encoder.modality in ("frame", "audio", "au")


def test_what_is_published_is_described_without_weights(name: str) -> None:
    encoder = load_encoder(name)
    assert encoder.dim == DIMS[name][1]
    assert json.loads(json.dumps(encoder.config())) == encoder.config()
    if encoder.modality == "frame":
        assert encoder.size == (224, 224)
    with pytest.raises(WeightsNotFoundError, match=rf"{name}.*not on this machine.*hf download \S+/\S+ config.json"):
        weights_identity(encoder)
    with pytest.raises(WeightsNotFoundError, match="fingerprint="):
        encoder.encode(batch_for(encoder))


def test_the_checkpoint_decides_the_architecture(encoder: Encoder, name: str) -> None:
    assert encoder.config() != load_encoder(name).config()


def test_half_precision_is_another_config_and_nearly_the_same_features(name: str, checkpoints: dict[str, Path]) -> None:
    exact = load_encoder(name, str(checkpoints[name]), "cpu")
    for dtype in ("bfloat16", "float16"):
        rough = load_encoder(name, str(checkpoints[name]), "cpu", compute_dtype=dtype)
        assert rough.config() == {**exact.config(), "compute_dtype": dtype}
        assert weights_identity(rough) == weights_identity(exact)
        try:
            features, wanted = rough.encode(batch_for(exact)), exact.encode(batch_for(exact))
        except RuntimeError as refused:  # torch with the kernels of another processor than this one, which has AMX
            if "pack_vnni2 is only supported" not in str(refused) or "ATEN_CPU_CAPABILITY" not in os.environ:
                raise
            continue
        assert features.dtype == np.float32
        error = np.abs(features - wanted).max() / np.abs(wanted).max()
        assert 0 < error < 0.05


def test_float32_means_float32_whatever_torch_was_told(encoder: Encoder, name: str) -> None:
    """And afterwards torch does again what it was told."""
    import torch

    batch = batch_for(encoder)
    wanted = encoder.encode(batch)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")  # bfloat16 where the processor has it
    try:
        assert_same(encoder.encode(batch), wanted, bound(encoder.config()))
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_threads_share_one_network(name: str, checkpoints: dict[str, Path]) -> None:
    """Several threads that miss at once load it once, and get what one of them alone gets."""
    encoder = load_encoder(name, str(checkpoints[name]), "cpu")
    batch = batch_for(encoder)
    with ThreadPoolExecutor(4) as pool:
        networks = set(pool.map(lambda _: id(encoder.network), range(4)))  # type: ignore[attr-defined]
        results = list(pool.map(encoder.encode, [batch] * 4))
    assert len(networks) == 1
    for result in results:
        assert_same(result, results[0], bound(encoder.config()))


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_refused(device: str, name: str) -> None:
    encoder = load_encoder(name, "random:0", device)
    with pytest.raises(ConfigError, match=f"device '{device}' cannot be used here .*there is cpu"):
        encoder.encode(batch_for(encoder))


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ConfigError, match="compute_dtype is 'float64'; it can be float32, bfloat16, float16"):
        load_encoder("CLIP_VIT_LARGE", compute_dtype="float64")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((2, 100, 224, 3), np.uint8), r"uint8 \(2, 100, 224, 3\)"),
        (np.zeros((2, 224, 224, 3), np.float32), r"float32 \(2, 224, 224, 3\)"),
        (np.zeros((2, 16000), np.float32), r"float32 \(2, 16000\)"),
        ([1, 2], "list"),
        ("one string", "str"),
        (None, "NoneType"),
    ],
)
def test_input_of_another_form_is_refused(encoder: Encoder, wrong: Any, message: str) -> None:
    with pytest.raises(ValuesError, match=f"encodes .*not {message}"):
        encoder.encode(wrong)


def test_settings_are_known_before_torch_is_imported(name: str, checkpoints: dict[str, Path]) -> None:
    """Also the digest of safetensors: a hit asks for a recipe, and must not wait for torch."""
    code = f"""
import sys
from featurestore.encoders import encoder_names, load_encoder, weights_identity
for weights in (None, {str(checkpoints[name])!r}, "random:0"):
    encoder = load_encoder({name!r}, weights)
    encoder.config(), encoder.dim, encoder.version, encoder.modality, getattr(encoder, "size", None)
    if weights:
        assert weights_identity(encoder)["digest"]
encoder_names()
assert not {{"torch", "open_clip", "transformers", "PIL", "timm"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)

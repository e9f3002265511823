"""What `inspect` shows is what a run would give the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import reference
from comparisons import assert_same

from affect_infer.model.checkpoint import read_checkpoint
from affect_infer.run.inspection import inspect_sample
from affect_infer.settings.settings import Settings
from featurestore import FeatureStore
from featurestore.errors import InputError
from featurestore.quality.compare import rounding

Stored = Callable[..., Settings]
HEADS = rounding(2)
ID = "sample_00000004"


def test_tokens_are_those_of_the_stored_features(
    stored: Stored, full_store: Path, tiny_files: tuple[Path, Path], tmp_path: Path
) -> None:
    found = inspect_sample(stored(), ID)
    found.write(tmp_path / "sample.npz")
    arrays = np.load(tmp_path / "sample.npz")
    stored_frames = FeatureStore(full_store).get("mer2023/frame/QUICK_PIXELS/emotion_peak/8", ID)
    np.testing.assert_array_equal(arrays["features_frame"], stored_frames)
    weights = {name: tensor.numpy() for name, tensor in read_checkpoint(tiny_files[1]).heads.items()}
    given = {name: arrays[f"features_{name}"] for name in ("frame", "face", "audio", "au")}
    expected = reference.tokens(weights, given, None)
    for name, placeholder in (
        ("frame", "<FrameHere>"),
        ("face", "<FaceHere>"),
        ("audio", "<AudioHere>"),
        ("au", "<AUHere>"),
    ):
        assert_same(arrays[f"token_{name}"], expected[placeholder], HEADS)


def test_json_has_the_prompt_its_ids_and_where_everything_came_from(stored: Stored) -> None:
    found = inspect_sample(stored(policies={"au": "off"}), ID)
    data = json.loads(json.dumps(found.as_dict()))
    assert data["prompt"].startswith("###Human: The audio content")
    assert "You are here already?" in data["prompt"]
    assert len(data["token_ids"]) > 50
    assert data["masked"] == {"au": "policy off"}
    frame = data["inputs"]["frame"]
    assert (frame["answer"], frame["shape"], frame["dtype"]) == ("disk", [8, 24], "float32")
    assert frame["norm"] == pytest.approx(float(np.linalg.norm(found.inputs["frame"].values)))  # type: ignore[arg-type]
    assert frame["why"].startswith("a miss is computed")
    assert len(data["tokens"]["frame"]["values"]) == 64


def test_text_for_reading(stored: Stored) -> None:
    text = inspect_sample(stored(au="text", policies={"au": "live"}), ID).text()
    assert f"mer2023/{ID}" in text
    assert "The person shows surprise with raised brows" in text
    assert "<frame> norm" in text
    assert "audio  disk @" in text


def test_the_merged_token_is_shown_too(stored: Stored) -> None:
    found = inspect_sample(stored(mode="multiface_audio_face_text", policies={"frame": "off", "au": "off"}), ID)
    assert set(found.tokens) == {"face", "audio", "multi"}


def test_an_unknown_sample_is_an_error(stored: Stored) -> None:
    with pytest.raises(InputError, match="no sample of mer2023 is called 'nobody'; the ids are those of"):
        inspect_sample(stored(), "nobody")
    with pytest.raises(InputError, match=r"'sample_0000012'; did you mean 'sample_00000012'\?"):
        inspect_sample(stored(), "sample_0000012")

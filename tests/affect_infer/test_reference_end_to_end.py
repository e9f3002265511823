"""From media to projected tokens: equal to a reference that reads the files itself, and no mutant of it is.

The reference shares nothing with the program but the networks' weights on disk, which transformers runs here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoint_factories
import cv2
import numpy as np
import pytest
import reference
import soundfile
import torch
import transformers
from comparisons import assert_same

from affect_infer.model.checkpoint import read_checkpoint
from affect_infer.model.prompt import QUESTIONS
from affect_infer.model.tiny import write_tiny_model
from affect_infer.run.inspection import Inspection, inspect_sample
from affect_infer.settings.reading import read_settings
from affect_infer.settings.settings import Changes
from featurestore.quality.compare import rounding

ID = "sample_00000006"
SUBTITLE = "What if nobody finds us?"
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
END_TO_END = rounding(6 + 2)  # HuBERT's six layers and the two of the heads


@dataclass
class Made:
    """What the program made of one sample, and the files that it made it of."""

    found: Inspection
    demo: Path
    clip: Path
    hubert: Path
    checkpoint: Path
    llm: Path


@pytest.fixture(scope="module")
def made(demo_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("networks")
    clip, hubert = checkpoint_factories.make_clip(root / "clip"), checkpoint_factories.make_hubert(root / "hubert")
    llm, checkpoint = write_tiny_model(root / "tiny", visual=40, acoustic=48, au=40, seed=3)
    options = [f"{place}.visual_encoder=CLIP_VIT_LARGE" for place in ("model", "datasets.mer2023")]
    values: dict[str, Any] = {
        "checkpoint": checkpoint, "llm": str(llm), "device": "cpu", "workers": 1,
        "weights": {"CLIP_VIT_LARGE": str(clip), "CLIP_TEXT": str(clip), "HUBERT_LARGE": str(hubert)},
    }  # fmt: skip
    changes = Changes(
        options=options, values=values, mode="multiface_audio_face_frame_au_text", store=root / "features"
    )
    settings = read_settings(demo_files / "mer2023.yaml", changes)
    return Made(inspect_sample(settings, ID), demo_files, clip, hubert, checkpoint, llm)


def images(made: Made, pixels: np.ndarray) -> np.ndarray:
    """CLIP's image features of (n, 224, 224, 3) uint8, not normalised."""
    model = transformers.CLIPModel.from_pretrained(made.clip).eval()
    values = (pixels.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    with torch.inference_mode():
        pooled = model.vision_model(torch.from_numpy(values.transpose(0, 3, 1, 2))).pooler_output
        return model.visual_projection(pooled).numpy()


def faces(made: Made, mutant: str) -> np.ndarray:
    crops = np.load(made.demo / f"mer2023-dataset-process/openface_face/{ID}.npy")
    rows = reference.uniform_rows(len(crops))
    pixels = np.stack([cv2.resize(crops[row], (224, 224), interpolation=cv2.INTER_LINEAR) for row in rows])
    return images(made, pixels[..., ::-1].copy() if mutant == "colours swapped" else pixels)


def sound(made: Made, mutant: str) -> np.ndarray:
    samples, rate = soundfile.read(made.demo / f"mer2023-dataset-process/audio/{ID}.wav", dtype="float32")
    assert rate == 16000
    windows = reference.audio_windows(samples)
    if mutant == "window means kept":
        windows = windows + np.linspace(0.1, 0.4, 8, dtype=np.float32)[:, None]
    model = transformers.HubertModel.from_pretrained(made.hubert).eval()
    with torch.inference_mode():
        out = model(torch.from_numpy(reference.normalised(windows, mutant)), output_hidden_states=True)
    # The last hidden state is the one after the final norm; transformers 5 gives the one before in hidden_states.
    last = (
        out.hidden_states[-4:]
        if mutant == "before the final norm"
        else (*out.hidden_states[-4:-1], out.last_hidden_state)
    )
    return torch.stack(last).mean(0).mean(1).numpy()


def descriptions(made: Made) -> np.ndarray:
    import open_clip

    text = "The person shows worry: the brows are raised and drawn together, the lips are stretched."
    ids = open_clip.get_tokenizer("ViT-B-32")([text])
    model = transformers.CLIPModel.from_pretrained(made.clip).eval()
    with torch.inference_mode():
        # Where the text ends; its id is the largest.
        hidden = model.text_model(ids).last_hidden_state[0, ids[0].argmax()]
        features = model.text_projection(hidden)
    return (features / features.norm()).numpy()[None]


def reference_tokens(made: Made, mutant: str = "") -> dict[str, np.ndarray]:
    weights = {name: tensor.numpy() for name, tensor in read_checkpoint(made.checkpoint).heads.items()}
    given = {"face": faces(made, mutant), "audio": sound(made, mutant), "au": descriptions(made)}
    # Decoding video is compared with another decoder elsewhere; here its features are taken as they are.
    given["frame"] = made.found.inputs["frame"].values  # type: ignore[assignment]
    found = reference.tokens(weights, given, "face", mutant)
    return {name: found[f"<{name.capitalize() if name != 'au' else 'AU'}Here>"] for name in made.found.tokens}


def test_tokens_equal_the_reference(made: Made) -> None:
    expected = reference_tokens(made)
    assert set(expected) == {"frame", "face", "audio", "au", "multi"}
    for name, token in made.found.tokens.items():
        assert_same(token, expected[name], END_TO_END)


@pytest.mark.parametrize(
    ("mutant", "changed"),
    [
        ("colours swapped", {"face", "multi"}),
        ("each window normalised", {"audio", "multi"}),
        ("window means kept", {"audio", "multi"}),
        ("before the final norm", {"audio", "multi"}),
        ("softmax", {"frame", "face", "audio", "au", "multi"}),
        ("one row skips its weight", {"au"}),
    ],
)
def test_every_mutant_is_caught(made: Made, mutant: str, changed: set[str]) -> None:
    broken = reference_tokens(made, mutant)
    apart = {name for name, token in made.found.tokens.items() if np.abs(token - broken[name]).max() > 1e-4}
    assert apart == changed


def test_the_prompt_and_its_ids_equal_the_reference(made: Made) -> None:
    expected = reference.prompt("multiface_audio_face_frame_au_text", QUESTIONS["labels"], SUBTITLE)
    assert made.found.prompt == expected
    tokenizer = transformers.AutoTokenizer.from_pretrained(made.llm)
    names = ["<ImageHere>", "<AudioHere>", "<FrameHere>", "<FaceHere>", "<MultiHere>", "<NonverbalHere>", "<AUHere>"]
    for name in names:
        tokenizer.add_tokens([name], special_tokens=True)
    assert made.found.ids == tokenizer(expected, add_special_tokens=False)["input_ids"]
    assert made.found.ids[0] != tokenizer.convert_tokens_to_ids("<|im_start|>"), "no bos at inference"

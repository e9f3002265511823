"""Fusion tokens equal the reference to 1e-5, and the reference with one step broken does not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import reference
import torch
from comparisons import assert_same
from made import ACOUSTIC, AU, VISUAL, features

from affect_infer.model.heads import AffectHeads, HeadShape
from featurestore.errors import InputError
from featurestore.quality.compare import rounding

HEADS = rounding(2)  # two layers, and what makes one token of them

SHAPE = HeadShape(40, VISUAL, ACOUSTIC, "attention", "attention", ACOUSTIC, AU, "attention")
MEAN = HeadShape(40, VISUAL, ACOUSTIC, "mean", "mean", None, AU, "mean")
PARAMETERS = {
    "image_llama_proj": (40, VISUAL),
    "video_attention_mlp": (1, VISUAL),
    "affectgpt_proj": (40, VISUAL),
    "audio_attention_mlp": (1, ACOUSTIC),
    "audio_llama_proj": (40, ACOUSTIC),
    "multi_audio_embs": (ACOUSTIC, ACOUSTIC),
    "multi_video_embs": (ACOUSTIC, VISUAL),
    "attention_mlp": (ACOUSTIC, 2 * ACOUSTIC),
    "fc_att": (2, ACOUSTIC),
    "multi_llama_proj": (40, ACOUSTIC),
    "au_attention_mlp": (1, AU),
    "au_llama_proj": (40, AU),
}


def heads(shape: HeadShape = SHAPE) -> AffectHeads:
    torch.manual_seed(1)
    return AffectHeads(shape).requires_grad_(False)


def weights(of: AffectHeads) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in of.state_dict().items()}


def ours(of: AffectHeads, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    rows = {name: torch.from_numpy(values) for name, values in given.items()}
    found = {
        "<FrameHere>": of.video(rows["frame"]),
        "<FaceHere>": of.video(rows["face"]),
        "<AudioHere>": of.audio(rows["audio"]),
        "<AUHere>": of.au(rows["au"]),
    }
    if of.shape.merged is not None:
        found["<MultiHere>"] = of.multi(rows["face"], rows["audio"])
    return {name: token.numpy() for name, token in found.items()}


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("shape", [SHAPE, MEAN])
def test_tokens_equal_the_reference(shape: HeadShape, rows: int) -> None:
    own, given = heads(shape), features(rows, frame=rows, face=rows, audio=rows, au=rows)
    expected = reference.tokens(weights(own), given, "face" if shape.merged else None)
    for placeholder, token in ours(own, given).items():
        assert token.shape == (40,)
        assert_same(token, expected[placeholder], HEADS)


@pytest.mark.parametrize(("mutant", "rows"), [("softmax", 8), ("one row skips its weight", 1)])
def test_a_broken_reference_is_noticed(mutant: str, rows: int) -> None:
    own, given = heads(), features(5, frame=rows, face=rows, audio=rows, au=rows)
    broken = reference.tokens(weights(own), given, "face", mutant)
    for placeholder, token in ours(own, given).items():
        if (mutant, placeholder) != ("one row skips its weight", "<MultiHere>"):
            assert np.abs(token - broken[placeholder]).max() > 1e-3, placeholder


def test_a_batch_gives_what_each_sample_gives() -> None:
    own = heads()
    batch = torch.from_numpy(np.stack([features(seed)["frame"] for seed in range(5)]))
    alone = torch.stack([own.video(rows) for rows in batch])
    assert_same(own.video(batch), alone, HEADS)


def test_parameters_have_the_names_and_shapes_of_published_checkpoints() -> None:
    expected = {f"{name}.weight": shape for name, shape in PARAMETERS.items()}
    expected |= {f"{name}.bias": shape[:1] for name, shape in PARAMETERS.items()}
    assert {name: tuple(tensor.shape) for name, tensor in heads().state_dict().items()} == expected


def test_the_true_sizes_have_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        without_au = AffectHeads(HeadShape(3584, 768, 1024, "attention", "attention", 1024))
        with_au = AffectHeads(HeadShape(3584, 768, 1024, "attention", "attention", 1024, 512, "attention"))
    # The training log: 57,168,644 trainable, of which 40,370,176 are LoRA; with AU 59,007,749.
    assert sum(p.numel() for p in without_au.parameters()) == 57_168_644 - 40_370_176
    assert sum(p.numel() for p in with_au.parameters()) == 59_007_749 - 40_370_176


@pytest.mark.parametrize("shape", [SHAPE, MEAN])
def test_the_shape_is_read_from_the_keys(shape: HeadShape) -> None:
    assert HeadShape.of(heads(shape).state_dict(), "x.pth") == shape


@pytest.mark.parametrize(
    "key", ["video_Qformer.bert.encoder.layer.0.x", "video_query_tokens", "audio_position_embedding.weight"]
)
def test_q_former_checkpoints_are_refused_by_name(key: str) -> None:
    tensors = heads().state_dict() | {key: torch.zeros(1)}
    with pytest.raises(
        InputError, match=rf"x\.pth fuses by Q-Former \(1 tensors, e\.g\. {key}\).*'attention' or 'mean'"
    ):
        HeadShape.of(tensors, "x.pth")


def test_incomplete_heads_are_refused() -> None:
    tensors = dict(heads().state_dict())
    del tensors["fc_att.weight"]
    with pytest.raises(InputError, match="neither fc_att nor a Q-Former"):
        HeadShape.of(tensors, "x.pth")
    del tensors["affectgpt_proj.weight"]
    with pytest.raises(InputError, match=r"no affectgpt_proj\.weight; it is no AffectGPT checkpoint"):
        HeadShape.of(tensors, "x.pth")


def test_features_that_do_not_fit_are_refused() -> None:
    own = heads(HeadShape(40, VISUAL, ACOUSTIC, "mean", "mean"))
    with pytest.raises(InputError, match="audio features have 24 numbers per row, the checkpoint's head takes 32"):
        own.check("audio", VISUAL)
    with pytest.raises(InputError, match=r"no head for au features: .*--au text"):
        own.check("au", AU)

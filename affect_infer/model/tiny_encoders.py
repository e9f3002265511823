"""Tiny encoders with random weights, in the formats in which HUBERT_LARGE and CLIP_TEXT are published."""

from __future__ import annotations

import json
from pathlib import Path

PREPROCESSOR = {
    "do_normalize": True,
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "padding_value": 0.0,
    "return_attention_mask": True,
    "sampling_rate": 16000,
}


def write_tiny_encoders(root: str | Path, *, acoustic: int = 64, au: int = 32, seed: int = 0) -> dict[str, Path]:
    """Write `root/hubert_large` and `root/clip_text`; returns {encoder: directory}, to be given as its weights.

    acoustic, au   features per audio window, per description; even numbers divisible by 4
    Imports torch and transformers.
    """
    import torch
    from transformers import CLIPConfig, CLIPModel, HubertConfig, HubertModel

    from affect_infer.model.language import without_bars

    root = Path(root)
    hubert = HubertConfig(
        hidden_size=acoustic,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=2 * acoustic,
        conv_dim=[32] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
    )
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    clip = CLIPConfig(projection_dim=au, text_config=small, vision_config={**small, "image_size": 32, "patch_size": 16})
    with torch.random.fork_rng(devices=[]), without_bars():
        torch.manual_seed(seed)
        HubertModel(hubert).save_pretrained(root / "hubert_large")
        CLIPModel(clip).save_pretrained(root / "clip_text")
    settings = json.dumps(PREPROCESSOR, indent=2) + "\n"
    (root / "hubert_large" / "preprocessor_config.json").write_text(settings, encoding="utf-8")
    return {"HUBERT_LARGE": root / "hubert_large", "CLIP_TEXT": root / "clip_text"}

"""Tiny random checkpoints in the formats in which the real models are published, made in code.

Values are drawn from N(0, 0.05), and around 1 for the scales of norms: large enough that a wrong
activation, a missing projection or another layer shows far above rounding.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

REVISION = "0123456789abcdef0123456789abcdef01234567"

OPENAI_PREPROCESSOR = {
    "crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor", "image_processor_type": "CLIPImageProcessor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3, "size": 224,
}  # fmt: skip
SPEECH_PREPROCESSOR = {
    "do_normalize": True, "feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1,
    "padding_side": "right", "padding_value": 0, "return_attention_mask": True, "sampling_rate": 16000,
}  # fmt: skip
DINOV2_PREPROCESSOR = {
    "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True,
    "do_rescale": True, "do_resize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    "image_processor_type": "BitImageProcessor", "resample": 3, "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 256},
}  # fmt: skip
SIGLIP_PREPROCESSOR = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5], "image_processor_type": "SiglipImageProcessor", "resample": 3,
    "rescale_factor": 0.00392156862745098, "size": {"height": 280, "width": 280},
}  # fmt: skip
_SPEECH = {
    "hidden_size": 48, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 96,
    "conv_dim": [32] * 7, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
_LARGE = {**_SPEECH, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "num_conv_pos_embeddings": 32}


def make_clip(folder: Path, seed: int = 0, **options: Any) -> Path:
    """A whole CLIP as Hugging Face has it: 2 layers, patches of 14 on 224, real vocabulary, 40 dimensions."""
    import transformers

    towers = {
        "projection_dim": 40,
        "vision_config": {
            "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 192,
            "image_size": 224, "patch_size": 14, **options,
        },
        "text_config": {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, **options,
        },
    }  # fmt: skip
    config = transformers.CLIPConfig(**towers)
    return _save(transformers.CLIPModel(config), folder, seed, OPENAI_PREPROCESSOR)


def make_hubert(folder: Path, seed: int = 0, **preprocessor: Any) -> Path:
    import transformers

    model = transformers.HubertModel(transformers.HubertConfig(**_LARGE, conv_bias=True))
    return _save(model, folder, seed, {**SPEECH_PREPROCESSOR, **preprocessor})


def make_wavlm(folder: Path, seed: int = 0) -> Path:
    import transformers

    return _save(transformers.WavLMModel(transformers.WavLMConfig(**_LARGE)), folder, seed, SPEECH_PREPROCESSOR)


def make_data2vec(folder: Path, seed: int = 0) -> Path:
    """With the CTC head that the published model has."""
    import transformers

    model = transformers.Data2VecAudioForCTC(transformers.Data2VecAudioConfig(**_SPEECH))
    return _save(model, folder, seed, SPEECH_PREPROCESSOR)


def make_dinov2(folder: Path, seed: int = 0) -> Path:
    import transformers

    config = transformers.Dinov2Config(hidden_size=48, num_hidden_layers=3, num_attention_heads=4, image_size=518)
    return _save(transformers.Dinov2Model(config), folder, seed, DINOV2_PREPROCESSOR)


def make_siglip(folder: Path, seed: int = 0) -> Path:
    import transformers

    small = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    config = transformers.SiglipConfig(
        text_config={**small, "vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2},
        vision_config={**small, "image_size": 280, "patch_size": 14},
    )
    return _save(transformers.SiglipModel(config), folder, seed, SIGLIP_PREPROCESSOR)


# One of each kind of tower that open_clip builds, as small as it goes.
TOWERS: dict[str, dict[str, Any]] = {
    "vit": {"image_size": 64, "patch_size": 16, "layers": 2, "width": 64, "head_width": 32, "pool_type": "avg"},
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
    "coca": {"image_size": 64, "patch_size": 16, "layers": 1, "width": 64, "attentional_pool": True,
             "attn_pooler_heads": 2, "output_tokens": True},
    "timm": {"image_size": 160, "timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"},
    "rotary": {"image_size": 224, "timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token",
               "timm_proj": "linear"},
}  # fmt: skip


def make_tower(kind: str, folder: Path, **options: Any) -> Path:
    """A whole model in open_clip's own format around one of TOWERS, with the library's initialisation: 24 dimensions.

    options   of the image tower, in place of those above
    """
    import open_clip
    from safetensors.torch import save_file

    architecture = {
        "embed_dim": 24,
        "vision_cfg": {**TOWERS[kind], **options},
        "text_cfg": {"context_length": 77, "vocab_size": 100, "width": 64, "heads": 1, "layers": 1},
    }
    prepare = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "resize_mode": "squash"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = open_clip.CustomTextCLIP(**json.loads(json.dumps(architecture)))
        with torch.no_grad():
            for name, value in made.state_dict().items():
                if name.endswith(("running_mean", "running_var")):
                    value.uniform_(0.5, 1.5)
                elif name.endswith("num_batches_tracked"):
                    value.fill_(7)
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": architecture, "preprocess_cfg": prepare}))
    save_file({name: value.contiguous() for name, value in made.state_dict().items()}, folder / "model.safetensors")
    return folder


MAKERS: dict[str, Callable[[Path], Path]] = {
    "CLIP_VIT_LARGE": make_clip,
    "CLIP_TEXT": make_clip,
    "HUBERT_LARGE": make_hubert,
    "WAVLM_LARGE": make_wavlm,
    "DATA2VEC_BASE": make_data2vec,
    "DINO2_LARGE": make_dinov2,
    "SigLIP_SO": make_siglip,
}


def _save(model: Any, folder: Path, seed: int, preprocessor: dict[str, Any]) -> Path:
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            values = generator.normal(0, 0.05, parameter.shape).astype(np.float32)
            scale = (parameter.ndim == 1 and name.endswith(".weight")) or name.endswith(("original0", "lambda1"))
            parameter.copy_(torch.from_numpy(values) + (1 if scale else 0))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def pickled(folder: Path, target: Path, rename: Callable[[str], str] = lambda name: name) -> Path:
    """The same checkpoint with pytorch_model.bin in place of model.safetensors."""
    from safetensors.torch import load_file

    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = load_file(folder / "model.safetensors")
    torch.save({rename(name): value for name, value in tensors.items()}, target / "pytorch_model.bin")
    return target


def as_open_clip(folder: Path, target: Path) -> Path:
    """The same CLIP as open_clip publishes it.

    The tensors are mapped here by hand, in torch and for two layers, to be independent of the code under test.
    """
    from safetensors.torch import load_file, save_file

    hf = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    ours: dict[str, torch.Tensor] = {"logit_scale": hf["logit_scale"]}
    for tower, theirs in (("visual.", "vision_model"), ("", "text_model")):
        for i in range(2):
            block, layer = f"{tower}transformer.resblocks.{i}.", f"{theirs}.encoder.layers.{i}."
            for kind in ("weight", "bias"):
                ours[f"{block}attn.in_proj_{kind}"] = torch.cat(
                    [hf[f"{layer}self_attn.{part}_proj.{kind}"] for part in ("q", "k", "v")]
                )
                ours[f"{block}attn.out_proj.{kind}"] = hf[f"{layer}self_attn.out_proj.{kind}"]
                ours[f"{block}ln_1.{kind}"] = hf[f"{layer}layer_norm1.{kind}"]
                ours[f"{block}ln_2.{kind}"] = hf[f"{layer}layer_norm2.{kind}"]
                ours[f"{block}mlp.c_fc.{kind}"] = hf[f"{layer}mlp.fc1.{kind}"]
                ours[f"{block}mlp.c_proj.{kind}"] = hf[f"{layer}mlp.fc2.{kind}"]
    for kind in ("weight", "bias"):
        ours[f"visual.ln_pre.{kind}"] = hf[f"vision_model.pre_layrnorm.{kind}"]
        ours[f"visual.ln_post.{kind}"] = hf[f"vision_model.post_layernorm.{kind}"]
        ours[f"ln_final.{kind}"] = hf[f"text_model.final_layer_norm.{kind}"]
    ours["visual.class_embedding"] = hf["vision_model.embeddings.class_embedding"]
    ours["visual.conv1.weight"] = hf["vision_model.embeddings.patch_embedding.weight"]
    ours["visual.positional_embedding"] = hf["vision_model.embeddings.position_embedding.weight"]
    ours["visual.proj"] = hf["visual_projection.weight"].T
    ours["token_embedding.weight"] = hf["text_model.embeddings.token_embedding.weight"]
    ours["positional_embedding"] = hf["text_model.embeddings.position_embedding.weight"]
    ours["text_projection"] = hf["text_projection.weight"].T
    target.mkdir()
    save_file({name: value.contiguous() for name, value in ours.items()}, target / "open_clip_model.safetensors")
    vision, text = config["vision_config"], config["text_config"]
    architecture = {
        "embed_dim": config["projection_dim"],
        "quick_gelu": vision["hidden_act"] == "quick_gelu",
        "vision_cfg": {
            "image_size": 224, "patch_size": 14, "layers": 2, "width": vision["hidden_size"],
            "head_width": vision["hidden_size"] // 2, "mlp_ratio": 3.0,
        },
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "layers": 2, "width": text["hidden_size"], "heads": 4,
        },
    }  # fmt: skip
    (target / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": architecture, "preprocess_cfg": {"mean": OPENAI_PREPROCESSOR["image_mean"],
                                                                  "std": OPENAI_PREPROCESSOR["image_std"]}})
    )  # fmt: skip
    return target


def in_hub_cache(folder: Path, cache: Path, repo: str, revision: str = REVISION) -> Path:
    """Lay a checkpoint into a hub cache as `hf download` does, as the main branch; returns the snapshot."""
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / revision
    shutil.copytree(folder, snapshot)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(revision)
    return snapshot

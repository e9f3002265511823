"""Every key that the guide's YAML files, and those of the code around it, may hold, and what becomes of it here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from featurestore.errors import ConfigError, did_you_mean

USED = "used"
TRAINING = "training only"
CHECKPOINT = "the checkpoint says it"
PROCESSOR = "frames are always squashed to 224 x 224 and never augmented"
COMMAND = "given on the command line of affect-infer"
GONE = "that part of the old code does not exist here"

_PROCESSORS = {
    f"{processor}.{phase}.{key}": (USED if (processor, key) == ("vis_processor", "n_frms") else PROCESSOR)
    for processor in ("vis_processor", "img_processor", "text_processor")
    for phase in ("train", "eval")
    for key in ("name", "n_frms", "image_size")
}
_WORKING = (
    "face_or_frame", "frame_n_frms", "frame_sampling", "use_preextracted_features", "use_preextracted_frame",
    "use_preextracted_face", "use_preextracted_audio", "use_preextracted_au", "preextracted_root",
    "mer_factory_output", "use_au_clip_realtime", "visual_encoder", "acoustic_encoder", "clips_per_video",
)  # fmt: skip
_MEDIA = ("video_root", "audio_root", "face_root")
_FEATURES = dict.fromkeys(_WORKING, USED) | {
    "nonverbal_json": USED, "use_nonverbal_text": USED,
    "use_realtime_extraction": GONE, "extraction_server_host": GONE, "extraction_server_port": GONE,
}  # fmt: skip
_FROZEN = [f"frozen_{part}" for part in (
    "video_proj", "video_Qformer", "audio_Qformer", "audio_proj", "au_Qformer", "au_proj", "multi_Qformer",
    "multi_llama_proj", "llm",
)]  # fmt: skip
_RUN = (
    "task", "lr_sched", "init_lr", "min_lr", "warmup_lr", "weight_decay", "max_epoch", "iters_per_epoch",
    "warmup_steps", "batch_size_train", "batch_size_eval", "accum_grad_iters", "seed", "num_workers", "amp",
    "resume_ckpt_path", "evaluate", "train_splits", "valid_splits", "test_splits", "device", "world_size", "dist_url",
    "distributed", "output_dir", "log_freq", "save_freq", "optimizer", "use_dist_eval_sampler",
)  # fmt: skip

# section -> key -> USED, or why it is ignored.  `datasets` and `evaluation_datasets_cfg` have one such level for each
# dataset.  Source: the YAML files of the AffectGPT fork; domain notes 8 say which of them its code reads.
KEYS: Mapping[str, Mapping[str, str]] = {
    "model": {
        "arch": "there is one model", "model_type": "there is one model",
        "skip_encoders": USED, "llama_model": USED, "visual_encoder": USED, "acoustic_encoder": USED,
        **{f"num_{part}_query_token": CHECKPOINT for part in ("audio", "video", "multi", "image", "au")},
        **{f"{part}_fusion_type": CHECKPOINT for part in ("audio", "video", "multi", "image", "au")},
        **{f"preextracted_{part}_dim": "the store knows it" for part in ("visual", "acoustic", "au")},
        **dict.fromkeys(("max_length", "ckpt", "ckpt_2", "lora_r", *_FROZEN), TRAINING),
        **dict.fromkeys(("use_au_agent", "au_agent_base_model", "au_agent_lora_weights", "au_agent_device"), GONE),
        **_PROCESSORS,
    },
    "datasets": {
        **_FEATURES, **dict.fromkeys((*_MEDIA, "ann_paths"), USED), "data_type": "all data is video",
        "label_type": TRAINING, "ratio": TRAINING,
    },
    "run": dict.fromkeys(_RUN, TRAINING),
    "inference": {
        **_FEATURES, **_PROCESSORS, "task": "there is one task", "base_root": USED, "gpu": USED,
        **dict.fromkeys(("ckpt_root", "ckpt_name", "test_epoch", "test_epochs", "skip_epoch"), COMMAND),
    },
    "evaluation_datasets_cfg": dict.fromkeys(("eval_file_path", *_MEDIA), USED),
}  # fmt: skip
PER_DATASET = ("datasets", "evaluation_datasets_cfg")
PLACEHOLDER = ("xxx", "xxx-xxx")


def flatten(data: Mapping[str, Any], where: str) -> Iterator[tuple[str, str, str, Any]]:
    """(section, dataset or "", key, value) of each setting.  ConfigError for a key that no known file holds."""
    for section, content in data.items():
        if section == "affect_infer":
            raise ConfigError(
                f"{where} is a settings file of affect-infer, not one of AffectGPT's",
                advice="`affect_infer.settings.reading` reads it",
                path=where,
            )
        if section not in KEYS:
            raise ConfigError(f"{where}: unknown section {section!r}{_hint(section, KEYS)}")
        if not isinstance(content, dict):
            raise ConfigError(f"{where}: {section} must be a mapping, not {content!r}")
        if section not in PER_DATASET:
            for key, value in _leaves(content, KEYS[section], f"{where}: {section}", ""):
                yield section, "", key, value
            continue
        for dataset, settings in content.items():
            if not isinstance(settings, dict):
                raise ConfigError(f"{where}: {section}.{dataset} must be a mapping, not {settings!r}")
            for key, value in _leaves(settings, KEYS[section], f"{where}: {section}.{dataset}", ""):
                yield section, dataset, key, value


def _leaves(content: Mapping[str, Any], known: Mapping[str, str], where: str, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        key = prefix + name
        if key in known:
            if isinstance(value, dict):
                raise ConfigError(f"{where}.{key} must be a value, not a mapping")
            yield key, value
        elif any(other.startswith(key + ".") for other in known):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}.{key} must be a mapping, not {value!r}")
            yield from _leaves(value, known, where, key + ".")
        else:
            raise ConfigError(f"{where}: unknown key {key!r}{_hint(key, known)}")


def _hint(key: str, known: Mapping[str, object]) -> str:
    return f"; {did_you_mean(key, known, 'known here: ' + ', '.join(sorted(known)))}"

"""Model folders: what the folder names of MERTools, Emotion-LLaMA-v2 and EmoBox say about the arrays in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from featurestore.key import Modality

Level = Literal["utterance", "frames", "tokens"]

KINDS = (".npz", ".pt", ".pth", ".pkl", ".pickle", ".h5", ".hdf5")
"""endings of files, other than `.npy`, that hold the array of a sample, or those of a whole set by sample"""
UTTERANCE = "utterance"  # the sampling of a mean over all frames
_SUFFIX = re.compile(r"(?P<stem>.+)[-_](?P<level>UTT|FRA)")
_NOISE = re.compile(r"(?P<stem>.+?)[-_]noise(?P<case>[^-_]+)")
# What stands behind the name of a model; with two of them only the last one is in the name.
_VARIANTS = (
    ("speech", re.compile(r"(?P<stem>.+)-tts(?P<case>chi|eng)")),
    ("language", re.compile(r"(?P<stem>.+)-lang(?P<case>chi|eng)")),
    ("punctuation", re.compile(r"(?P<stem>.+)-punccase(?P<case>[1-9])")),
)
_FOUR = "sum of the last four layers"


@dataclass(frozen=True, slots=True)
class _Family:
    """Encoders whose frames mean the same.  Source: scripts of MERTools and Emotion-LLaMA-v2."""

    names: re.Pattern[str]
    modality: Modality
    sampling: str
    rows: int | None = None
    """frames of every sample, where that does not depend on the sample"""
    pooling: str = ""
    """what one frame is made of"""
    mean: bool = True
    """whether the scripts make an utterance of the mean of these frames"""


def _family(names: str, *facts: object, **more: object) -> _Family:
    return _Family(re.compile(names), *facts, **more)  # type: ignore[arg-type]


_FAMILIES = (
    _family("videomae-base-(VoxCeleb2|K400-mer2023)-[0-9]+", "face", "segments-2x2"),
    _family("sunlicai-videomae-[a-z]+", "face", "every4-2x16", 16, "mean over the patches of two pictures"),
    _family("videomae-[a-z]+", "face", "uniform-16x2", 8, "mean over the patches of two pictures"),
    _family("dinov2-[a-z]+", "face", "uniform-64", 64, "sum over all tokens, before the last norm"),
    _family("data2vec-vision-.+", "face", "every", None, "sum over all tokens"),
    _family("clip-vit-[a-z]+-patch[0-9]+(-[0-9]+)?", "face", "every"),
    _family("eva02_.+|emonet|resnet50face|senet50face|manet|imagenet|msceleb", "face", "every"),
    _family("chinese-(hubert|wav2vec2)-(base|large)", "audio", "cut10s", None, _FOUR),
    _family("wavlm-(base|large)|wav2vec2-(base|large)-960h", "audio", "cut10s", None, _FOUR),
    _family("data2vec-audio-(base-960h|large(-960h)?)", "audio", "cut10s", None, _FOUR),
    _family("whisper-(base|large-v2)", "audio", "decoder2", 2),
    _family("emotion2vec(-finetune|[-_].+)?|wav2vec-large-[zc]", "audio", "every"),
    _family("vggish|eGeMAPS|IS(09|10|13)", "audio", "every", mean=False),
    _family(
        "(?i)(chinese-|taiyi-clip-|paraphrase-multilingual-)?(bert|roberta|deberta|electra|xlnet|macbert|pert|lert|mpnet|gpt2)"
        "([-_].+)?|(wenzhong2?|albert|simbert|xlnet|sentence|chatglm2?|moss|baichuan2?|llama-?[23]?|vicuna|bloom|opt"
        "|falcon|alpaca|stablelm|qwen[0-9.]*|internlm)([-_].+)?",
        "text", "tokens", None, _FOUR,
    ),
)  # fmt: skip
# Emotion-LLaMA-v2's: arrays (1, 64, dim), and nothing behind the name.
TOKENS = 64
_TOKENS: dict[str, Modality] = {"whisper-large-v3": "audio", "EVA-ViT-G": "frame"}
# EmoBox's: arrays (n, dim) of the last layer, and nothing behind the name.
_EMOBOX = re.compile(
    "(wav2vec2|hubert|wavlm|data2vec2?)-(base|large)|wav2vec2-large-xlsr-53|wav2vec2-xls-r-(300m|1b|2b)|wavlm-base-plus"
)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What one folder holds, by its name."""

    modality: Modality
    encoder: str
    """the name without its end, with what says that the input was changed: `chinese-hubert-large-noise5db`"""
    sampling: str
    """what the frames are of; `utterance` for their mean"""
    n_frames: int | Literal["all"]
    level: Level
    layout: str = "mertools"
    rows: int | None = None
    """how many frames every sample should have under an `all` key, where that is known"""
    pooling: str = ""
    mean_of: str | None = None
    """sampling of the frames whose mean an utterance is"""
    variants: tuple[tuple[str, str], ...] = ()

    @property
    def facts(self) -> dict[str, str]:
        """What a recipe keeps of it."""
        told = {"pooling": self.pooling, "mean_of": self.mean_of or "", **dict(self.variants)}
        return {name: value for name, value in told.items() if value}


def model_folder(name: str) -> ModelFolder | None:
    """What a folder's name says; None for one of no script that is known."""
    if name in _TOKENS:
        return ModelFolder(_TOKENS[name], name, "tokens", TOKENS, "tokens", "emotion-llama", pooling="mean")
    if _EMOBOX.fullmatch(name):
        return ModelFolder("audio", name, "every", "all", "frames", "emobox")
    match = _SUFFIX.fullmatch(name)
    if match is None:
        return None
    encoder, level = match["stem"], match["level"]
    stem, variants = _without_variants(encoder)
    family = _family_of(stem)
    if family is None:
        return None
    if level == "UTT":
        mean = family.sampling if family.mean else None
        facts = (family.pooling, mean, variants)
        return ModelFolder(family.modality, encoder, UTTERANCE, 1, "utterance", "mertools", None, *facts)
    facts = (family.pooling, None, variants)
    return ModelFolder(family.modality, encoder, family.sampling, "all", "frames", "mertools", family.rows, *facts)


def has_level(name: str) -> bool:
    """Whether a name ends as those of model folders do, whatever model it is of."""
    return _SUFFIX.fullmatch(name) is not None


def suggested_key(name: str) -> str:
    """The key that an unknown model's folder may be given, without its data set; MODALITY is for the user to say."""
    match = _SUFFIX.fullmatch(name)
    encoder, level = (match["stem"], match["level"]) if match else (name, "FRA")
    return f"MODALITY/{encoder}/{'utterance/1' if level == 'UTT' else 'every/all'}"


def folder_of(modality: str, encoder: str, sampling: str, n_frames: int | str) -> str | None:
    """The folder that MERTools' or Emotion-LLaMA-v2's code looks for; None where it looks for none."""
    if sampling == "tokens" and n_frames == TOKENS and encoder in _TOKENS:
        return encoder
    if modality in ("face", "audio", "text"):
        if sampling == UTTERANCE and n_frames == 1:
            return f"{encoder}-UTT"
        if n_frames == "all":
            return f"{encoder}-FRA"
    return None


def _without_variants(stem: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    found = []
    if match := _NOISE.fullmatch(stem):
        stem = match["stem"]
        found.append(("noise", match["case"]))
    for kind, pattern in _VARIANTS:
        if match := pattern.fullmatch(stem):
            stem = match["stem"]
            found.append((kind, match["case"]))
    return stem, tuple(found)


def _family_of(stem: str) -> _Family | None:
    """By the whole name, else by its end: `--model_dir parent/leaf` puts two names before that of a text encoder."""
    for family in _FAMILIES:
        if family.names.fullmatch(stem):
            return family
    parts = stem.split("-")
    for start in range(2, len(parts)):
        end = "-".join(parts[start:])
        for family in _FAMILIES:
            if family.modality == "text" and family.names.fullmatch(end):
                return family
    return None

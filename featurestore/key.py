"""FeatureKey: the five facts a user names, and the only place where they become text or a path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

from featurestore.errors import InvalidIdError, InvalidKeyError, LegacyNameError

Modality = Literal["frame", "face", "audio", "au", "text", "multi"]
MODALITIES: tuple[str, ...] = get_args(Modality)

_PART = re.compile(r"[A-Za-z0-9._-]{1,80}")
_ENCODER = re.compile(r"[A-Za-z0-9._+-]{1,80}")  # names of published models may hold a plus
_COUNT = re.compile(r"[1-9][0-9]{0,8}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

# The old layout joins the parts with "_", which encoder names contain too, so a folder name is matched
# against its fixed ends and, for fused vectors, against the names that the old scripts knew.
_VISUAL = r"CLIP_VIT_LARGE|EVA_CLIP_G_NO_QFORMER|EVA_CLIP_G|DINO2_LARGE|SigLIP_SO"
_ACOUSTIC = r"HUBERT_LARGE|WAVLM_LARGE|DATA2VEC_BASE|IMAGEBIND"
_LEGACY: tuple[tuple[Modality, re.Pattern[str]], ...] = (
    ("frame", re.compile(r"frame_(?P<enc>.+)_(?P<samp>uniform|headtail|emotion_peak)_(?P<n>[0-9]+)frms")),
    ("frame", re.compile(r"frame_(?P<enc>.+)_(?P<n>[0-9]+)frms")),
    ("face", re.compile(r"face_(?P<enc>.+?)(?:_uniform)?_(?P<n>[0-9]+)frms")),
    ("audio", re.compile(r"audio_(?P<enc>.+)_(?P<n>[0-9]+)clips")),
    ("multi", re.compile(rf"multi_(?P<visual>{_VISUAL})_(?P<acoustic>{_ACOUSTIC})_(?P<samp>complete|simple)")),
    ("au", re.compile(r"au|au_CLIP_VITB32(?:_512d)?_[0-9]+frms")),
)
_LEGACY_SAMPLING: dict[Modality, str] = {"face": "uniform", "audio": "const_clips"}


@dataclass(frozen=True, order=True, slots=True)
class FeatureKey:
    """Which features: `dataset/modality/encoder/sampling/n_frames`.

    Args:
        dataset: Short name, e.g. `mer2023`; aliases are resolved before a key is built.
        modality: frame, face, audio, au, text or multi.
        encoder: A registered name, e.g. `CLIP_VIT_LARGE`, or `ARCH.TAG` of open_clip.
        sampling: Name of a sampler, e.g. `uniform`, `emotion_peak`, `const_clips`.
        n_frames: Frames per sample, a positive integer, or `"all"` where it varies by sample.

    Raises:
        InvalidKeyError: A part is not `[A-Za-z0-9._-]{1,80}`, in an encoder also `+`, or not one of those above.

    Example:
        >>> str(FeatureKey("mer2023", "frame", "CLIP_VIT_LARGE", "uniform", 8))
        'mer2023/frame/CLIP_VIT_LARGE/uniform/8'
    """

    dataset: str
    modality: Modality
    encoder: str
    sampling: str
    n_frames: int | Literal["all"]

    def __post_init__(self) -> None:
        for name in ("dataset", "modality", "encoder", "sampling"):
            check_part(name, getattr(self, name))
        if self.modality not in MODALITIES:
            raise InvalidKeyError(f"modality {self.modality!r} is not one of {', '.join(MODALITIES)}")
        n = self.n_frames
        # bool is an int: True would silently become the key ".../True".
        if n != "all" and not (type(n) is int and 0 < n < 10**9):
            raise InvalidKeyError(f"n_frames {n!r} is neither a positive integer nor 'all'")

    @classmethod
    def parse(cls, text: str) -> FeatureKey:
        """Make a key of its text.  Inverse of `str(key)`.

        Args:
            text: `DATASET/MODALITY/ENCODER/SAMPLING/N_FRAMES`.

        Returns:
            The key.

        Raises:
            InvalidKeyError: It has not five parts, or one that no key can have.

        Example:
            >>> FeatureKey.parse("mer2023/frame/CLIP_VIT_LARGE/uniform/8").n_frames
            8
        """
        parts = text.split("/")
        if len(parts) != 5:
            raise InvalidKeyError(
                f"key {text!r} has {len(parts)} part{'s' if len(parts) > 1 else ''}, not 5: "
                "DATASET/MODALITY/ENCODER/SAMPLING/N_FRAMES, e.g. mer2023/frame/CLIP_VIT_LARGE/uniform/8"
            )
        dataset, modality, encoder, sampling, count = parts
        n_frames = int(count) if _COUNT.fullmatch(count) else count
        # Texts as they are: what they may be is checked where they become a key.
        return cls(dataset, cast(Modality, modality), encoder, sampling, cast(Literal["all"], n_frames))

    def __str__(self) -> str:
        return "/".join(self.parts)

    @property
    def parts(self) -> tuple[str, str, str, str, str]:
        """The five parts as text: the directory levels of a store."""
        return self.dataset, self.modality, self.encoder, self.sampling, str(self.n_frames)

    @classmethod
    def from_legacy(cls, dataset: str, name: str) -> FeatureKey:
        """Make a key of a folder name of the old `.npy` layout.

        Source: domain notes 2.1, the folder templates of AffectGPT's extraction scripts and the variants in its
        documents.

        Args:
            dataset: Short name; folder names have none.
            name: Of the folder.

        Returns:
            The key.

        Raises:
            LegacyNameError: No known script writes such a name.

        Example:
            >>> str(FeatureKey.from_legacy("mer2023", "frame_CLIP_VIT_LARGE_emotion_peak_8frms"))
            'mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8'
        """
        for modality, pattern in _LEGACY:
            match = pattern.fullmatch(name)
            if match is None:
                continue
            found = match.groupdict()
            if modality == "au":
                return cls(dataset, "au", "CLIP_TEXT", "au_summary", "all")
            if modality == "multi":
                return cls(dataset, "multi", f"{found['visual']}.{found['acoustic']}", found["samp"], 1)
            sampling = found.get("samp") or _LEGACY_SAMPLING.get(modality, "uniform")
            return cls(dataset, modality, found["enc"], sampling, int(found["n"]))
        raise LegacyNameError(
            f"folder name {name!r} is none of frame_ENCODER_SAMPLING_Nfrms, face_ENCODER_Nfrms, "
            "audio_ENCODER_Nclips, multi_VISUAL_ACOUSTIC_complete, au_CLIP_VITB32_8frms"
        )

    @property
    def legacy_name(self) -> str:
        """Folder name of this key in the old `.npy` layout.

        Raises:
            LegacyNameError: It has none.
        """
        n = self.n_frames
        if isinstance(n, int):
            if self.modality == "frame" and self.sampling in ("uniform", "headtail", "emotion_peak"):
                return f"frame_{self.encoder}_{self.sampling}_{n}frms"
            if self.modality == "face" and self.sampling == "uniform":
                return f"face_{self.encoder}_{n}frms"
            if self.modality == "audio" and self.sampling == "const_clips":
                return f"audio_{self.encoder}_{n}clips"
            if self.modality == "multi" and n == 1 and self.sampling in ("complete", "simple"):
                return f"multi_{self.encoder.replace('.', '_')}_{self.sampling}"
        raise LegacyNameError(
            f"{self} has no folder name in the old layout, which knows uniform, headtail and emotion_peak "
            "frames, uniform faces and const_clips audio with a fixed n_frames; "
            "export it with --sampling-as emotion_peak if readers should take it for that"
        )


def check_part(name: str, value: object) -> str:
    """The text of one key part, or InvalidKeyError.  `.` and `..` would leave the directory."""
    pattern, more = (_ENCODER, " +") if name == "encoder" else (_PART, "")
    if not isinstance(value, str) or not pattern.fullmatch(value) or value in (".", ".."):
        raise InvalidKeyError(
            f"{name} {value!r} must be 1 to 80 characters of A-Z a-z 0-9 . _ -{more} and not '.' or '..'"
        )
    return value


def check_id(id: object) -> str:
    """The id of a sample, or InvalidIdError: non-empty UTF-8, at most 512 bytes, no control characters.

    Ids are compared exactly and never normalised; they never become path components.
    """
    if type(id) is str and id.isascii() and id.isprintable() and 0 < len(id) <= 512:
        return id  # nearly all are, and a store checks each several times
    if not isinstance(id, str):
        raise InvalidIdError(f"sample id {id!r} is a {type(id).__name__}, not a string")
    try:
        size = len(id.encode())
    except UnicodeEncodeError:
        raise InvalidIdError(f"sample id {id!r} is not valid UTF-8") from None
    if not 0 < size <= 512 or _CONTROL.search(id):
        raise InvalidIdError(f"sample id {id!r} must be 1 to 512 bytes of UTF-8 without control characters")
    return id

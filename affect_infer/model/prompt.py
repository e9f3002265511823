"""Prompts: which sentences a mode is made of, in the exact words that the checkpoints were trained with.

Text in, text out.  The sentences say "uniformly sample" for every sampling, as they did in training.
Source: domain notes 5.5 (the modes of AffectGPT and its successor) and the guide's three modes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from featurestore.errors import ConfigError, InputError

AuAs = Literal["features", "text"]

# In the order in which they are added to the tokenizer, which fixes their ids; <AUHere> last, where it has a head.
PLACEHOLDERS = ("<ImageHere>", "<AudioHere>", "<FrameHere>", "<FaceHere>", "<MultiHere>", "<NonverbalHere>")
AU_PLACEHOLDER = "<AUHere>"
PLACEHOLDER_OF = {
    "image": "<ImageHere>",
    "audio": "<AudioHere>",
    "frame": "<FrameHere>",
    "face": "<FaceHere>",
    "multi": "<MultiHere>",
    "au": AU_PLACEHOLDER,
}
_ANY_PLACEHOLDER = re.compile("|".join(PLACEHOLDER_OF.values()) + "|<NonverbalHere>")

QUESTIONS = {
    "labels": "Please recognize all possible emotional states of the character.",
    "description": "Please infer the person's emotional state and provide your reasoning process.",
}


@dataclass(frozen=True, slots=True)
class Fragment:
    """One sentence, with its trailing blank, and the inputs without which it is left out."""

    text: str
    needs: tuple[str, ...] = ()


_FACES = "uniformly sample raw frames from the video and extract faces from these frames: <Video><FaceHere></Video>. "
_FRAMES = "uniformly sample raw frames from the video: <Video><FrameHere></Video>. "
_MERGED = "The audio and video merged info is: <Multi><MultiHere></Multi>. "

HUMAN = Fragment("###Human: ")
AUDIO = Fragment("The audio content is as follows: <Audio><AudioHere></Audio>. ", ("audio",))
FACE = Fragment(f"Meanwhile, we {_FACES}", ("face",))
FACE_TOO = Fragment(f"Additionally, we {_FACES}", ("face",))
FACE_FIRST = Fragment(f"We {_FACES}", ("face",))
FRAME = Fragment(f"Meanwhile, we {_FRAMES}", ("frame",))
FRAME_FIRST = Fragment(f"We {_FRAMES}", ("frame",))
FRAME_SMALL = Fragment(f"we {_FRAMES}", ("frame",))  # sic: the published ablation begins in lower case
IMAGE = Fragment("The image content is as follows: <Image><ImageHere></Image>. ", ("image",))
FACE_AUDIO = Fragment(_MERGED, ("face", "audio"))
FRAME_AUDIO = Fragment(_MERGED, ("frame", "audio"))
SUBTITLE = Fragment("The subtitle of this video is: <Subtitle>{subtitle}</Subtitle>. ", ("subtitle",))
QUESTION = Fragment(
    "Now, please answer my question based on all the provided information. {question} ###Assistant: ",
)
AU_FEATURES = Fragment("The AU (Action Unit) features are: <AU><AUHere></AU>. ", ("au",))
AU_TEXT = Fragment(
    "The nonverbal clues (facial action units and audio emotion clues) are: <Nonverbal>{au_text}</Nonverbal>. ", ("au",)
)
AU_TEXT_SHORT = Fragment("The nonverbal clues (facial action units) are: <Nonverbal>{au_text}</Nonverbal>. ", ("au",))

_MODES: dict[str, tuple[Fragment, ...]] = {
    # of the guide; its `frame` is the one below
    "face_frame_audio": (HUMAN, AUDIO, FACE, FRAME, SUBTITLE, QUESTION),
    "face_frame_audio_au": (HUMAN, AUDIO, FACE, FRAME, AU_TEXT, SUBTITLE, QUESTION),
    # of AffectGPT
    "faceframe": (HUMAN, AUDIO, FRAME, FACE_TOO, SUBTITLE, QUESTION),
    "face": (HUMAN, AUDIO, FACE, SUBTITLE, QUESTION),
    "frame": (HUMAN, AUDIO, FRAME, SUBTITLE, QUESTION),
    "audioonly": (HUMAN, AUDIO, QUESTION),
    "textonly": (HUMAN, SUBTITLE, QUESTION),
    "faceonly": (HUMAN, FACE_FIRST, QUESTION),
    "frameonly": (HUMAN, FRAME_FIRST, QUESTION),
    "image": (HUMAN, IMAGE, QUESTION),
    "audio_text": (AUDIO, SUBTITLE, QUESTION),
    "face_text": (FACE_FIRST, SUBTITLE, QUESTION),
    "frame_text": (FRAME_SMALL, SUBTITLE, QUESTION),
    "multiface_text": (HUMAN, FACE_AUDIO, SUBTITLE, QUESTION),
    "multiface_audio_face_text": (HUMAN, FACE_AUDIO, AUDIO, FACE, SUBTITLE, QUESTION),
    "multiframe_audio_frame_text": (HUMAN, FRAME_AUDIO, AUDIO, FRAME, SUBTITLE, QUESTION),
    "multiface_audio_face_frame_text": (HUMAN, FACE_AUDIO, AUDIO, FACE, FRAME, SUBTITLE, QUESTION),
    "multiface_audio_face_frame_au_text": (HUMAN, FACE_AUDIO, AUDIO, FACE, FRAME, AU_TEXT, SUBTITLE, QUESTION),
    "multiface_audio_face_au_text": (HUMAN, FACE_AUDIO, AUDIO, FACE, AU_TEXT, SUBTITLE, QUESTION),
    # of its successor
    "auonly": (HUMAN, AU_TEXT, QUESTION),
    "audio_au_text": (AUDIO, AU_TEXT, SUBTITLE, QUESTION),
    "face_frame_au_text": (HUMAN, FRAME_FIRST, FACE_TOO, AU_TEXT_SHORT, SUBTITLE, QUESTION),
    "multiframe_audio_frame_au_text": (HUMAN, FRAME_AUDIO, AUDIO, FRAME, AU_TEXT, SUBTITLE, QUESTION),
}


@dataclass(frozen=True, slots=True)
class Mode:
    """A mode with its choice of how action units enter: as features behind a placeholder, or as text."""

    name: str
    au: AuAs
    fragments: tuple[Fragment, ...]

    @property
    def needs(self) -> tuple[str, ...]:
        """Inputs of one sample: of image, frame, face, audio, au, subtitle; in the order of the prompt."""
        return tuple(dict.fromkeys(need for fragment in self.fragments for need in fragment.needs))

    @property
    def merges(self) -> Literal["face", "frame"] | None:
        """Which visual input the <Multi> token fuses with audio; None where there is no such token."""
        for fragment in self.fragments:
            if fragment is FACE_AUDIO:
                return "face"
            if fragment is FRAME_AUDIO:
                return "frame"
        return None

    def build(
        self, *, question: str, subtitle: str | None = None, au_text: str | None = None, masked: Collection[str] = ()
    ) -> str:
        """The prompt of one sample.

        masked   inputs this sample does not have: every sentence that needs one is left out, nothing is filled in
        au_text  descriptions of the face, with au="text"; "" leaves the sentence out, as the published code does
        Raises InputError where a text is absent and not masked, holds a placeholder, or nothing is left to look at.
        """
        texts = {"question": question, "subtitle": subtitle, "au_text": au_text}
        for name, text in texts.items():
            # The tokenizer would take it for the place of a feature, and the features would go to the wrong places.
            if text and "Here>" in text and (found := _ANY_PLACEHOLDER.search(text)):
                raise InputError(f"{name} holds {found[0]}, which stands for features; remove it: {text!r}")
        parts, seen = [], False
        for fragment in self.fragments:
            if masked and any(need in masked for need in fragment.needs):
                continue
            if fragment is SUBTITLE and subtitle is None:
                raise InputError(f"mode {self.name} needs a subtitle; '' means that nothing is said")
            if fragment is AU_TEXT or fragment is AU_TEXT_SHORT:
                if au_text is None:
                    raise InputError(f"mode {self.name} with AU as text needs a description of the face")
                if not au_text:
                    continue
            seen = seen or bool(fragment.needs)
            parts.append(_filled(fragment.text, texts))
        if not seen:
            raise InputError(
                f"mode {self.name}: nothing is left of the sample but the question (without {_list(masked)})"
            )
        return "".join(parts)


def mode_names() -> list[str]:
    """Names of the modes, sorted."""
    return sorted(_MODES)


def get_mode(name: str, au: AuAs = "features") -> Mode:
    """The mode of this name; ConfigError lists the names there are."""
    if name not in mode_names():  # a list of them: a file may say anything here, also what no dict can be asked for
        raise ConfigError(f"face_or_frame {name!r} is no mode; modes are {', '.join(mode_names())}")
    if au not in get_args(AuAs):
        raise ConfigError(f"au {au!r} is not one of {', '.join(get_args(AuAs))}")
    fragments = _MODES[name]
    if au == "features":
        fragments = tuple(AU_FEATURES if fragment in (AU_TEXT, AU_TEXT_SHORT) else fragment for fragment in fragments)
    return Mode(name, au, fragments)


def expand(prompt: str, counts: Mapping[str, int]) -> str:
    """Each placeholder repeated as many times as the model has tokens for it: counts {modality: tokens}."""
    for modality, count in counts.items():
        if count != 1:
            placeholder = PLACEHOLDER_OF[modality]
            prompt = prompt.replace(placeholder, placeholder * count)
    return prompt


def _filled(template: str, texts: Mapping[str, str | None]) -> str:
    # Not str.format: a subtitle may hold braces, and so may a question.
    before, brace, rest = template.partition("{")
    if not brace:
        return template
    name, _, after = rest.partition("}")
    return f"{before}{texts[name]}{after}"


def _list(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "an AU text"

"""Texts about a face, out of three schemas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.errors import DescriptionError
from featurestore.merfactory.document import is_absent, read_json
from featurestore.sample import Sample


@dataclass(frozen=True)
class Descriptions:
    """Texts about the face, in the order of their frames."""

    texts: Sequence[str]
    frames: Sequence[int | None]
    """keys of the texts as the file has them; None for a text about the whole sample"""
    field: str
    """where in the file they were"""
    source: Mapping[str, Any]
    """{path, size, mtime_ns, sha256}"""

    @property
    def note(self) -> dict[str, Any]:
        """What a row keeps about its descriptions."""
        return {"field": self.field, "described_frames": list(self.frames)}


def descriptions_of(sample: Sample) -> Descriptions:
    """The texts of `sample.au_json`, from the first of these fields that has any:

    `summary_description` and `fine_grained_descriptions` ({frame: text} sorted by frame, a text, or the
    guide's {"summary_description": text}), `overall_peak_au_description`, and of `merr_data`
    `coarse_descriptions_at_peak.visual_expression`.

    "N/A", which MER-Factory writes where it has none, null and blank texts are no descriptions; a frame that has
    nothing else is left out.  Raises DescriptionError if the file is missing, cannot be used, or has no description.
    """
    if sample.au_json is None:
        raise DescriptionError(
            f"sample {sample.id!r} has no MER-Factory output with descriptions; add the column 'au_json' to the "
            "manifest or pass --mer-factory DIR"
        )
    document, file = read_json(sample.au_json)
    path = file["path"]
    fine = document.get("fine_grained_descriptions")
    at_peak = document.get("coarse_descriptions_at_peak")
    candidates = [
        ("summary_description", document.get("summary_description")),
        ("fine_grained_descriptions", fine),
        ("overall_peak_au_description", document.get("overall_peak_au_description")),
        (
            "coarse_descriptions_at_peak.visual_expression",
            at_peak.get("visual_expression") if isinstance(at_peak, dict) else None,
        ),
    ]
    if isinstance(fine, dict) and fine.keys() == {"summary_description"}:
        candidates[1] = ("fine_grained_descriptions.summary_description", fine["summary_description"])
    for field, value in candidates:
        if isinstance(value, dict):
            frames = _sorted_frames(value, field, path)
            texts = [_text(value[key], f"{field}[{key!r}]", path) for _, key in frames]
            if texts:
                return Descriptions(texts, [frame for frame, _ in frames], field, file)
        elif not is_absent(value):
            return Descriptions([_text(value, field, path)], [None], field, file)
    raise DescriptionError(
        f"{path} has no descriptions: none of {', '.join(name for name, _ in candidates)} has a text (N/A and null are "
        "none); run MER-Factory again for this sample, or leave it out",
        path,
    )


def _text(value: Any, where: str, path: str) -> str:
    if not isinstance(value, str):
        raise DescriptionError(f"{path}: {where} is {value!r}, not text", path)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DescriptionError(
            f"{path}: {where} holds half of a surrogate pair, which is no character", path
        ) from error
    return value


def _sorted_frames(texts: Mapping[Any, Any], field: str, path: str) -> list[tuple[int, str]]:
    """(frame, key) of those that have a text."""
    try:
        frames = sorted((int(key), key) for key, text in texts.items() if not is_absent(text))
    except ValueError as error:
        raise DescriptionError(f"{path}: {field} has keys that are no frame numbers: {error}", path) from error
    if len({frame for frame, _ in frames}) < len(frames):
        raise DescriptionError(f"{path}: {field} has one frame under two keys", path)
    return frames

"""Captions: texts about the face and voice of samples, out of the one file in which the old code keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featurestore.datasets import Dataset
from featurestore.errors import InputError
from featurestore.untrusted_io.charset import decode
from featurestore.untrusted_io.files import parse_json, read_untrusted

MAX_BYTES = 256 << 20  # 45,000 samples have some 25 MB


def read_captions(path: Path, dataset: Dataset) -> dict[str, str]:
    """{sample: text} of one dataset in a file {dataset: {sample: {"caption": text}}}; empty texts are left out.

    The dataset may be called there by any of its names, with or without capitals, hyphens and blanks.
    Raises InputError for a file that cannot be read, is of another form, or has nothing of the dataset.
    """
    try:
        data = parse_json(decode(read_untrusted(path, MAX_BYTES), path.name))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"nonverbal_json {path} cannot be read: {why}") from error
    if not isinstance(data, dict):
        raise InputError(f'nonverbal_json {path} is not of the form {{dataset: {{sample: {{"caption": text}}}}}}')
    wanted = {_plain(name) for name in (*dataset.names, *dataset.mer_factory)}
    there = [name for name in data if _plain(name) in wanted]
    if len(there) != 1:
        has = f"has {' and '.join(there)}, which are one dataset" if there else f"has nothing of {dataset.name}"
        raise InputError(f"nonverbal_json {path} {has}; its datasets are {', '.join(data) or 'none'}")
    samples = data[there[0]]
    if not isinstance(samples, dict):
        raise InputError(f"nonverbal_json {path}: {there[0]} is not a mapping of samples")
    captions = {id: _caption(entry, f"{path}: {there[0]}.{id}") for id, entry in samples.items()}
    return {id: text for id, text in captions.items() if text}


def without_caption(captions: Mapping[str, str], ids: Mapping[str, Any]) -> str | None:
    """One line that says how many samples have no such sentence, or None where all have one."""
    absent = [id for id in ids if id not in captions]
    if not absent:
        return None
    count = f"{len(absent)} of {len(ids)} samples, e.g. {absent[0]!r}"
    return f"nonverbal_json has no text for {count}: their prompts have no such sentence"


def _caption(entry: Any, where: str) -> str:
    text = entry.get("caption") if isinstance(entry, dict) else entry
    if not isinstance(entry, dict) or not isinstance(text, str | None):
        raise InputError(f'nonverbal_json {where} is not {{"caption": text}}')
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        raise InputError(f"nonverbal_json {where} holds half of a surrogate pair, which is no character") from error
    return text or ""


def _plain(name: str) -> str:
    """CH-SIMS v2 and chsimsv2 are one name."""
    return "".join(character for character in name.casefold() if character.isalnum())

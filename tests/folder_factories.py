"""Feature folders as MERTools, Emotion-LLaMA-v2 and EmoBox write them, small and with planted mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IDS = tuple(f"sample_{number:08d}" for number in range(12))
HUBERT, MACBERT = "chinese-hubert-large", "chinese-macbert-base"


def array(seed: int, *shape: int, dtype: str = "<f4") -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def write(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> Path:
    """One `.npy` for each id."""
    folder.mkdir(parents=True, exist_ok=True)
    for id, values in arrays.items():
        np.save(folder / f"{id}.npy", values)
    return folder


def frames(width: int = 16, ids: tuple[str, ...] = IDS, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Arrays (n, width) of 2 to 6 frames."""
    return {id: array(seed + number, 2 + number % 5, width) for number, id in enumerate(ids)}


def means(of: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {id: values.mean(axis=0) for id, values in of.items()}


def lab(root: Path) -> Path:
    """A sound tree of a lab's own data set: frames, their means, faces in float64, tokens.  Returns its folder."""
    sound, text = frames(seed=100), frames(seed=200)
    write(root / f"{HUBERT}-FRA", sound)
    write(root / f"{HUBERT}-UTT", means(sound))
    write(root / f"{MACBERT}-FRA", text)
    write(root / f"{MACBERT}-UTT", means(text))
    write(root / "resnet50face_UTT", {id: array(300 + n, 12, dtype="<f8") for n, id in enumerate(IDS)})
    write(root / "videomae-base-FRA", {id: array(400 + n, 8, 6) for n, id in enumerate(IDS)})
    write(root / "whisper-large-v3", {id: array(500 + n, 1, 64, 4) for n, id in enumerate(IDS)})
    return root


def bytes_of(root: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def kinds(report: Any) -> dict[str, list[str]]:
    """kind -> ids of the findings of a report."""
    found: dict[str, list[str]] = {}
    for finding in report.findings:
        found.setdefault(finding.kind, []).extend(finding.ids)
    return found

"""Real files made in code: features, wavs, face arrays and MER-Factory files with known content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affect_infer.model.affect_model import Request
from affect_infer.model.prompt import QUESTIONS, AuAs, get_mode

VISUAL, ACOUSTIC, AU = 24, 32, 16
ROWS = {"frame": 8, "face": 8, "audio": 8, "au": 3}
WIDTHS = {"frame": VISUAL, "face": VISUAL, "audio": ACOUSTIC, "au": AU}


def features(seed: int, **rows: int) -> dict[str, NDArray[np.float32]]:
    """{modality: (rows, dim)}: repeatable numbers, their size that of real encoders."""
    chance = np.random.default_rng(seed)
    return {
        name: chance.normal(0, 0.5, (count, WIDTHS[name])).astype(np.float32) for name, count in (ROWS | rows).items()
    }


def request(seed: int, mode: str = "face_frame_audio_au", au: AuAs = "features", **texts: Any) -> Request:
    chosen = get_mode(mode, au)
    given: Mapping[str, Any] = {
        "question": QUESTIONS["labels"],
        "subtitle": "Well " * (seed % 7),
        "au_text": "A smile.",
    }
    own = {name: rows for name, rows in features(seed).items() if name in chosen.needs}
    return Request(f"s{seed}", chosen.build(**{**given, **texts}), own, chosen.merges)


def write_au_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")

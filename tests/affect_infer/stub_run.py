"""A run with a stub for the language model, in a process of its own that may be killed at any moment."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import encoders_quick

from affect_infer.config import Changes, read_settings
from affect_infer.generate import Sampling
from affect_infer.model import Answer, Request
from affect_infer.run import run


class Slow:
    """Answers each sample with a text that depends on its features, after some milliseconds."""

    batch_size_limit: int | None = None

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[Answer]:
        time.sleep(0.002 * len(requests))
        return [Answer(f"{request.id}: {float(request.features['frame'].sum()):.4f}", 3) for request in requests]


def main(yaml: str, output: str) -> None:
    encoders_quick.register()
    settings = read_settings(yaml, Changes(values={"output": Path(output), "batch_size": 2, "device": "cpu"}))
    run(settings, progress=False, load=lambda settings, plans: (Slow(), []))


if __name__ == "__main__":
    main(*sys.argv[1:])

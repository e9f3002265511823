"""A run with a stub for the language model, in a process of its own that may be killed at any moment."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import encoders_quick

from affect_infer.model.affect_model import Answer, Request
from affect_infer.model.generate import Sampling
from affect_infer.results import Results
from affect_infer.run.hybrid import run
from affect_infer.settings.reading import read_settings
from affect_infer.settings.settings import Changes


class Slow:
    """Answers each sample with a text that depends on its features, after some milliseconds."""

    batch_size_limit: int | None = None

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[Answer]:
        time.sleep(0.002 * len(requests))
        return [Answer(f"{request.id}: {float(request.features['frame'].sum()):.4f}", 3) for request in requests]


def break_results(how: str) -> None:
    """A run that begins with another idea of what was answered than its file has."""
    resume = Results._resume

    def other(results: Results) -> None:
        resume(results)
        if how == "forgets":
            results.answered.clear()
        elif results.answered:
            last = int(max(results.answered).rpartition("_")[2])
            results.answered.update(f"-clip_{number:04}" for number in (last + 1, last + 2))

    Results._resume = other  # type: ignore[method-assign]


def main(yaml: str, output: str, broken: str) -> None:
    if broken:
        break_results(broken)
    encoders_quick.register()
    settings = read_settings(yaml, Changes(values={"output": Path(output), "batch_size": 2, "device": "cpu"}))
    run(settings, progress=False, load=lambda settings, plans: (Slow(), []))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A run whose language model answers every sample with the same word."""

from __future__ import annotations

from collections.abc import Sequence

from affect_infer.model.affect_model import Answer, Request
from affect_infer.model.generate import Sampling
from affect_infer.run.hybrid import run
from affect_infer.run.report import RunReport
from affect_infer.settings.settings import Settings


class Calm:
    batch_size_limit: int | None = None

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[Answer]:
        return [Answer("calm", 1) for _ in requests]


def quiet(settings: Settings) -> RunReport:
    return run(settings, progress=False, load=lambda settings, plans: (Calm(), []))

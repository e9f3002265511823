"""The report's numbers, against numbers that are known."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from affect_infer.model.affect_model import Answer, Request
from affect_infer.model.generate import Sampling
from affect_infer.results import read_results
from affect_infer.run.hybrid import run
from affect_infer.run.report import RunReport
from affect_infer.settings.settings import Settings

PLAN: Any = SimpleNamespace(task=SimpleNamespace(name="d"))


def line(number: int, answer: str, **more: Any) -> dict[str, Any]:
    given = {"answer": answer, "recipe": "a" * 16}
    return {"id": f"s{number}", "tokens": 3, "inputs": {"frame": given}, "ms": {"frame": float(number)}, **more}


@pytest.fixture
def counted() -> RunReport:
    """Hundred lines: 70 from the store, 20 computed, 6 computed and not kept, 4 live; frame took 1, 2, ... 100 ms."""
    report = RunReport(started=time.perf_counter())
    answers = ["disk"] * 70 + ["computed"] * 20 + ["not_kept"] * 6 + ["live"] * 4
    for number, answer in enumerate(answers, 1):
        report.count(PLAN, line(number, answer, **({"masked": {"face": "no face"}} if number <= 5 else {})))
    return report


def test_counts_hit_rate_and_percentiles(counted: RunReport) -> None:
    assert counted.as_dict()["inputs"] == {
        "frame": {"disk": 70, "computed": 20, "not_kept": 6, "live": 4},
        "face": {"masked": 5},
    }
    assert counted.hit_rate == pytest.approx(70 / 96)  # what is live was not looked up
    assert counted.as_dict()["ms"] == {"frame": {"p50": 50.0, "p95": 95.0}}
    assert (counted.answered, counted.tokens, counted.not_kept) == (100, 300, 6)


def test_the_text_says_the_same(counted: RunReport) -> None:
    counted.ms["generate"] = [10.0, 30.0]
    counted.looping, counted.generating, counted.wall = 4.0, 3.0, 5.0
    text = counted.text()
    (frame,) = [row.split() for row in text.splitlines() if row.startswith("frame ")]
    assert frame == ["frame", "70", "26", "4", "0", "50.00", "95.00"]
    assert "language model: 3.0 s of 4.0 s (75%), 300 tokens; 25.00 samples/s; 5.0 s with checks and loading" in text
    assert "store hit rate: 72.9%" in text
    assert "6 features were computed and not kept: the store cannot be written" in text


@pytest.mark.parametrize(
    ("values", "p50", "p95"), [([7.0], 7.0, 7.0), ([1.0, 2.0], 1.0, 2.0), ([3.0, 1.0, 2.0], 2.0, 3.0)]
)
def test_percentiles_of_few(values: list[float], p50: float, p95: float) -> None:
    report = RunReport(started=0.0)
    report.ms["frame"] = values
    assert report.as_dict()["ms"]["frame"] == {"p50": p50, "p95": p95}


class Timed:
    """A stub that knows how long it took."""

    batch_size_limit: int | None = None
    seconds = 0.0

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[Answer]:
        start = time.perf_counter()
        time.sleep(0.05)
        self.seconds += time.perf_counter() - start
        return [Answer("calm", 2) for _ in requests]


def test_the_share_of_the_language_model_is_its_time_in_that_of_the_loop(stored: Callable[..., Settings]) -> None:
    model = Timed()
    begun = time.perf_counter()
    report = run(stored(), load=lambda settings, plans: (model, []), progress=False)
    whole = time.perf_counter() - begun
    assert report.generating == pytest.approx(model.seconds, rel=0.05)
    assert model.seconds <= report.generating <= report.looping <= report.wall <= whole
    data = report.as_dict()
    assert data["language_model_share"] == pytest.approx(report.generating / report.looping, abs=1e-4)
    lines = read_results(report.files[0])[1].values()
    assert sum(each["ms"]["generate"] for each in lines) == pytest.approx(1000 * report.generating, rel=1e-3)
    assert data["tokens"] == 2 * 12


class Scarce(Timed):
    """Memory for two: that fault cannot be produced here."""

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[Answer]:
        self.batch_size_limit = 2
        return super().answer(requests, sampling)


def test_memory_that_ran_out_is_told(stored: Callable[..., Settings]) -> None:
    settings = replace(stored(), batch_size=None)  # --batch-size auto
    report = run(settings, load=lambda settings, plans: (Scarce(), []), progress=False)
    told = "the device ran out of memory: batches were halved to 2 samples"
    assert report.answered == 12
    assert report.notes == [told]
    assert told in report.text()

"""docs/numbers.md says what benchmarks/rounding.py measured, and the bounds in the code are above it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from featurestore.quality.compare import MARGIN, SPREAD, UNIT, rounding

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import write_numbers

    return write_numbers


@pytest.fixture
def result(writer: Any) -> Any:
    return json.loads(writer.RESULT.read_text())


def test_the_pages_are_what_the_result_says(writer: Any, result: Any) -> None:
    names = []
    for path in writer.PAGES:
        page = path.read_text()
        assert writer.rendered(page, result) == page, "run scripts/write_numbers.py"
        names += [match["name"] for match in writer.BLOCK.finditer(page)]
    assert sorted(names) == sorted(writer.BLOCKS)


def test_another_number_makes_another_page(writer: Any, result: Any) -> None:
    changed = copy.deepcopy(result)
    for row in changed["rows"]:
        row["all"] *= 3
    for path in writer.PAGES:
        assert writer.rendered(path.read_text(), changed) != path.read_text()


def test_the_bounds_are_those_of_the_code(result: Any) -> None:
    for dtype, said in result["allowed"].items():
        assert said == {"unit": UNIT[dtype], "spread": SPREAD[dtype], "margin": MARGIN[dtype]}
    for row in result["rows"]:
        assert row["allowed"] == pytest.approx(rounding(row["blocks"], row["dtype"]))


def test_no_spread_is_above_what_the_code_takes_for_the_largest(result: Any) -> None:
    for row in result["rows"]:
        assert row["units a block"] <= SPREAD[row["dtype"]], row["network"]
        assert row["all"] * MARGIN[row["dtype"]] <= row["allowed"] * 1.001, row["network"]


def test_mistakes_in_float32_are_at_least_ten_times_the_bound(result: Any) -> None:
    assert min(row["nearest by allowed"] for row in result["rows"] if row["dtype"] == "float32" and row["nearest"]) > 10

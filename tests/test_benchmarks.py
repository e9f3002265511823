"""docs/benchmarks.md is what render.py makes of the committed results, and no page states another speed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from featurestore.storage.eviction import DEFAULT, POLICIES

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# A number with a unit that only a measurement can give: times of one thing, rates, and how many times faster.
SPEED = re.compile(
    r"(?<![\w.])(\d[\d,]*(?:\.\d+)?)\s*(?:ms|us|µs|microseconds|milliseconds|[MG]B/s|it/s|(?:samples|clips|rows)/s"
    r"|(?:x|×|times)\s(?:faster|slower|as fast))\b"
)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_the_page_is_what_the_results_say(tmp_path: Path) -> None:
    from charts import draw
    from render import page, read_results

    results = read_results(BENCHMARKS / "results")
    charts = draw(results, tmp_path / "benchmarks")
    again = "run `python benchmarks/render.py`"
    assert (ROOT / "docs" / "benchmarks.md").read_text() == page(results, charts, "benchmarks"), again
    for names in charts.values():
        for name in names:
            drawn = (tmp_path / "benchmarks" / name).read_bytes()
            assert (ROOT / "docs" / "benchmarks" / name).read_bytes() == drawn, f"{name} differs; {again}"


def test_every_result_is_of_a_program_that_is_here() -> None:
    for path in (BENCHMARKS / "results").glob("*.json"):
        if path.name == "torture.json":
            continue  # of tests/test_reliability.py
        result = json.loads(path.read_text())
        assert "--quick" not in result["command"], f"{path.name} is of a quick run"
        assert (ROOT / result["command"].split()[1]).is_file()
        assert {"cpu", "cores", "versions", "load_before", "load_after"} <= result["machine"].keys()


def test_every_program_says_how_long_it_takes_and_what_it_does_not_show() -> None:
    told = (BENCHMARKS / "README.md").read_text()
    for path in sorted(BENCHMARKS.glob("*.py")):
        text = path.read_text()
        if 'save("' not in text:
            continue
        assert "Does not show: " in text, path.name
        assert re.search(rf"python benchmarks/{path.name} .*minute", text), path.name
        assert f"`{path.name}`" in told, path.name


def test_every_target_has_a_sentence_for_when_it_is_missed() -> None:
    from render import read_results
    from targets import TARGETS

    results = read_results(BENCHMARKS / "results")
    for target in TARGETS:
        try:
            said = target.why(results)
        except KeyError:
            continue  # its sentence tells numbers that this result does not have
        assert said or target.most == 0, target.what


def test_the_default_policy_is_the_one_that_the_hit_rates_chose() -> None:
    mean = json.loads((BENCHMARKS / "results" / "hit_rates.json").read_text())["mean"]
    from render import CANDIDATES

    # Pinned, which never lets a new row in, wins where one set is read for ever, and loses all of the next one.
    assert max(CANDIDATES, key=mean.__getitem__) == DEFAULT
    assert set(POLICIES) <= set(CANDIDATES)


def test_make_bench_runs_every_program() -> None:
    from run import NAMES

    assert sorted(NAMES) == sorted(path.stem for path in BENCHMARKS.glob("*.py") if 'save("' in path.read_text())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_page_states_a_speed_that_was_not_measured(path: Path) -> None:
    if path.name == "benchmarks.md":
        return  # compared as a whole
    known = set(numbers(json.loads(p.read_text()) for p in (BENCHMARKS / "results").glob("*.json")))
    stated = SPEED.findall(without_output(path.read_text(encoding="utf-8")))
    assert [number for number in stated if not measured(number, known)] == []


def test_a_speed_out_of_the_air_is_found() -> None:
    text = "Reads take 4 us.\n\n```text\n9.12 it/s\n```\nIt is 600 times faster, 3 times a day, for 2 s."
    assert SPEED.findall(without_output(text)) == ["4", "600"]
    assert measured("4", {3.96})
    assert not measured("4", {3.4, 4.6})


def without_output(text: str) -> str:
    """A page without its code blocks: what a program prints, it measures itself."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def numbers(value: Any) -> Iterator[float]:
    """Every number in a result."""
    if isinstance(value, bool):
        return
    if isinstance(value, (int, float)):
        yield float(value)
    elif isinstance(value, dict):
        yield from numbers(value.values())
    elif not isinstance(value, str) and hasattr(value, "__iter__"):
        for each in value:
            yield from numbers(each)


def measured(stated: str, known: set[float]) -> bool:
    """Whether some measured number, rounded as the stated one is, is that."""
    plain = stated.replace(",", "")
    places = len(plain.partition(".")[2])
    return any(round(number, places) == float(plain) for number in known)

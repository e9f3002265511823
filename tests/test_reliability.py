"""docs/reliability.md says what the torture tests counted, and what `fstore doctor` can find."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from featurestore.cli import filesystem

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import write_reliability

    return write_reliability


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "torture"))
    import figures

    return figures


def test_the_page_is_what_the_run_says(writer: Any) -> None:
    page = writer.PAGE.read_text()
    assert writer.rendered(page, writer.read_results()) == page, "run scripts/write_reliability.py"
    assert {match["name"] for match in writer.BLOCK.finditer(page)} == writer.BLOCKS.keys()


def test_another_number_makes_another_page(writer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    results = copy.deepcopy(writer.read_results())
    name, proof = next(iter(results["proofs"].items()))
    proof["bad"] = {"lost": 1}
    page = writer.rendered(writer.PAGE.read_text(), results)
    assert f"attempts: **1 {name}: lost**" in page
    assert "lost: **1**" in page
    assert page != writer.PAGE.read_text()
    monkeypatch.setitem(writer.AIMS, name, 10_000)
    proof.update(tried=17, what="kills")
    assert "17 kills (aimed at 10,000)" in writer.rendered(page, results)


def test_the_kept_run_found_only_what_the_page_names_and_is_of_tests_that_are_here(writer: Any) -> None:
    results = writer.read_results()
    bad = {name: {what: n for what, n in proof["bad"].items() if n} for name, proof in results["proofs"].items()}
    assert {name: found for name, found in bad.items() if found} == writer.STANDING  # each is named on the page
    for name, proof in results["proofs"].items():
        assert proof["form"] == "long", name
        assert not proof["commit"].endswith("dirty"), f"{name} was tried on code that is not committed"
        assert (ROOT / proof["file"]).is_file(), name
    assert results["mutants"].keys() <= results["proofs"].keys()
    assert all(results["mutants"].values())


def test_every_promise_that_doctor_tries_is_on_the_page(writer: Any) -> None:
    page = writer.PAGE.read_text()
    for name, _ in filesystem.PROBES:
        if filesystem.ADVICE[name]:
            assert f"`problem {name}`" in page, name


def test_a_short_run_replaces_no_long_one_and_cases_are_added_up(figures: Any, tmp_path: Path) -> None:
    path = tmp_path / "new" / "torture.json"

    def session(form: str, tried: int, bad: int) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for _ in range(2):
            test = figures.Figures(kept, form, "tests/torture/test_kill.py")
            test.record("kill -9", tried, "kills", {"lost": bad}, {"samples": 5})
            test.caught("kill -9", "no fsync")
        figures.keep(path, kept)
        return figures.json.loads(path.read_text())  # type: ignore[no-any-return]

    first = session("short", 3, 0)
    assert (first["proofs"]["kill -9"]["tried"], first["proofs"]["kill -9"]["beside"]) == (6, {"samples": 10})
    assert first["mutants"] == {"kill -9": ["no fsync"]}
    assert {"cpu", "cores", "python", "versions"} <= first["machine"].keys()
    assert session("short", 4, 0)["proofs"]["kill -9"]["tried"] == 8
    assert session("long", 1, 1)["proofs"]["kill -9"]["bad"] == {"lost": 2}
    assert session("short", 9, 0)["proofs"]["kill -9"]["tried"] == 2

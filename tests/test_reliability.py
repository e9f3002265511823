"""docs/reliability.md says what the torture tests counted, and what `fstore doctor` can find."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
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


def counted(figures: Any, path: Path, test: str, form: str, tried: int, bad: int) -> dict[str, Any]:
    """Two cases of a proof in one test, and what the file says then."""
    kept: dict[str, Any] = {}
    for _ in range(2):
        one = figures.Figures(kept, form, "tests/torture/test_kill.py")
        one.record("kill -9", tried, "kills", {"lost": bad}, {"samples": 5})
        one.caught("kill -9", f"mutant of {test}")
    figures.keep(path, test, kept)
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def test_a_short_run_replaces_no_long_one_and_cases_are_added_up(figures: Any, tmp_path: Path) -> None:
    path = tmp_path / "new" / "torture.json"

    def session(form: str, tried: int, bad: int) -> dict[str, Any]:
        return counted(figures, path, "a", form, tried, bad)

    first = session("short", 3, 0)
    assert (first["proofs"]["kill -9"]["tried"], first["proofs"]["kill -9"]["beside"]) == (6, {"samples": 10})
    assert first["mutants"] == {"kill -9": ["mutant of a"]}
    assert {"cpu", "cores", "python", "versions"} <= first["machine"].keys()
    assert session("short", 4, 0)["proofs"]["kill -9"]["tried"] == 8
    assert session("long", 1, 1)["proofs"]["kill -9"]["bad"] == {"lost": 2}
    assert session("short", 9, 0)["proofs"]["kill -9"]["tried"] == 2


def test_pieces_of_a_proof_add_up_and_a_run_goes_on_where_it_was_cut_off(figures: Any, tmp_path: Path) -> None:
    path = tmp_path / "torture.json"
    old = {"tried": 77, "commit": "0000000", "form": "long", "bad": {}, "beside": {}}
    path.write_text(json.dumps({"proofs": {"kill -9": old, "older": old}, "mutants": {"kill -9": ["gone since"]}}))
    assert not figures.is_done(path, "a")
    counted(figures, path, "a", "long", 3, 0)
    counted(figures, path, "b", "long", 4, 1)
    counted(figures, path, "c", "short", 4, 0)
    document = counted(figures, path, "a", "long", 2, 0)
    proof = document["proofs"]["kill -9"]
    assert (proof["tried"], proof["bad"], proof["beside"]) == (2 * (2 + 4 + 4), {"lost": 2}, {"samples": 30})
    assert document["mutants"] == {"kill -9": ["mutant of a", "mutant of b", "mutant of c"]}
    assert document["proofs"]["older"] == old
    assert [figures.is_done(path, test) for test in ("a", "b", "c", "d")] == [True, False, False, False]
    document["pieces"]["a"]["format"] = 1
    path.write_text(json.dumps(document))
    assert not figures.is_done(path, "a")


@pytest.mark.parametrize("cut_off", [False, True])
def test_only_tests_that_came_to_an_end_are_kept_and_left_out(tmp_path: Path, cut_off: bool) -> None:
    """In a session of its own, cut off by Ctrl-C in the middle of the second test or not."""
    folder = tmp_path / "tests" / "torture"
    folder.mkdir(parents=True)
    (tmp_path / "benchmarks").mkdir()
    here = ("tests/conftest.py", "tests/torture/conftest.py", "tests/torture/figures.py", "benchmarks/harness.py")
    for name in here:
        shutil.copy(ROOT / name, tmp_path / name)
    (folder / "test_two.py").write_text(TWO)

    def session(*options: str) -> str:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            "--long",
            "--figures=kept.json",
            *options,
        ]
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # a worker's, say
        environment = {**ours, "PYTHONPATH": f"{folder}:{ROOT}", "CUT_OFF": str(int(cut_off))}
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return ran.stdout + ran.stderr

    assert ("KeyboardInterrupt" in session()) == cut_off
    pieces = json.loads((tmp_path / "kept.json").read_text())["pieces"]
    assert [name.rpartition(":")[2] for name in pieces] == ["test_first"] + ["test_second"] * (not cut_off)
    assert ("1 deselected" if cut_off else "2 deselected") in session("--resume")


TWO = """
import os


def test_first(figures):
    figures.record("first", 1, "tries", {"bad": 0})


def test_second(figures):
    figures.record("second", 1, "tries", {"bad": 0})
    if os.environ["CUT_OFF"] == "1":
        raise KeyboardInterrupt
"""

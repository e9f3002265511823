"""benchmarks/against.py compares the tree it lies in with a commit, and tells a tree that became slower."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def git(root: Path, *words: str) -> None:
    known = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *known, *words], cwd=root, capture_output=True, check=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what is measured and what measures, as a repository with one commit."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    root = tmp_path / "a project"
    for name in ("featurestore", "benchmarks"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "--message", "then")
    return root


def against(root: Path, *words: str) -> tuple[int, dict[str, float], str]:
    """(exit code, {measure: ratio of CPU seconds}, what it said last)."""
    pytest.importorskip("psutil")
    command = [sys.executable, str(root / "benchmarks" / "against.py"), "HEAD", *words, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines() or [done.stderr]
    ratios = {line.split()[0]: float(line.split()[3]) for line in lines[1:-1]}
    return done.returncode, ratios, lines[-1]


def test_every_measure_runs_and_a_tree_is_as_fast_as_itself(project: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("av")
    code, ratios, said = against(project, "--rounds", "1", "--most", "900")
    assert code == 0, said
    assert said == "slower than HEAD by more than 900 %: nothing"
    assert set(ratios) == {"start-up", "first-hit", "reads", "loader", "writes", "misses", "extract"}


def test_a_tree_that_became_slower_is_told(project: Path) -> None:
    store = project / "featurestore" / "store.py"
    text = store.read_text(encoding="utf-8")
    first = r"\n        last_key, last_fingerprint, feature_set = self\._last\n"
    slow, count = re.subn(first, r"\n        sum(range(3000))\g<0>", text)
    assert count >= 1
    store.write_text(slow, encoding="utf-8")
    code, ratios, said = against(project, "reads", "--rounds", "3", "--most", "50")
    assert code == 1, said
    assert said == "slower than HEAD by more than 50 %: reads"
    assert ratios["reads"] > 1.5


def test_a_process_of_its_own_is_of_its_tree_whatever_folder_one_is_in(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    start = project / "featurestore" / "__init__.py"
    start.write_text(start.read_text(encoding="utf-8") + "\nsum(range(20_000_000))\n", encoding="utf-8")
    code, ratios, said = against(project, "start-up", "--rounds", "1", "--most", "50")
    assert (code, said) == (1, "slower than HEAD by more than 50 %: start-up")
    assert ratios["start-up"] > 1.5


def test_what_is_asked_for_wrongly_is_said(project: Path) -> None:
    assert against(project, "speed")[2].endswith(
        "no measure is called speed; there are start-up, first-hit, reads, loader, writes, misses, extract\n"
    )
    command = [sys.executable, str(project / "benchmarks" / "against.py"), "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"nowhere is no commit of {project}")

"""The scripts of docs/examples run anywhere, and print what docs/examples/README.md says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import blocks, same

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "examples"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py"))
LIMIT = 60  # lines


def told(page: str) -> dict[str, str]:
    """{script: what the page says that it prints}."""
    found = {}
    for block in blocks(page):
        command, _, printed = block.body.partition("\n")
        if block.language == "console" and command.startswith("$ python "):
            found[command.removeprefix("$ python ")] = printed
    return found


TOLD = told((FOLDER / "README.md").read_text(encoding="utf-8"))


def printed_by(script: str, folder: Path) -> str:
    """Stdout of a script that is started in `folder`; an exit code other than 0 fails the test."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / script)],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_shows_each_script() -> None:
    assert sorted(TOLD) == SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_short(script: str) -> None:
    assert len((FOLDER / script).read_text(encoding="utf-8").splitlines()) < LIMIT


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_prints_what_the_page_says(script: str, tmp_path: Path) -> None:
    printed = printed_by(script, tmp_path)
    assert same(printed, TOLD[script]), printed


def test_a_script_may_be_run_again(tmp_path: Path) -> None:
    assert printed_by("keep_and_read.py", tmp_path) == printed_by("keep_and_read.py", tmp_path)


def test_a_page_that_says_something_else_is_noticed(tmp_path: Path) -> None:
    printed = printed_by("keep_and_read.py", tmp_path)
    for line in printed.splitlines():
        assert not same(printed, printed.replace(line, "another line"))
    assert told("```console norun\n$ python a.py\none\n```\n```sh\n$ python b.py\n```\n") == {"a.py": "one\n"}

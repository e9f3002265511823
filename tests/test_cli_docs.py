"""docs/commands.md has the help of every command, word for word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from featurestore.cli import COMMANDS, fstore

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "commands.md"
WRITER = ROOT / "scripts" / "write_commands.py"


def command_lines() -> list[str]:
    """`extract`, `config explain`, ...: every command, and those of groups."""
    lines = []
    for name in COMMANDS:
        lines.append(name)
        command = fstore.get_command(click.Context(fstore), name)
        if isinstance(command, click.Group):
            lines += [f"{name} {other}" for other in command.commands]
    return lines


@pytest.mark.parametrize("line", command_lines())
def test_every_command_is_documented(line: str) -> None:
    page = PAGE.read_text()
    assert f"\n$ fstore {line} --help\n" in page
    assert f"\n### {line.split()[0]}\n" in page


def test_the_page_says_what_the_program_says(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(WRITER.parent)!r}); import write_commands as w; "
    code += "text = w.PAGE.read_text(); assert w.rendered(text) == text"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run scripts/write_commands.py\n{done.stderr}"


def test_a_page_that_is_out_of_date_fails() -> None:
    code = f"import sys; sys.path.insert(0, {str(WRITER.parent)!r}); import write_commands as w; "
    code += "text = w.PAGE.read_text().replace('Show the traceback', 'Hide the traceback'); "
    code += "assert w.rendered(text) == w.PAGE.read_text() != text"
    subprocess.run([sys.executable, "-c", code], check=True)

"""Write the help of every command into docs/commands.md, where a block begins with `$ fstore ... --help`.

    .venv/bin/python scripts/write_commands.py

tests/test_cli_docs.py fails while the page says anything else than the program.
"""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from featurestore.cli import fstore

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
BLOCK = re.compile(r"^```console\n\$ fstore (?P<words>[a-z ]*)--help\n.*?^```$", re.MULTILINE | re.DOTALL)


def rendered(page: str) -> str:
    """The page with the help of now."""

    def block(match: re.Match[str]) -> str:
        words = match["words"]
        done = CliRunner().invoke(fstore, [*words.split(), "--help"], prog_name="fstore")
        if done.exit_code:
            raise SystemExit(f"fstore {words}--help: {done.output}")
        return f"```console\n$ fstore {words}--help\n{done.stdout}```"

    return BLOCK.sub(block, page)


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""Text that the packages read or write is UTF-8 wherever they run: no call leaves the encoding to the locale."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [path for package in ("featurestore", "affect_infer", "scripts") for path in (ROOT / package).rglob("*.py")]


def of_the_locale(text: str) -> list[int]:
    """Lines with a call that opens text without saying its encoding."""
    return [node.lineno for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and _leaves_it_open(node)]


def _leaves_it_open(call: ast.Call) -> bool:
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in named or None in named:
        return False
    function, arguments = ast.unparse(call.func), [*call.args]
    if function == "open" or function.endswith("NamedTemporaryFile"):
        at = 1 if function == "open" else 0
        mode = named.get("mode", arguments[at] if len(arguments) > at else ast.Constant("r" if at else "w+b"))
        return isinstance(mode, ast.Constant) and "b" not in str(mode.value)
    if function.endswith((".read_text", ".write_text")):
        return len(arguments) <= function.endswith(".write_text")
    return False


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_is_of_the_locale(path: Path) -> None:
    assert of_the_locale(path.read_text(encoding="utf-8")) == []


def test_what_leaves_it_open_is_found() -> None:
    calls = [
        "open(a)", "open(a, 'w')", "path.read_text()", "path.write_text(text)",
        "tempfile.NamedTemporaryFile('w')",
    ]  # fmt: skip
    assert of_the_locale("\n".join(calls)) == [*range(1, len(calls) + 1)]
    fine = ["open(a, 'rb')", "open(a, encoding='utf-8')", "path.read_text('utf-8')", "archive.open(a)", "os.open(a, 0)"]
    assert of_the_locale("\n".join(fine)) == []

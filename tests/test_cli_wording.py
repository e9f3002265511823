"""No hint on the command line names an argument of Python: looked for in every text that the packages can say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_factories import KEY, make_store, run, second_recipe

from featurestore.cli.wording import OPTIONS, in_options

ROOT = Path(__file__).resolve().parents[1]
PYTHON = re.compile(
    r"\b[a-z_]+=(True|False|None)\b|\b(recipe|fingerprint|weights|compute|overwrite|read_only|allow_corrupt|root|pins|limit)="
)
NOT_PRINTED = {
    "featurestore/storage/reader.py": "pass fingerprint=",  # a copy of the reader has no command line
    "featurestore/compute/extraction.py": "needs a store with a compute",  # commands that extract have one
    "featurestore/features.py": ", recipe=",  # of a repr
    "featurestore/store.py": ", read_only=",  # of a repr
}


def texts() -> Iterator[tuple[str, str]]:
    """(file, text) of every string in the packages that is no docstring; what is put into it is a letter."""
    for path in sorted(path for package in ("featurestore", "affect_infer") for path in (ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if id(node) in docs | parts:
                continue
            if isinstance(node, ast.JoinedStr):
                pieces = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
                yield str(path.relative_to(ROOT)), "".join(map(str, pieces))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield str(path.relative_to(ROOT)), node.value


TEXTS = [(file, text) for file, text in texts() if file != "featurestore/cli/wording.py"]


def test_every_text_that_names_an_argument_has_an_option_for_it() -> None:
    named = [(file, text) for file, text in TEXTS if PYTHON.search(text) and NOT_PRINTED.get(file, "\0") not in text]
    assert len(named) >= 8
    left = [(file, text) for file, text in named if PYTHON.search(in_options(text))]
    assert left == []


def test_the_search_finds_what_the_table_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(OPTIONS, "pass overwrite=True to replace them")
    assert any(PYTHON.search(in_options(text)) for file, text in TEXTS if file == "featurestore/storage/feature_set.py")


@pytest.mark.parametrize("python", OPTIONS)
def test_the_table_has_nothing_that_is_not_said(python: str) -> None:
    assert any(python in text or python in text.replace("X", "") for _, text in TEXTS)


def test_a_command_says_how_a_recipe_is_chosen_there(tmp_path: Path) -> None:
    root = make_store(tmp_path)
    second_recipe(root)
    said = run("ls", KEY, "--store", root, exit_code=2).stderr
    assert f"2 recipes; say which as {KEY}@PREFIX:" in said
    assert "fingerprint=" not in said

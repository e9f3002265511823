"""The table of contents in `featurestore/__init__.py` is true."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import featurestore
from featurestore.stats import COUNTERS
from featurestore.storage.failures import FailureRecord
from featurestore.storage.info import FeatureSetInfo, SampleInfo

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "python.md").read_text(encoding="utf-8")


def type_checking_imports() -> dict[str, str]:
    """name -> module, as the imports for type checkers say."""
    tree = ast.parse(inspect.getsource(featurestore))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: node.module or ""
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for alias in node.names
    }


def test_the_three_lists_of_names_agree() -> None:
    assert sorted(featurestore.__all__) == sorted(featurestore._HOME)
    assert type_checking_imports() == {name: f"featurestore.{home}" for name, home in featurestore._HOME.items()}
    assert len(set(featurestore.__all__)) == len(featurestore.__all__)


@pytest.mark.parametrize("name", featurestore.__all__)
def test_each_name_is_what_its_module_defines(name: str) -> None:
    value = getattr(featurestore, name)
    assert value is getattr(import_module(f"featurestore.{featurestore._HOME[name]}"), name)
    assert value.__module__ == f"featurestore.{featurestore._HOME[name]}"
    assert value.__doc__, f"{name} has no docstring"
    assert name in dir(featurestore)


FUNCTIONS = """
import featurestore, importlib, sys
def are_functions(when):
    for name in ("extract", "load_dataset", "verify"):
        assert type(getattr(featurestore, name)).__name__ == "function", (when, name, getattr(featurestore, name))
if sys.argv[1] == "before":
    are_functions("before anything was imported")
for module in sys.argv[2:]:
    importlib.import_module(module)
    are_functions(module)
"""


def modules() -> list[str]:
    """Every module of the package, but for those that run something."""
    found = pkgutil.walk_packages(featurestore.__path__, "featurestore.")
    return [module.name for module in found if not module.name.endswith("__main__")]


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_functions_of_the_front_door_are_functions_whatever_was_imported(when: str) -> None:
    """Importing a submodule makes it an attribute of the package, in the place of a function of that name."""
    names = modules()
    assert len(names) > 100
    for order in (names, names[::-1]):
        run = subprocess.run([sys.executable, "-c", FUNCTIONS, when, *order], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr


def test_no_module_has_the_name_of_something_public() -> None:
    assert set(featurestore.__all__) & {name.split(".")[1] for name in modules()} == set()


def test_star_import_gives_exactly_all() -> None:
    found: dict[str, object] = {}
    exec("from featurestore import *", found)
    assert set(found) - {"__builtins__"} == set(featurestore.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'FeatureShop'"):
        _ = featurestore.FeatureShop  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'FeatureShop'"):
        exec("from featurestore import FeatureShop")


def test_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert version("featurestore") == featurestore.__version__


def rows(page: str, title: str) -> dict[str, str]:
    """{first cell: the others} of the table whose first column has this title."""
    _, _, table = page.partition(f"\n| {title} |")
    lines = table.partition("\n\n")[0].splitlines()[2:]
    cells = [line.strip("| ").split(" | ", 1) for line in lines]
    return {first.strip("`"): rest[0] if rest else "" for first, *rest in cells}


def taken(call: str) -> list[tuple[Any, ...]]:
    """(name, kind, default) of each parameter of a call as the page writes it."""
    names: dict[str, Any] = {}
    exec(f"def {call}: ...", names)
    return parameters(names[call.partition("(")[0]])


def parameters(function: Any) -> list[tuple[Any, ...]]:
    return [
        (each.name, each.kind, each.default)
        for each in inspect.signature(function).parameters.values()
        if each.name != "self"
    ]


def amiss(page: str) -> list[str]:
    """Names whose row is not on the page, or says something else than the code."""
    store = featurestore.FeatureStore
    door, arguments, methods = (rows(page, title) for title in ("name", "argument", "method"))
    wrong = sorted(set(door) ^ set(featurestore.__all__))
    for name, told in door.items():
        value = getattr(featurestore, name, None)
        call = re.match(r"`([a-z_]+\(.*?\))`", told)
        if inspect.isfunction(value) and (call is None or taken(call[1]) != parameters(inspect.unwrap(value))):
            wrong.append(name)

    made_with = [(name, default) for name, _, default in taken(f"FeatureStore({', '.join(arguments)})")]
    wrong += [name for name, _, default in parameters(store.__init__) if (name, default) not in made_with]
    wrong += [name for name, _ in made_with if name not in inspect.signature(store).parameters]

    public = {name: value for name, value in vars(store).items() if inspect.isfunction(value) and name[0] != "_"}
    written = {call.partition("(")[0]: taken(call) for call in methods}
    wrong += sorted(set(public) ^ set(written))
    wrong += [name for name in set(public) & set(written) if written[name] != parameters(public[name])]

    classes = rows(page, "class")
    for each in (featurestore.Features, featurestore.Failure, FailureRecord, FeatureSetInfo, SampleInfo):
        told = classes.get(each.__name__, "")
        wrong += [f"{each.__name__}.{field.name}" for field in fields(each) if f"`{field.name}`" not in told]
    return wrong + [f"stats.{name}" for name in COUNTERS if f"`{name}`" not in page]


def test_every_public_name_method_and_argument_is_on_the_page_of_python() -> None:
    assert amiss(PAGE) == []


@pytest.mark.parametrize(
    ("said", "instead", "name"),
    [
        ("| `Recipe` |", "| `Receipt` |", "Recipe"),
        ("`verify(store, keys=None,", "`verify(store, keys,", "verify"),
        ("| `memory_bytes=0` |", "| `memory_bytes=1` |", "memory_bytes"),
        ("| `read_only=False` |", "| `readonly=False` |", "read_only"),
        ("| `get_ragged(", "| `get_list(", "get_ragged"),
        ("| `get_many(key, ids, out=None, *,", "| `get_many(key, ids, *, out=None,", "get_many"),
        ("grace_s=900.0", "grace_s=60.0", "gc"),
        ("`replaced_at`, ", "", "FeatureSetInfo.replaced_at"),
        ("`not_kept`, ", "", "stats.not_kept"),
    ],
)
def test_a_page_of_python_that_leaves_out_or_misstates_one_is_found(said: str, instead: str, name: str) -> None:
    assert PAGE.count(said) == 1
    assert name in amiss(PAGE.replace(said, instead))

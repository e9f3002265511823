"""The table of contents in `featurestore/__init__.py` is true."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module

import pytest

import featurestore


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

"""Deliberately broken versions: a torture test that cannot fail is worth nothing."""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def mutant(function: Callable[..., Any], old: str, new: str) -> Iterator[None]:
    """Inside `with`, every caller of the function meets it with one piece of its source replaced."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{function.__qualname__} has {source.count(old)} times {old!r}:\n{source}"
    made: dict[str, Any] = {}
    flags = __future__.annotations.compiler_flag
    exec(compile(source.replace(old, new), "mutant", "exec", flags), function.__globals__, made)
    sound = function.__code__
    function.__code__ = made[function.__name__].__code__  # type: ignore[attr-defined]
    try:
        yield
    finally:
        function.__code__ = sound  # type: ignore[attr-defined]

"""Deliberately broken versions: a torture test that cannot fail is worth nothing."""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from featurestore.storage import maintenance, writer


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


def removes_before_it_replaces() -> AbstractContextManager[None]:
    """Old rows go, and a moment later new ones come."""
    ready = "survivors else [])], old[0])\n"
    broken = "    object.__setattr__(rows, 'blocks', list(rows.blocks))\n    _remove(layout, names)\n"
    return mutant(maintenance._replace, ready, ready + broken)


def commits_file_by_file(document_last: bool) -> AbstractContextManager[None]:
    """As who copies a segment does, slowly; sound where its zarr.json comes last, whatever interrupts it."""
    order = "sorted(os.listdir(staging), key='zarr.json'.__eq__"
    broken = (
        f"os.mkdir(target)\n        for one in {order}, reverse={not document_last}):\n"
        "            os.rename(f'{staging}/{one}', f'{target}/{one}')\n            fsync_dir(target)\n"
        "            time.sleep(0.002)\n"
        "        os.rmdir(staging)\n"
    )
    return mutant(writer.commit, "os.rename(staging, target)\n", broken)

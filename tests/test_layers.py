"""The drawing in docs/architecture.md is the real one, and heavy packages stay out of what must be light."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("featurestore", "affect_infer")
HEAVY = {
    "av", "cv2", "decord", "huggingface_hub", "open_clip", "peft", "pebble", "PIL", "safetensors", "scipy",
    "soundfile", "soxr", "torch", "torchvision", "transformers", "zarr",
}  # fmt: skip


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    name_of(path): ast.parse(path.read_text(), str(path))
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def room_of(module: str) -> str:
    """`featurestore.encoders.clip` -> `featurestore.encoders`; all of affect_infer is one room."""
    parts = module.split(".")
    return parts[0] if parts[0] == "affect_infer" else ".".join(parts[:2])


def drawn_rooms() -> dict[str, set[str]]:
    """room -> rooms it may import; {"anything"} for those above the rest."""
    rooms = {}
    for line in (ROOT / "docs" / "architecture.md").read_text().splitlines():
        row = re.fullmatch(r"\| `(?P<room>[a-z_.]+)` \|.*\|(?P<allowed>[^|]*)\|", line)
        if row:
            assert row["room"] not in rooms, f"{row['room']} is drawn twice"
            rooms[row["room"]] = set(row["allowed"].split())
    return rooms


ROOMS = drawn_rooms()


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def that_run(tree: ast.AST, functions: bool = True) -> Iterator[ast.AST]:
    """All nodes below `tree` except those for type checkers; without `functions`, those that run on import."""
    for node in ast.iter_child_nodes(tree):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if (functions or not is_function) and not is_for_type_checkers(node):
            yield node
            yield from that_run(node, functions)


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    return that_run(tree, functions=False)


def imports(nodes: Iterable[ast.AST]) -> set[str]:
    """Absolute names of all modules that import statements among `nodes` load, parents included."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            module = node.module or ""
            found |= {module} | ({f"{module}.{alias.name}" for alias in node.names} & MODULES.keys())
    return {".".join(parts[: i + 1]) for name in found for parts in [name.split(".")] for i in range(len(parts))}


def loaded_with(*starts: str) -> dict[str, str]:
    """Our modules that importing `starts` loads -> the one that asked for it."""
    loaded: dict[str, str] = {}
    queue = [(name, "") for name in starts]
    while queue:
        name, asked_by = queue.pop()
        if name in MODULES and name not in loaded:
            loaded[name] = asked_by
            queue += [(other, name) for other in imports(at_import(MODULES[name]))]
            if "." in name:
                queue.append((name.rpartition(".")[0], name))
    return loaded


def test_every_room_is_drawn_and_every_drawn_room_exists() -> None:
    assert {room_of(module) for module in MODULES} == set(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    room = room_of(module)
    allowed = {f"featurestore.{name}" for name in ROOMS[room]} | {room, "featurestore"}
    ours = {room_of(name) for name in imports(that_run(MODULES[module])) if name.split(".")[0] in PACKAGES}
    if ROOMS[room] == {"anything"}:
        assert room == "affect_infer" or "affect_infer" not in ours
    else:
        assert ours <= allowed, f"{module} imports {sorted(ours - allowed)}, which docs/architecture.md does not allow"


def test_the_drawing_has_no_circles() -> None:
    placed: set[str] = set()
    rest = {room: {f"featurestore.{name}" for name in may} for room, may in ROOMS.items() if may != {"anything"}}
    while rest:
        free = {room for room, may in rest.items() if may <= placed}
        assert free, f"these rooms import each other in a circle: {sorted(rest)}"
        placed |= free
        rest = {room: may for room, may in rest.items() if room not in free}


@pytest.mark.parametrize(
    ("start", "forbidden"),
    [
        ("featurestore", {*HEAVY, "numpy", "numcodecs", "filelock", "yaml", "click"}),
        ("featurestore.cli", {*HEAVY, "numpy", "numcodecs", "filelock", "yaml"}),
        ("featurestore.store", {*HEAVY, "numcodecs", "yaml", "click"}),
        ("featurestore.extract", HEAVY),
        ("featurestore.datasets", HEAVY),
        ("featurestore.encoders", {*HEAVY, "numpy"}),
        ("featurestore.legacy", HEAVY),
        ("affect_infer", {*HEAVY, "numpy", "yaml", "click"}),
        ("affect_infer.cli", {*HEAVY, "numpy", "yaml"}),
    ],
)
def test_heavy_packages_are_not_imported_at_the_top(start: str, forbidden: set[str]) -> None:
    assert start in MODULES
    for module, asked_by in loaded_with(start).items():
        heavy = {name.split(".")[0] for name in imports(at_import(MODULES[module]))} & forbidden
        assert not heavy, f"importing {start} loads {module} (asked for by {asked_by}), which imports {sorted(heavy)}"


def test_the_reader_can_be_copied_alone() -> None:
    outside = {name.split(".")[0] for name in imports(at_import(MODULES["featurestore.reader"]))}
    assert "featurestore" not in outside
    assert outside - set(sys.stdlib_module_names) <= {"numpy", "google_crc32c"}


@pytest.mark.parametrize(
    ("code", "runs", "at_top"),
    [
        ("import torch", True, True),
        ("if ready:\n    from torch import nn", True, True),
        ("try:\n    import torch.nn as nn\nexcept ImportError:\n    pass", True, True),
        ("class A:\n    import torch", True, True),
        ("def f():\n    import torch", True, False),
        ("class A:\n    def f(self):\n        from torch import nn", True, False),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch", False, False),
    ],
)
def test_the_check_tells_imports_apart(code: str, runs: bool, at_top: bool) -> None:
    tree = ast.parse(code)
    assert ("torch" in imports(that_run(tree))) is runs
    assert ("torch" in imports(at_import(tree))) is at_top

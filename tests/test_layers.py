"""The drawing in docs/architecture.md is the real one, and heavy packages stay out of what must be light."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("featurestore", "affect_infer")
HEAVY = {
    "av", "cv2", "decord", "huggingface_hub", "open_clip", "peft", "pebble", "PIL", "safetensors", "scipy",
    "soundfile", "soxr", "torch", "torchvision", "transformers", "xarray", "zarr",
}  # fmt: skip


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    name_of(path): ast.parse(path.read_text(encoding="utf-8"), str(path))
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def written_out(name: str, module: str) -> str:
    """A name of the last column in full: `.reader` is beside the module, `key` in its package, else it is whole."""
    if name.startswith("."):
        return (package_of(module) + name).rstrip(".")
    whole = f"{module.split('.')[0]}.{name}"
    return whole if whole in MODULES else name


def package_of(module: str) -> str:
    """The folder that a module lies in; of a package itself, the package."""
    is_package = any(other.startswith(f"{module}.") for other in MODULES)
    return module if is_package else module.rpartition(".")[0]


def drawn() -> dict[str, set[str]]:
    """module -> modules of ours that it imports, as docs/architecture.md has them."""
    found: dict[str, set[str]] = {}
    for line in PAGE.splitlines():
        row = re.fullmatch(r"\| `(?P<module>[a-z_.0-9]+)` \| (?P<holds>.+) \|(?P<imports>[^|]*)\|", line)
        if row and row["module"].split(".")[0] in PACKAGES:
            assert row["module"] not in found, f"{row['module']} is drawn twice"
            found[row["module"]] = {written_out(name, row["module"]) for name in row["imports"].split()}
    return found


DRAWN = drawn()


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


def own_imports(module: str) -> set[str]:
    """Our modules that a module names in an import statement, wherever it stands."""
    found = set()
    for node in that_run(MODULES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & MODULES.keys()) | ({node.module or ""} if names - MODULES.keys() else set())
    return found & MODULES.keys() - {module}


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


def test_every_module_is_drawn_and_every_drawn_module_exists() -> None:
    assert set(DRAWN) == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_what_its_row_says_and_nothing_else(module: str) -> None:
    found = own_imports(module)
    more, less = sorted(found - DRAWN[module]), sorted(DRAWN[module] - found)
    assert not more, f"{module} imports {more}, which docs/architecture.md does not allow"
    assert not less, f"docs/architecture.md allows {module} to import {less}, which it does not need"


def without_circles(edges: Mapping[str, set[str]]) -> None:
    """AssertionError that names those that import each other."""
    placed: set[str] = set()
    rest = {name: set(others) for name, others in edges.items()}
    while rest:
        free = {name for name, others in rest.items() if others <= placed}
        assert free, f"these import each other in a circle: {sorted(rest)}"
        placed |= free
        rest = {name: others for name, others in rest.items() if name not in free}


def test_modules_do_not_import_each_other_in_circles() -> None:
    without_circles(DRAWN)
    with pytest.raises(AssertionError, match="in a circle"):
        without_circles({**DRAWN, "featurestore.key": {"featurestore.store"}})


def room_of(module: str) -> str:
    """`featurestore.encoders.clip` -> `featurestore.encoders`: the second part, whether a folder or a file."""
    return ".".join(module.split(".")[:2])


def between_rooms(edges: Mapping[str, set[str]]) -> dict[str, set[str]]:
    rooms: dict[str, set[str]] = {}
    for module, others in edges.items():
        own = room_of(module)
        # The front doors: what imports a package's __init__ for its version or names depends on no room.
        rooms.setdefault(own, set()).update({room_of(name) for name in others} - {own, *PACKAGES})
    return rooms


def test_rooms_do_not_import_each_other_in_circles() -> None:
    without_circles(between_rooms(DRAWN))


def test_featurestore_never_imports_what_stands_on_it() -> None:
    above = {"affect_infer", "featurestore.cli"}
    for module, others in DRAWN.items():
        own = room_of(module)
        if own.split(".")[0] != "affect_infer" and own not in ("featurestore.cli", "featurestore.__main__"):
            assert not {name for name in others if room_of(name) in above or name.split(".")[0] == "affect_infer"}, (
                module
            )


@pytest.mark.parametrize("room", ["storage", "fill", "lookup", "store", "features", "key", "recipe"])
def test_keeping_does_not_know_how_features_are_made(room: str) -> None:
    making = {"compute", "encoders", "media", "samplers", "datasets", "merfactory", "sample", "quality", "affectgpt"}
    known = between_rooms(DRAWN)[f"featurestore.{room}"]
    assert not known & {f"featurestore.{name}" for name in making}


@pytest.mark.parametrize(
    ("start", "forbidden"),
    [
        ("featurestore", {*HEAVY, "numpy", "numcodecs", "filelock", "yaml", "click"}),
        ("featurestore.cli", {*HEAVY, "numpy", "numcodecs", "filelock", "yaml"}),
        ("featurestore.store", {*HEAVY, "numcodecs", "yaml", "click"}),
        ("featurestore.compute.extraction", HEAVY),
        ("featurestore.datasets", HEAVY),
        ("featurestore.encoders", {*HEAVY, "numpy"}),
        ("featurestore.affectgpt", HEAVY),
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
    outside = {name.split(".")[0] for name in imports(at_import(MODULES["featurestore.storage.reader"]))}
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


def back_doors(tree: ast.AST) -> set[str]:
    """Names by which a module goes round the public methods of a store to its feature sets and their readers."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            found |= {part for alias in node.names for part in f"{module}.{alias.name}".split(".")}
    return found & {"feature_set", "feature_sets", "FeatureSet"}


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(("featurestore.cli", "affect_infer"))])
def test_the_command_lines_use_public_methods_of_a_store(module: str) -> None:
    assert not back_doors(MODULES[module]), f"{module} goes round FeatureStore"


@pytest.mark.parametrize(
    "code",
    [
        "FeatureStore(root).feature_set(key).compact()",
        "from featurestore.storage.feature_set import reading",
        "import featurestore.storage.feature_set as room",
        "def f(features: FeatureSet): ...",
    ],
)
def test_the_check_finds_a_back_door(code: str) -> None:
    assert back_doors(ast.parse(code))
    assert back_doors(MODULES["featurestore.store"])

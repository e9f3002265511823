"""What to run next: a program is told in Python, a shell by commands, and neither meets the other's words."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from cli_factories import KEY, make_store, run, second_recipe

from featurestore import errors
from featurestore.cli import COMMANDS, fstore
from featurestore.cli.hints import STEPS, message_of, next_step
from featurestore.errors import FeatureStoreError

ROOT = Path(__file__).resolve().parents[1]
PYTHON = re.compile(
    r"\b[a-z_]+=(True|False|None)\b"
    r"|\b(recipe|fingerprint|weights|compute|overwrite|read_only|allow_corrupt|root|pins|limit)="
)
COMMAND = re.compile(rf"\bfstore ({'|'.join(COMMANDS)})\b|--(manifest|store|weights|full|repair)\b")
# Texts that name what they should not, by the file that they are in, and why they may.
EXCEPT = {
    "featurestore/media/video.py": "--allow-corrupt (Python: allow_corrupt=True)",  # kept in records, which both read
    "featurestore/media/pool.py": "run `fstore extract` first",
    "featurestore/storage/reader.py": ("pass fingerprint=", "run `fstore verify"),  # copied alone, it has no commands
    "featurestore/compute/extraction.py": "needs a store with a compute",  # commands that extract have one
    "featurestore/features.py": ", recipe=",  # of a repr
    "featurestore/store.py": ", read_only=",  # of a repr
}


def texts(path: Path) -> Iterator[tuple[str, bool]]:
    """(text, whether it advises a program) of every string that is no docstring; what is put into it is a letter."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    advice = {
        id(part)
        for node in ast.walk(tree)
        for value in (
            [word.value for word in node.keywords if word.arg == "advice"]
            if isinstance(node, ast.Call)
            else [node.value] if isinstance(node, ast.Assign) and is_advice(node.targets) else []
        )
        for part in ast.walk(value)
    }  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in docs | parts:
            continue
        if isinstance(node, ast.JoinedStr):
            pieces = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            yield "".join(map(str, pieces)), id(node) in advice
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, id(node) in advice


def is_advice(targets: list[ast.expr]) -> bool:
    names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return any(name.lower().endswith(("advice", "repair")) for name in names)


def sources(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def of_programs(path: Path) -> bool:
    """Whether a module belongs to one of the two programs, which may name commands and options."""
    return path.is_relative_to(ROOT / "featurestore" / "cli") or path.is_relative_to(ROOT / "affect_infer")


def excepted(path: Path, text: str) -> bool:
    said = EXCEPT.get(str(path.relative_to(ROOT)), ())
    return any(each in text for each in ((said,) if isinstance(said, str) else said))


def found(pattern: re.Pattern[str], paths: list[Path], advising: bool | None) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {text}"
        for path in paths
        for text, advises in texts(path)
        if pattern.search(text) and advising in (None, advises) and not excepted(path, text)
    ]


def test_no_text_but_an_advice_names_an_argument_of_python() -> None:
    every = sources("featurestore", "affect_infer")
    assert found(PYTHON, every, advising=False) == []
    assert len(found(PYTHON, every, advising=True)) >= 5


def test_no_text_outside_the_programs_names_a_command() -> None:
    library = [path for path in sources("featurestore") if not of_programs(path)]
    assert found(COMMAND, library, advising=None) == []
    assert len(found(COMMAND, [ROOT / "featurestore" / "cli" / "hints.py"], advising=None)) >= 2
    assert found(re.compile(r"\bfstore \w"), sources("affect_infer"), advising=None) == []


def test_whatever_advises_a_program_has_a_step_for_a_shell() -> None:
    """Every error that is raised with an advice is of a kind that `next_step` knows."""
    kinds = set()
    for path in sources("featurestore", "affect_infer"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and any(word.arg == "advice" for word in node.keywords):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                kinds |= {name} & set(vars(errors))
    assert len(kinds) >= 6
    assert [name for name in kinds if not issubclass(getattr(errors, name), tuple(STEPS))] == []


OWN = "my/frame/E/uniform/8"
FACTS = {"key": OWN, "root": "/a b/features", "ids": ["x"], "advice": "call something()"}
STORE = "--store '/a b/features'"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.FailedSampleError("no", **FACTS), f"no; `fstore retry {OWN} {STORE} --manifest FILE` tries again"),
        (errors.FailedSamplesError("no", {}, **FACTS), f"no; `fstore retry {OWN} {STORE} --manifest FILE` tries again"),
        (errors.MissingFeatureError("no", **FACTS), f"no; run `fstore extract {OWN} {STORE} --manifest FILE`"),
        (errors.MissingFeatureError("no", **FACTS | {"ids": ()}), f"no; `fstore ls {STORE}` lists what is"),
        (
            errors.AmbiguousRecipeError("two:\n  a\n  b", **FACTS),
            f"two:\n  a\n  b\nsay which as {OWN}@PREFIX, the first 6 or more of its digits",
        ),
        (errors.UnknownRecipeError("no", **FACTS), f"no; `fstore verify {OWN} {STORE}` says what else is wrong"),
        (errors.RecipeError("another", **FACTS), f"another; `fstore info {OWN} {STORE}` shows how they differ"),
        (
            errors.CorruptSegmentError("no", key=OWN, root="/a b/features"),
            f"no; `fstore verify {OWN} {STORE} --full --repair` moves what is damaged aside",
        ),
        (errors.CorruptSegmentError("no"), "no; `fstore verify --full --repair` moves what is damaged aside"),
        (
            errors.ReadOnlyError(13, "no permission", "/x", advice="read_only=True"),
            "no permission: /x; or take another store with --store DIR",
        ),
        (errors.ExistsError("stored", **FACTS), f"stored; `fstore rm {OWN} {STORE}` with their ids removes those"),
        (errors.LegacyTreeError("whose?", path="/a b", advice="x"), "whose?; `fstore import '/a b' --dataset NAME`"),
        (
            errors.ConfigError("no", path="/a b.yaml", advice="read it"),
            "no; `affect-infer inspect --cfg-path '/a b.yaml'` and `affect-infer run --cfg-path '/a b.yaml'` read it",
        ),
        (
            errors.ConfigError("no store", path="/n p", root="/a b/features", advice="import it"),
            f"no store; `fstore import '/n p' {STORE}`",
        ),
        (errors.UnknownRecipeError("no"), "no"),  # nothing is advised
        (errors.InvalidKeyError("no key"), "no key"),
        (OSError(28, "No space left on device", "/x"), "No space left on device: /x"),
        (ValueError(), "ValueError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_becomes_a_line_to_paste(error: Exception, said: str) -> None:
    assert message_of(error) == said
    assert not PYTHON.search(message_of(error))
    assert "something()" not in message_of(error)


def test_weights_are_given_by_an_option() -> None:
    said = message_of(errors.WeightsNotFoundError("none here", advice="weights={...}"))
    assert said.startswith("none here; or give what holds them with --weights DIR, or --weights random:0")


def test_every_line_is_one_that_its_command_takes() -> None:
    """Parsed by click, with the words that stand for something put in."""
    lines = []
    for kind in STEPS:
        for ids in ((), ("x",)):
            needs = ({},) if issubclass(kind, errors.FailedSamplesError) else ()
            error: FeatureStoreError = kind("what", *needs, advice="x", key=KEY, root="/a b", ids=ids, path="/f")
            lines += re.findall(r"`(fstore [^`]*)`", next_step(error))
    assert len(lines) >= 8
    for line in lines:
        name, *words = shlex.split(line)[1:]
        command = fstore.get_command(click.Context(fstore), name)
        assert command is not None
        taken = {word for option in command.params for word in option.opts}
        assert {word for word in words if word.startswith("--")} <= taken, line


def test_a_command_says_how_a_recipe_is_chosen_there(tmp_path: Path) -> None:
    root = make_store(tmp_path)
    second_recipe(root)
    said = run("ls", KEY, "--store", root, exit_code=2).stderr
    assert f"{KEY} is stored under 2 recipes:\n" in said
    assert said.endswith(f"\nsay which as {KEY}@PREFIX, the first 6 or more of its digits\n")
    assert "fingerprint=" not in said

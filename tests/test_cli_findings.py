"""What the command line advises of a finding: lines that can be pasted, and nothing where all is done."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from featurestore.cli import fstore
from featurestore.cli.findings import ADVICE, advise
from featurestore.key import FeatureKey
from featurestore.quality.findings import Finding
from featurestore.recipe import Recipe

ORIGIN = "--folder there, another with --folder and an --origin of its own"
KEY = FeatureKey("mine", "frame", "E", "uniform", 8)
SAID = {
    "missing": f"run `fstore extract {KEY} --dtype float16 --manifest FILE`",
    "stale": f"`fstore extract {KEY} --dtype float16 --manifest FILE` makes them again",
    "failed": f"mend the cause, then `fstore retry {KEY} --manifest FILE`",
    "extra": f"the source may be of one split; else `fstore rm {KEY} -- ID` removes them",
    "nonfinite": f"check its media; `fstore rm {KEY} -- ID` removes it, then extract makes it again",
    "zero": f"check its media; `fstore rm {KEY} -- ID` removes it, then extract makes it again",
    "differs": f"find out which is right; `fstore rm {KEY} -- ID` removes it, then extract makes it again",
    "duplicate": f"does the source name one file under several ids? `fstore explain {KEY} -- ID` shows which was read",
    "two_folders": f"take one with {ORIGIN}",
    "exists": "give another tree another --origin",
    "identical": "name them with --root DIR or --manifest FILE",
    "unknown_dataset": "if it is your own: `fstore import '/a b' --dataset mine`; "
    "if mer2023 is meant: `fstore import '/a b/mer2032' --dataset mer2023`",
}


def finding(kind: str, *ids: str) -> Finding:
    datasets = (("/a b", "mine"), ("/a b/mer2032", "mer2023"))
    recipe = Recipe({"dtype": "float16"})
    return Finding(kind, "there", "wrong", "call something()", list(ids), key=KEY, recipe=recipe, datasets=datasets)


@pytest.mark.parametrize("kind", ADVICE)
def test_each_kind_has_lines_that_their_commands_take(kind: str) -> None:
    found = finding(kind, "a")
    advise([found])
    assert found.advice == SAID[kind]
    for line in re.findall(r"`fstore ([^`]*)`", found.advice):
        name, *words = shlex.split(line)
        command = fstore.get_command(click.Context(fstore), name)
        assert command is not None
        assert {word for word in words if word.startswith("--")} <= {
            "--",
            *(each for option in command.params for each in option.opts),
        }


def test_several_failures_are_listed_first_and_a_nameless_tree_is_to_be_named() -> None:
    found = finding("failed", "a", "b")
    nobodys = Finding("unknown_dataset", "x", "whose?", "call something()", datasets=(("/a", "NAME"),))
    advise([found, nobodys])
    assert found.advice.startswith(f"`fstore ls {KEY} --failures` says of each why; mend the cause, then `fstore retry")
    assert nobodys.message == "whose?; `fstore import /a --dataset NAME`"


def test_what_became_of_a_finding_is_said_instead() -> None:
    found = finding("zero", "a")
    found.outcome, found.repaired = "moved to there", True
    advise([found])
    assert str(found) == "zero: there: wrong (1: a); repaired: moved to there"
    assert found.as_json()["advice"] == "moved to there"
    silent = Finding("missing", "there", "wrong")  # nothing was advised
    advise([silent])
    assert str(silent) == "missing: there: wrong"

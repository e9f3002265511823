"""What a contributor meets first is true: hooks, issue forms, the citation, and the commands that pages name."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import featurestore
from featurestore.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / ".github" / "pull_request_template.md", *FORMS]
# Elements of GitHub's issue forms, and the attributes that each must have.
ELEMENTS = {
    "markdown": {"value"},
    "textarea": {"label"},
    "input": {"label"},
    "dropdown": {"label", "options"},
    "checkboxes": {"label", "options"},
}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def checks(script: str) -> list[str]:
    """The commands of scripts/check.sh."""
    return re.findall(r"^\.venv/bin/.+$", script, re.MULTILINE)


def hooks(config: str) -> list[dict[str, Any]]:
    """Those of .pre-commit-config.yaml."""
    return [hook for repository in yaml.safe_load(config)["repos"] for hook in repository["hooks"]]


def test_hooks_run_the_commands_of_make_check() -> None:
    config, script = read(ROOT / ".pre-commit-config.yaml"), read(ROOT / "scripts" / "check.sh")
    assert [hook["entry"] for hook in hooks(config)] == checks(script)
    assert len(checks(script)) == 4
    assert "scripts/check.sh" in read(ROOT / "Makefile")
    for other in (script + ".venv/bin/python -m pytest\n", script.replace("ruff check .", "ruff check featurestore")):
        assert [hook["entry"] for hook in hooks(config)] != checks(other)


def test_hooks_need_no_network() -> None:
    """A local hook of the language "system" is run as it is written; all others are fetched or installed first."""
    repositories = yaml.safe_load(read(ROOT / ".pre-commit-config.yaml"))["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    for hook in hooks(read(ROOT / ".pre-commit-config.yaml")):
        assert hook["language"] == "system"
        assert hook["pass_filenames"] is False  # the commands name what they check


def problems(form: Any) -> list[str]:
    """What GitHub would refuse in an issue form."""
    found = [f"no {field}" for field in ("name", "description", "body") if not form.get(field)]
    ids = [element.get("id") for element in form.get("body", ()) if element.get("type") != "markdown"]
    found += [f"id {id} is missing, odd or there twice" for id in ids if not _is_id(id) or ids.count(id) > 1]
    if not ids:
        found.append("nothing to fill in")
    for element in form.get("body", ()):
        if element.get("type") not in ELEMENTS:
            found.append(f"type {element.get('type')}")
            continue
        attributes = element.get("attributes", {})
        found += [f"{element['type']} without {name}" for name in ELEMENTS[element["type"]] - attributes.keys()]
        found += [
            f"{name} is no text" for name, value in attributes.items() if name != "options" and type(value) is not str
        ]
        found += [f"unknown field {name}" for name in element.keys() - {"type", "id", "attributes", "validations"}]
    return found


def _is_id(id: Any) -> bool:
    return isinstance(id, str) and re.fullmatch(r"[A-Za-z0-9_-]+", id) is not None


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_is_one_that_github_takes(path: Path) -> None:
    assert problems(yaml.safe_load(read(path))) == []


def test_there_is_a_form_for_each_kind() -> None:
    assert [path.stem for path in FORMS] == ["bug", "feature", "wrong_number"]
    wanted = {element.get("id") for element in yaml.safe_load(read(FORMS[2]))["body"]}
    assert {"key", "recipe", "media"} <= wanted


def test_a_form_that_github_refuses_is_noticed() -> None:
    good = yaml.safe_load(read(FORMS[0]))

    def spoilt(change: str) -> list[str]:
        form = copy.deepcopy(good)
        first, second = form["body"][:2]
        match change:
            case "no name":
                del form["name"]
            case "twice":
                second["id"] = first["id"]
            case "type":
                first["type"] = "text"
            case "label":
                del first["attributes"]["label"]
            case "value":
                first["attributes"]["value"] = True
            case "field":
                first["required"] = True
            case "empty":
                form["body"] = []
        return problems(form)

    for change in ("no name", "twice", "type", "label", "value", "field", "empty"):
        assert spoilt(change), change
    assert spoilt("nothing") == []


def unknown_commands(text: str) -> list[str]:
    """Those that a page names in code and that are not there: of fstore, and targets of make."""
    known = {f"fstore {name}" for name in COMMANDS}
    known |= {f"make {name}" for name in re.findall(r"^([a-z]+):", read(ROOT / "Makefile"), re.MULTILINE)}
    named = re.findall(r"(?:^|`)((?:fstore|make) [a-z]+)", text, re.MULTILINE)
    return [command for command in named if command not in known]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_that_are_named_exist(path: Path) -> None:
    assert unknown_commands(read(path)) == []


def test_a_command_that_is_not_there_is_noticed() -> None:
    told = "`make setup`, `make tests`\nmake lint     # it\n`fstore doctor --store DIR` and `fstore mend`"
    assert unknown_commands(told) == ["make tests", "make lint", "fstore mend"]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load(read(ROOT / "CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()  # what the schema asks for besides
    assert all(author.keys() & {"name", "family-names"} for author in citation["authors"])
    assert citation["version"] == featurestore.__version__
    assert f'license = "{citation["license"]}"' in read(ROOT / "pyproject.toml")

"""What README and docs show is what happens.

The blocks of a page run in order, in an empty folder of the page's own:

    ```python            is executed; names stay for the page's later blocks.  Lines with >>> are a doctest,
                         otherwise a ```text block right behind it is what it prints
    ```console           each line with "$ " runs in bash; the lines below it are what it prints
    ```console exact     the same to the letter: no "...", no other blanks
    ```LANG file=NAME    is written to NAME
    ```LANG norun        is only shown, as are blocks of any other language
    <!-- run: COMMAND -->   runs unseen, to prepare what the page takes for granted

In expected output "..." stands for anything, and runs of blanks are equal.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from featurestore import encoders

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
BLOCK = re.compile(
    r"^<!-- run: (?P<hidden>.+?) -->$|^```(?P<info>[a-z]+[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)


def name_of(path: Path) -> str:
    """From the top of the project on: there are several README.md."""
    return path.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    options: tuple[str, ...]
    body: str


def blocks(text: str) -> Iterator[Block]:
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match["hidden"]:
            yield Block(line, "hidden", (), match["hidden"])
        else:
            language, *options = match["info"].split()
            yield Block(line, language, tuple(options), match["body"])


def same(printed: str, expected: str) -> bool:
    return doctest.OutputChecker().check_output(expected.strip() + "\n", printed.strip() + "\n", FLAGS)


class Page:
    """Runs the blocks of one page."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def fail(self, line: int, what: str, printed: str, expected: str = "") -> None:
        wanted = f"\n--- the page says\n{expected}" if expected else ""
        pytest.fail(f"{self.name}, line {line}: {what}{wanted}\n--- printed\n{printed}", pytrace=False)

    def run(self, text: str) -> int:
        """Number of blocks that ran."""
        ran = 0
        found = list(blocks(text))
        for block, following in zip_longest(found, found[1:]):
            if "norun" in block.options:
                continue
            file = next((option[5:] for option in block.options if option.startswith("file=")), None)
            if file is not None:
                Path(file).write_text(block.body, encoding="utf-8")
            elif block.language == "hidden":
                self.shell(block.line, block.body, None)
            elif block.language == "console":
                self.console(block)
            elif block.language == "python" and ">>> " in block.body:
                self.doctest(block)
            elif block.language == "python":
                told = following.body if following is not None and following.language == "text" else None
                self.python(block, told)
            else:
                continue
            ran += 1
        return ran

    def python(self, block: Block, expected: str | None) -> None:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            # The empty lines make line numbers in a traceback those of the page.
            exec(compile("\n" * block.line + block.body, self.name, "exec"), self.names)
        if expected is not None and not same(printed.getvalue(), expected):
            self.fail(block.line, "this prints something else", printed.getvalue(), expected)

    def doctest(self, block: Block) -> None:
        test = doctest.DocTestParser().get_doctest(block.body, self.names, self.name, self.name, block.line)
        report = io.StringIO()
        results = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.write, clear_globs=False)
        self.names.update(test.globs)
        if results.failed:
            self.fail(block.line, "this prints something else", report.getvalue())

    def console(self, block: Block) -> None:
        for part in re.split(r"^\$ ", block.body, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            while command.endswith("\\"):
                more, _, expected = expected.partition("\n")
                command += "\n" + more
            self.shell(block.line, command, expected, "exact" in block.options)

    def shell(self, line: int, command: str, expected: str | None, exact: bool = False) -> None:
        """Run `command`; nothing expected means nothing compared.  A page shows an exit code by `echo $?`."""
        done = subprocess.run(
            ["bash", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        printed = done.stdout + done.stderr
        if done.returncode and not (expected or "").strip():
            self.fail(line, f"exit code {done.returncode}: {command}", printed)
        # Data is on stdout; a message of an error, which a page may show as well, on stderr.
        told = (done.stdout, done.stderr, printed)
        alike = (lambda text, expected: text.strip("\n") == expected.strip("\n")) if exact else same
        if expected and expected.strip() and not any(alike(text, expected) for text in told):
            self.fail(line, f"this prints something else (exit code {done.returncode}): {command}", printed, expected)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    encoders.encoder_names()  # reads entry points, which stay
    monkeypatch.setattr(encoders, "_registry", dict(encoders._registry))
    return tmp_path


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_the_blocks_of_a_page_do_what_it_says(path: Path, empty_folder: Path) -> None:
    Page(path).run(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name} links to {target}, which is not there"


def entry_of(path: Path) -> Path:
    """The page that must link this one: the README of its folder, else that of the project."""
    entry = path.parent / "README.md"
    return entry if entry.exists() and entry != path else ROOT / "README.md"


def is_linked(path: Path, entry: Path, text: str) -> bool:
    """Whether `text`, that of the page `entry`, has a link to `path`."""
    return f"]({path.relative_to(entry.parent).as_posix()})" in text


@pytest.mark.parametrize("path", [path for path in PAGES if path != ROOT / "README.md"], ids=name_of)
def test_every_page_can_be_found_from_the_readme(path: Path) -> None:
    entry = entry_of(path)
    assert is_linked(path, entry, entry.read_text(encoding="utf-8")), f"{name_of(entry)} does not link {name_of(path)}"


def test_a_page_that_is_only_named_cannot_be_found() -> None:
    page = ROOT / "docs" / "examples" / "README.md"
    assert entry_of(page) == ROOT / "README.md"
    assert entry_of(page.with_name("other.md")) == page
    assert is_linked(page, ROOT / "README.md", "see [examples](docs/examples/README.md)")
    assert not is_linked(page, ROOT / "README.md", "see docs/examples/README.md")


def test_the_way_from_npy_and_back_is_shown_to_the_letter() -> None:
    found = list(blocks((ROOT / "docs" / "coming_from_npy.md").read_text(encoding="utf-8")))
    exact = "".join(block.body for block in found if block.language == "console" and "exact" in block.options)
    assert re.findall(r"^\$ (?:fstore (?:import|verify|export)|diff) ", exact, re.MULTILINE) == [
        "$ fstore import ", "$ fstore verify ", "$ fstore export ", "$ diff ", "$ fstore import ",
    ]  # fmt: skip


def messages() -> Iterator[str]:
    """Every text in our code, with \\0 where a value is put in; adjacent pieces are one text."""
    for path in [*(ROOT / "featurestore").rglob("*.py"), *(ROOT / "affect_infer").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
    yield (ROOT / "scripts" / "setup.sh").read_text(encoding="utf-8")


def test_troubleshooting_quotes_messages_that_exist() -> None:
    known = list(messages())
    quoted = re.findall(
        r"^### `(.+)`$", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(quoted) > 20
    patterns = {text: re.compile(".*?".join(map(re.escape, text.split("..."))), re.DOTALL) for text in quoted}
    assert [text for text, pattern in patterns.items() if not any(map(pattern.search, known))] == []


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1)\n```\n\n```text\n2\n```\n",
        "```python\n>>> 1 + 1\n3\n```\n",
        "```console\n$ echo one\ntwo\n```\n",
        "```console\n$ exit 3\n```\n",
        "```console exact\n$ echo one two\none  two\n```\n",
        "```console exact\n$ echo one two\none ...\n```\n",
        "<!-- run: exit 3 -->\n",
    ],
)
def test_a_page_that_lies_fails(text: str, empty_folder: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"page\.md, line 1: "):
        Page(Path("page.md")).run(text)


def test_a_page_that_tells_the_truth_passes(empty_folder: Path) -> None:
    text = (
        "```python file=mine.py\nTWO = 2\n```\n"
        "<!-- run: echo kept > kept -->\n"
        "```python\nfrom mine import TWO\nprint(TWO)\n```\n\n```text\n2\n```\n"
        "```python\n>>> TWO + 1\n3\n```\n"
        "```console\n$ cat \\\n    kept\nke...\n$ echo no >&2; exit 4\nno\n```\n"
        "```console exact\n$ echo 'one  ...'\none  ...\n```\n"
        "```sh\nexit 1\n```\n```python norun\n1 / 0\n```\n"
    )
    assert Page(Path("page.md")).run(text) == 6


def test_what_was_renamed_is_there_under_its_new_name_only() -> None:
    page = (ROOT / "docs" / "decisions" / "renamed.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `((?:featurestore|affect_infer|tests)[a-z_./]+)` \| `([a-z_./]+)` \|$", page, re.MULTILINE)

    def there(name: str) -> bool:
        path = ROOT / (name if name.endswith(".py") else name.replace(".", "/"))
        return path.exists() or path.with_suffix(".py").exists()

    assert len(rows) > 100
    assert [new for _, new in rows if not there(new)] == []
    packages = {"affect_infer.model", "affect_infer.run", "affect_infer.checkpoint"}  # folders, and a door, of today
    assert [old for old, _ in rows if there(old) and old not in packages] == []

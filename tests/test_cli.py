"""fstore: the commands are loaded one by one, and an error is one line and an exit code."""

from __future__ import annotations

import json
import locale
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from cli_factories import IDS, KEY, first_recipe, make_store, run, values
from click.testing import CliRunner

from featurestore import FeatureKey, FeatureStore, errors
from featurestore.cli import COMMANDS, fstore, python_name
from featurestore.cli.hints import message_of
from featurestore.cli.output import counted, size_text
from featurestore.features import Failure

FSTORE = Path(sys.executable).parent / "fstore"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_store(tmp_path)


def test_help_lists_every_command_without_importing_any() -> None:
    line = "fstore(['--help'], standalone_mode=False)"
    code = f"import sys; from featurestore.cli import fstore; {line}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stdout.splitlines()[-1].split()
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    common = {"featurestore.cli.program", "featurestore.cli.streams"}
    assert {name for name in modules if name.startswith("featurestore.cli.")} == common
    assert "numpy" not in modules


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_loaded_and_says_what_it_does(name: str) -> None:
    command = fstore.get_command(click.Context(fstore), name)
    assert command is not None
    assert command.name == name
    assert command.help
    assert COMMANDS[name][1].endswith(".")


@pytest.mark.serial
def test_help_and_ls_cost_a_fraction_of_what_the_formats_library_does(
    root: Path, cpu_seconds: Callable[..., float]
) -> None:
    """Over a Python that does nothing: no processor is slow enough to fail this, and no heavy import passes."""
    bare = cpu_seconds(sys.executable, "-c", "")
    most = 0.35 * (cpu_seconds(sys.executable, "-c", "import zarr") - bare)
    assert cpu_seconds(str(FSTORE), "--help") - bare < most
    assert cpu_seconds(str(FSTORE), "ls", "--store", str(root)) - bare < most


def test_ls_and_info_do_not_load_numpy(root: Path) -> None:
    for line in (["ls"], ["info", KEY]):
        code = f"""
import sys
from featurestore.cli import fstore
fstore({[*line, "--store", str(root)]!r}, standalone_mode=False)
assert "numpy" not in sys.modules, sorted(sys.modules)
"""
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_mistyped_command_is_a_usage_error_with_a_hint() -> None:
    assert "no command 'verfiy'; did you mean 'verify'?" in run("verfiy", exit_code=2).stderr
    assert "there are demo, extract, " in run("xyzzy", exit_code=2).stderr
    assert "No such option" in run("ls", "--no-such-thing", exit_code=2).stderr


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").stdout == "fstore, version 0.1.0\n"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """`fstore fail` raises what is put into this list."""
    to_raise: list[BaseException] = []

    @click.command()
    def fail() -> None:
        raise to_raise[0]

    monkeypatch.setattr(type(fstore), "get_command", lambda self, ctx, name: fail if name == "fail" else None)
    monkeypatch.setitem(COMMANDS, "fail", ("", ""))
    return to_raise


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.InvalidKeyError("bad key"), 2, "Error: bad key\n"),
        (errors.UnknownDatasetError("which?"), 2, "Error: which?\n"),
        (errors.ConfigError("contradiction"), 2, "Error: contradiction\n"),
        (errors.AmbiguousRecipeError("two recipes"), 2, "Error: two recipes\n"),
        (errors.MissingFeatureError("not stored"), 1, "Error: not stored\n"),
        (errors.WeightsNotFoundError("no weights"), 1, "Error: no weights\n"),
        (errors.StoreError(28, "disk full", "/features/x"), 1, "Error: disk full: /features/x\n"),
        (PermissionError(13, "Permission denied", "/features"), 1, "Error: Permission denied: /features\n"),
        (KeyboardInterrupt(), 130, "\nInterrupted; what was committed stays.\n"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_an_exit_code(
    failing: list[BaseException], error: BaseException, code: int, said: str
) -> None:
    failing.append(error)
    result = run("fail", exit_code=code)
    assert (result.stdout, result.stderr) == ("", said)


def test_debug_shows_the_traceback_before_or_after_the_command(root: Path) -> None:
    for line in (["--debug", "ls", "a/b"], ["ls", "a/b", "--debug"]):
        result = CliRunner().invoke(fstore, line)
        assert result.exit_code == 2
        assert "Traceback (most recent call last)" in result.stderr
        assert result.stderr.endswith("e.g. mer2023/frame/CLIP_VIT_LARGE/uniform/8\n")


def test_a_bug_is_not_hidden(failing: list[BaseException]) -> None:
    failing.append(ZeroDivisionError("a bug"))
    result = CliRunner().invoke(fstore, ["fail"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_a_closed_pipe_ends_quietly(root: Path) -> None:
    FeatureStore(root).put_many(KEY, [f"{i:0400d}" for i in range(3000)], np.zeros((3000, 8, 4), "f4"), recipe={"b": 1})
    (prefix,) = [name for name in FeatureStore(root).recipes(KEY) if name != first_recipe(root)]
    line = f"'{FSTORE}' ls {KEY}@{prefix} --store '{root}' | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == f"{0:0400d}\n"
    assert done.stderr == ""


def test_the_store_is_the_option_else_the_environment_else_here(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("ls").stderr == "The store features is not there yet.\n"
    os.rename(root, tmp_path / "features")
    assert KEY in run("ls").stdout
    monkeypatch.setenv("FEATURESTORE_ROOT", str(tmp_path / "empty"))
    assert run("ls").stdout == ""
    assert KEY in run("ls", "--store", "features").stdout


def test_an_alias_of_a_dataset_means_its_key(root: Path) -> None:
    assert run("ls", KEY.replace("mer2023", "MER2023"), "--store", root).stdout.splitlines() == sorted(IDS)


def test_a_key_that_is_stored_under_an_alias_can_be_named(tmp_path: Path) -> None:
    """The Python interface takes keys as they are."""
    FeatureStore(tmp_path).put_many(FeatureKey("MELD", "frame", "e", "s", 8), ["a"], values(1), recipe={})
    assert run("ls", "MELD/frame/e/s/8", "--store", tmp_path).stdout == "a\n"


def test_small_words() -> None:
    assert [size_text(n) for n in (0, 999, 1000, 24_576, 999_949, 999_950, 5 * 10**12)] == [
        "0 B", "999 B", "1.0 KB", "24.6 KB", "999.9 KB", "1.0 MB", "5.0 TB",
    ]  # fmt: skip
    assert [counted(n, "sample") for n in (0, 1, 12_799)] == ["0 samples", "1 sample", "12,799 samples"]
    assert python_name("import") == "import_"
    assert message_of(ValueError()) == "ValueError"


@pytest.mark.parametrize("command", ["explain", "extract", "rm", "retry"])
def test_ids_that_look_like_options_are_told_where_they_go(command: str) -> None:
    said = run(command, "my/frame/X/uniform/4", "-AbCd_0", exit_code=2).stderr
    assert 'those that begin with "-" go after all options and "--"' in said
    assert f"fstore {command} ... -- -A..." in said
    assert "go after" not in run("doctor", "-A", exit_code=2).stderr  # takes no ids


def test_paths_that_are_no_text_are_printed_and_json_stays_json(tmp_path: Path) -> None:
    """Folders of archives that were packed elsewhere: with names in Latin-1 or GBK."""
    folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"d\xe9part")))
    folder.mkdir()
    film = folder / "a.mp4"
    film.write_bytes(b"frames")
    status = film.stat()
    source = {"path": str(film), "size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": "0" * 64}
    store = FeatureStore(folder / "store")
    store.put_many(KEY, ["a"], values(1), recipe={"w": 1}, provenance=[{"sources": [{**source, "column": "video"}]}])
    feature_set = store.feature_set(FeatureKey.parse(KEY))
    assert feature_set is not None
    feature_set.fail("b", Failure.of(errors.MediaError(f"{film} is no video", film), [source]))
    (folder / "m.csv").write_text("id,video\na,a.mp4\nb,a.mp4\n")
    for words in (
        ["explain", KEY, "a", "--json"],
        ["verify", "--json"],
        ["verify", KEY, "--manifest", folder / "m.csv", "--json"],
        ["ls", KEY, "--failures", "--json"],
        ["ls", "--json"],
    ):
        line = [sys.executable, "-c", "from featurestore.cli import main; main()", *words, "--store", folder / "store"]
        done = subprocess.run(line, capture_output=True, check=False)
        assert done.returncode in (0, 1), done.stderr
        assert b"Traceback" not in done.stderr
        json.loads(done.stdout.decode())  # UTF-8, and JSON
        plain = subprocess.run([word for word in line if word != "--json"], capture_output=True, check=False)
        assert plain.returncode == done.returncode
        plain.stdout.decode(locale.getpreferredencoding(False))  # the text of this machine
        assert b"Traceback" not in plain.stderr
    assert "a.mp4: unchanged" in run("explain", KEY, "a", "--store", folder / "store").output


def test_every_path_on_the_command_line_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples.csv").write_text("id\na\n")
    assert "there is no store" in run("verify", "--store=~/nowhere", exit_code=2).stderr
    assert "~" not in run("verify", "--store=~/nowhere", exit_code=2).stderr.replace("Try", "")
    monkeypatch.setenv("FEATURESTORE_ROOT", "~/other")
    assert f"there is no store {tmp_path}/other" in run("verify", exit_code=2).stderr
    monkeypatch.setenv("FEATURESTORE_ROOT", "${DATA}/other")
    assert "$FEATURESTORE_ROOT is '${DATA}/other': ${DATA} is no folder" in run("verify", exit_code=2).stderr
    monkeypatch.setenv("FEATURESTORE_ROOT", "x")
    assert "$DATA is no folder" in run("import", "$DATA/tree", exit_code=2).stderr
    monkeypatch.setenv("HOME", "")
    assert "there is no home directory here: set HOME" in run("verify", "--store=~/x", exit_code=2).stderr
    assert not [path.name for path in tmp_path.iterdir() if "~" in path.name or "$" in path.name]


def test_every_path_option_goes_through_the_one_type_for_paths() -> None:
    """click's own leaves `~` as it is."""
    from affect_infer.cli import main
    from featurestore.cli.options import GivenPath

    def leaves(group: click.Group) -> Iterator[click.Command]:
        for name in group.list_commands(click.Context(group)):
            command = group.get_command(click.Context(group), name)
            assert command is not None
            yield from leaves(command) if isinstance(command, click.Group) else [command]

    for command in [*leaves(fstore), *leaves(main)]:
        for each in command.params:
            assert not isinstance(each.type, click.Path) or isinstance(each.type, GivenPath), (command.name, each.name)

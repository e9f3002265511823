"""Hints: what to run next, by the facts of an error or by what the user gave, in lines that can be pasted.

Errors are raised far below and advise what a program does next; here the same is said by commands and options.
"""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Callable, Sequence

import click

from featurestore import errors
from featurestore.errors import FeatureStoreError

# Options that say what one run is to do, and not where things are or how they are made.
OF_ONE_RUN = {"ids_from", "as_json", "dry_run", "all_datasets", "config", "full", "repair", "recompute",
              "failures", "overwrite", "only"}  # fmt: skip


def again(command: str, key: object | None, *more: str, stored: Sequence[tuple[str, ...]] = ()) -> str:
    """`fstore COMMAND KEY ...` with the options of the line that runs now, as far as COMMAND takes them.

    key      None for a command that needs none
    more     further words
    stored   options that follow from what is stored, e.g. [("--dtype", "float16")]; what was given counts instead
    Samples are asked for by `--manifest FILE` where none were given and COMMAND cannot do without.
    """
    given = [option for option in _given(command) if option[0] not in more]
    words = ["fstore", command, *([] if key is None else [str(key)])]
    words += [word for option in given for word in option]
    words += [word for option in stored if option[0] not in {name for name, *_ in given} for word in option]
    if command in ("extract", "retry") and not {"--manifest", "--dataset", "--all-datasets"} & {*words, *more}:
        words += ["--manifest", "FILE"]
    return shlex.join([*words, *more])


def _given(command: str) -> list[tuple[str, ...]]:
    """The options on the line that runs now which COMMAND of `fstore` takes too, as they would be typed again."""
    current = click.get_current_context(silent=True)
    group = current.find_root().command if current is not None else None
    if current is None or not isinstance(group, click.Group) or group.name != "fstore":
        return []
    ctx: click.Context = current.find_root().obj  # that of the command, also once it has ended
    other = group.get_command(ctx, command)
    assert other is not None
    taken = {option.name for option in other.params} - OF_ONE_RUN
    found: list[tuple[str, ...]] = []
    for option in ctx.command.params:
        name = option.name
        if name not in taken or not isinstance(option, click.Option) or option.opts[0] == "--debug":
            continue
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[name]
        if option.is_flag:
            found.append((option.opts[0],))
        else:
            found += [(option.opts[0], str(each)) for each in (value if option.multiple else [value])]
    return found


def message_of(error: Exception) -> str:
    """An error as a sentence with what to run next; the system's own as `what: path` without its number."""
    problem = error.problem if isinstance(error, FeatureStoreError) else str(error)
    if isinstance(error, OSError) and error.strerror:
        if error.errno == errno.ENOENT and not error.filename and not _here():
            return "the working folder of this shell is not there any more: `cd` to one that is, and run it again"
        problem = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
    step = next_step(error)
    between = "\n" if "\n" in problem else "; "  # below a list
    return f"{problem}{between}{step}" if step else problem or type(error).__name__


def next_step(error: Exception) -> str:
    """What to run or give next; empty where an error advises nothing, or what it says is all there is to do."""
    if isinstance(error, FeatureStoreError) and error.advice:
        for kind, step in STEPS.items():
            if isinstance(error, kind):
                return step(error)
    return ""


def _line(command: str, error: FeatureStoreError, *words: str, key: object = None) -> str:
    """The line for what the error is about, in its store."""
    store = [("--store", str(error.root))] if error.root is not None else []
    return f"`{again(command, key or error.key, *words, stored=store)}`"


def _missing(error: FeatureStoreError) -> str:
    if error.ids:
        return f"run {_line('extract', error)}"
    return f"`{again('ls', None, stored=[('--store', str(error.root))])}` lists what is"


def _settings(error: FeatureStoreError) -> str:
    if error.root is not None:  # where the settings have a store, there are .npy folders
        return _line("import", error, key=error.path)
    path = shlex.quote(str(error.path))
    return f"`affect-infer inspect --cfg-path {path}` and `affect-infer run --cfg-path {path}` read it"


# The first of these that an error is counts.
STEPS: dict[type[FeatureStoreError], Callable[[FeatureStoreError], str]] = {
    errors.SampleError: lambda error: f"{_line('retry', error)} tries again",
    errors.MissingFeatureError: _missing,
    errors.AmbiguousRecipeError: lambda error: f"say which as {error.key}@PREFIX, the first 6 or more of its digits",
    errors.UnknownRecipeError: lambda error: f"{_line('verify', error)} says what else is wrong",
    errors.RecipeError: lambda error: f"{_line('info', error)} shows how they differ",
    errors.CorruptSegmentError:
        lambda error: f"{_line('verify', error, '--full', '--repair')} moves what is damaged aside",
    errors.ReadOnlyError: lambda error: "or take another store with --store DIR",
    errors.ExistsError: lambda error: f"{_line('rm', error)} with their ids removes those",
    errors.WeightsNotFoundError: lambda error: (
        "or give what holds them with --weights DIR, or --weights random:0 to try things out; stored features are read "
        "without weights where KEY@PREFIX names their recipe"
    ),
    errors.LegacyTreeError: lambda error: _line("import", error, "--dataset", "NAME", key=error.path),
    errors.ConfigError: _settings,
    errors.FormatVersionError: lambda error: (
        "`fstore import OLD_STORE --store NEW_STORE` copies it" if "import" in error.advice else error.advice
    ),
}  # fmt: skip


def _here() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True

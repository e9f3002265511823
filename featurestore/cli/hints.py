"""The line to run next: hints repeat what the user gave, so that they can be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence

import click

# Options that say what one run is to do, and not where things are or how they are made.
OF_ONE_RUN = {"ids_from", "as_json", "dry_run", "all_datasets", "config", "full", "repair", "recompute"}


def again(command: str, key: object | None, *more: str, stored: Sequence[tuple[str, ...]] = ()) -> str:
    """`fstore COMMAND KEY ...` with the options of the line that runs now, as far as COMMAND takes them.

    key      None for a command that needs none
    more     further words
    stored   options that follow from what is stored, e.g. [("--dtype", "float16")]; what was given counts instead
    Samples are asked for by `--manifest FILE` where none were given and COMMAND cannot do without.
    """
    from featurestore.cli import fstore  # the group, which imports the users of this module

    ctx = click.get_current_context()
    other = fstore.get_command(ctx, command)
    assert other is not None
    taken = {option.name for option in other.params} - OF_ONE_RUN
    given = _given(ctx, taken)
    words = ["fstore", command, *([] if key is None else [str(key)])]
    words += [*(word for option in given for word in option), *more]
    words += [word for option in stored if option[0] not in {name for name, *_ in given} for word in option]
    if command in ("extract", "retry") and not {"--manifest", "--dataset", "--all-datasets"} & set(words):
        words += ["--manifest", "FILE"]
    return shlex.join(words)


def options_given(ctx: click.Context, *names: str) -> tuple[str, ...]:
    """The words of these options on the line that runs now, for a line to run next."""
    return tuple(word for option in _given(ctx, names) for word in option)


def _given(ctx: click.Context, taken: Collection[str | None]) -> list[tuple[str, ...]]:
    """The options on the command line of these names, as they would be typed again."""
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

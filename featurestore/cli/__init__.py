"""fstore: the command line.  Each command is imported when it is run, so that `fstore --help` loads click alone.

Data goes to stdout, progress and logs to stderr.  Exit codes: 0 done, 1 findings or a part that failed,
2 usage, 130 interrupted, 143 terminated, 129 hung up (what was committed stays).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

import click

import featurestore
from featurestore.cli.program import AFTER_DASHES, Program, debug_option

# name: (module under featurestore.cli, one line for the list).  The attribute is the command's own name,
# with a trailing "_" where Python has taken it.
COMMANDS = {
    "demo": ("demo", "Write a small dataset to try everything with."),
    "extract": ("extract", "Compute the features of samples that are not stored yet."),
    "retry": ("extract", "Try the samples again that failed before."),
    "ls": ("listing", "List what is stored, or the ids under one key."),
    "info": ("listing", "Show recipes, sizes and versions under a key."),
    "explain": ("listing", "Show where the features of one sample come from."),
    "verify": ("verify", "Check a store: damage, coverage, stale sources, suspicious content."),
    "doctor": ("doctor", "Check this machine, the file system of a store, or the files of a dataset."),
    "compact": ("maintenance", "Merge small segments."),
    "rm": ("rm", "Remove samples, or everything under a key."),
    "gc": ("maintenance", "Free the space of what was replaced or removed."),
    "import": ("importing", "Take in folders of .npy files as other code wrote them."),
    "export": ("export", "Write .npy folders for other code."),
    "pack": ("pack", "Write a compressed Zarr group, for an archive or other tools."),
    "datasets": ("datasets", "List the datasets that are known by name."),
    "encoders": ("names", "List the encoders, what they make, and where their weights come from."),
    "samplers": ("names", "List the samplers, and which frames each takes."),
    "config": ("config", "Explain a settings file."),
}
EPILOG = """\b
KEY    DATASET/MODALITY/ENCODER/SAMPLING/N_FRAMES; KEY@PREFIX names one of several recipes
ID     of a sample; those that begin with "-" or look like a KEY go after "--", or into --ids-from FILE
store  --store DIR, else $FEATURESTORE_ROOT, else ./features
"""


class Fstore(Program):
    """A group that knows its commands by name and imports the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"{__name__}.{COMMANDS[name][0]}"), python_name(name))
        for each in _leaves(command):
            if not any(parameter.name == "debug" for parameter in each.params):
                each.params.append(debug_option())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from featurestore.errors import did_you_mean  # only for a name that was mistyped

            hint = did_you_mean(name, COMMANDS, f"there are {', '.join(COMMANDS)}")
            ctx.fail(f"no command {name!r}; {hint}")
        ctx.meta[AFTER_DASHES] = len(args) - args.index("--") - 1 if "--" in args else 0
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def python_name(command: str) -> str:
    """The attribute of its module that holds a command: `import` is `import_` there."""
    import keyword

    return f"{command}_" if keyword.iskeyword(command) else command


def _leaves(command: click.Command) -> Iterable[click.Command]:
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from _leaves(each)
    else:
        yield command


@click.group(
    cls=Fstore,
    params=[debug_option()],
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(featurestore.__version__, package_name="featurestore", prog_name="fstore")
def fstore() -> None:
    """Features of videos, computed once, read for ever, and never wrong without saying so."""


def main() -> None:
    """Entry point of the `fstore` command."""
    fstore(prog_name="fstore")

"""Program: a group of commands as a process, for `fstore` and `affect-infer`.

An error is one line and an exit code, a signal ends the work in order, and no stream costs any of it.
"""

from __future__ import annotations

import errno
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ClassVar, NoReturn

import click

from featurestore.cli.streams import prepare_streams

ENDINGS = {signal.SIGTERM: "Terminated", signal.SIGHUP: "Hung up"}
AFTER_DASHES = "featurestore.after_dashes"  # in a context's meta: how many of the last words stand after `--`
_DEBUG = "featurestore.debug"


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP came.  To all code between it is Ctrl-C: what is ready is kept."""

    signal = signal.SIGTERM


def _remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.find_root().obj = ctx  # of the command that runs in the end: its options are repeated in hints
    if value:
        ctx.meta[_DEBUG] = True  # shared by the contexts of a group and its command


def debug_option() -> click.Option:
    """`--debug`, which may be taken by every command: users meet the error first and then append it to the line."""
    text = "Show the traceback of an error."
    return click.Option(["--debug"], is_flag=True, expose_value=False, callback=_remember, help=text)


class Program(click.Group):
    """A group of commands whose errors are lines."""

    kept: ClassVar[str] = "what was committed stays"
    """after an interruption"""
    misuse: ClassVar[tuple[str, ...]] = ("InvalidNameError", "ConfigError", "AmbiguousRecipeError")
    """the errors whose exit code is 2, by name: their module is loaded when there is an error"""
    extra: ClassVar[str] = "encoders"
    """the optional dependencies of this program"""

    def __call__(self, *words: Any, **options: Any) -> Any:
        """Run as the program of this process; ends in SystemExit, unless `standalone_mode` is off."""
        output = prepare_streams()
        with _ending_in_order():
            try:
                return super().__call__(*words, **options)
            except SystemExit as ended:
                if ended.code or output is None or output.problem is None:
                    raise
        # A closed pipe (`fstore ls | head`) is what the reader wanted: no word about it.
        if output.problem.errno != errno.EPIPE:
            why = "it is closed" if output.problem.errno == errno.EBADF else output.problem.strerror
            click.echo(f"Error: standard output cannot be written: {why}; whatever was done stays done", err=True)
        sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            number = error.signal if isinstance(error, Ended) else signal.SIGINT
            details = f": {error}" if error.args else ""
            click.echo(f"\n{ENDINGS.get(number, 'Interrupted')}; {self.kept}{details}.", err=True)
            ctx.exit(128 + number)
        except click.Abort:
            click.echo("\nAborted; nothing was changed.", err=True)
            ctx.exit(130)
        except click.NoSuchOption as error:
            raise told_of_dashes(error) from None
        except OSError as error:
            self._fail(ctx, error)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] in ("featurestore", "affect_infer"):
                raise
            from featurestore.errors import MissingPackageError

            name = error.name.partition(".")[0]
            install = f"pip install 'featurestore[{self.extra}]'"
            self._fail(ctx, MissingPackageError(f"this needs {name}, which is not installed: {install}"))
        except Exception as error:
            from featurestore.errors import FeatureStoreError

            if not isinstance(error, FeatureStoreError):
                raise
            self._fail(ctx, error)

    def _fail(self, ctx: click.Context, error: Exception) -> NoReturn:
        """One line for what a user can mend; the traceback where it was asked for."""
        from featurestore import errors
        from featurestore.cli.hints import message_of

        if ctx.meta.get(_DEBUG):
            import traceback  # only where it was asked for

            click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
        click.echo(f"Error: {message_of(error)}", err=True)
        ctx.exit(2 if isinstance(error, tuple(getattr(errors, name) for name in self.misuse)) else 1)


def told_of_dashes(error: click.NoSuchOption) -> click.NoSuchOption:
    """The same error, which says of a command that takes ids where those that look like options go."""
    ctx = error.ctx
    taken = [each.name for each in ctx.command.params if isinstance(each, click.Argument)] if ctx else []
    if ctx is None or not {"id", "ids", "sample"} & set(taken):
        return error
    advice = 'If it is the name of a sample: those that begin with "-" go after all options and "--", as in'
    message = f"{error.message} {advice} `{ctx.command_path} ... -- {error.option_name}...`."
    return click.NoSuchOption(error.option_name, message, error.possibilities, ctx)


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """SIGTERM (`kill`, `scancel`, a time limit) and SIGHUP (the terminal was closed) raise Ended, once.

    Those that follow are passed over: some schedulers send several, and what is ready is being stored.
    One that is ignored, as under `nohup`, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> NoReturn:
        for each in before:
            signal.signal(each, lambda number, frame: None)  # and not SIG_IGN, which children would inherit
        error = Ended()
        error.signal = signal.Signals(number)
        raise error

    before = {each: signal.getsignal(each) for each in ENDINGS}
    before = {each: handler for each, handler in before.items() if handler is not signal.SIG_IGN}
    for each in before:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)

"""Progress on stderr: how many, how fast, how long it will take."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any


class Stages:
    """Tells the bar that is shown now what an extractor is at: one extractor serves several bars."""

    def __init__(self) -> None:
        self.bar: Bar | None = None

    def __call__(self, name: str) -> None:
        if self.bar is not None:
            self.bar.stage(name)


class Bar:
    """Called with the number of samples just settled.  What is settled at once does not count for the rate.

    begun_with   the stage that stands before `what` until another is told, e.g. "starting"
    """

    def __init__(self, total: int, what: str, begun_with: str = "") -> None:
        self.total = total
        self.what = what
        self._stage = begun_with
        self._bar: Any = None  # tqdm's types cost its import

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def stage(self, name: str) -> None:
        """Say what goes on now.  How long the rest will take is reckoned from here: loading happens once."""
        if self._bar is not None and name != self._stage:
            self._stage = name
            self._bar.initial = self._bar.n
            self._bar.start_t = self._bar.last_print_t = time.time()
            self._bar.set_description(self._title)  # written at once, also into a file

    def __call__(self, count: int) -> None:
        if self._bar is not None:
            self._bar.update(count)
            if self._bar.n >= self.total:
                self._bar.close()
        elif count < self.total:
            from tqdm import tqdm  # 20 ms that a run with nothing to do need not wait for

            # Into a file, such as the log of a batch job, a line now and then.
            wait_s = 0.1 if sys.stderr.isatty() else 30.0
            self._bar = tqdm(
                total=self.total,
                initial=count,
                desc=self._title,
                unit="sample",
                file=sys.stderr,
                mininterval=wait_s,
                smoothing=0,  # all of them since then: a batch comes at once, and then nothing for a while
            )

    @property
    def _title(self) -> str:
        return f"{self._stage} {self.what}".lstrip()


class Bars:
    """One bar after another, for each folder or key that is told."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._name, self._done = "", 0

    def __call__(self, name: str, done: int, total: int) -> None:
        if self._bar is None or name != self._name:
            self._close()
            self._bar, self._name, self._done = Bar(total, name), name, 0
        self._bar(done - self._done)
        self._done = done

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

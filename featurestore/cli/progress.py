"""Progress on stderr: how many, how fast, how long it will take."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Bar:
    """Called with the number of samples just settled.  What is settled at once does not count for the rate.

    waiting   what stands before `what` until the first of the others is settled
    """

    def __init__(self, total: int, what: str, waiting: str = "") -> None:
        self.total = total
        self.what = what
        self.waiting = waiting
        self._bar: Any = None  # tqdm's types cost its import

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, count: int) -> None:
        if self._bar is not None:
            self._bar.set_description(self.what, refresh=False)
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
                desc=f"{self.waiting}{self.what}",
                unit="sample",
                file=sys.stderr,
                mininterval=wait_s,
            )

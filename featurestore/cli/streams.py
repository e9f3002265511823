"""The three streams of a process: they may be closed, full, broken, or of an encoding that lacks characters.

None of that may cost the work, nor what else is to be said.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


class Output(io.FileIO):
    """Standard output.  What it does not take is dropped, and `problem` says why: work goes on, the exit code tells."""

    problem: OSError | None = None

    def write(self, data: object) -> int:
        size = memoryview(data).nbytes  # type: ignore[arg-type]
        if self.problem is None:
            try:
                return super().write(data)  # type: ignore[arg-type]
            except OSError as error:
                self.problem = error
        return size


class Notes(io.FileIO):
    """Standard error: progress and messages.  What it does not take is dropped, for there is nobody to be told."""

    def write(self, data: object) -> int:
        try:
            written: int | None = super().write(data)  # type: ignore[arg-type]
        except OSError:
            written = None
        return memoryview(data).nbytes if written is None else written  # type: ignore[arg-type]


def prepare_streams() -> Output | None:
    """Make the standard streams of this process such as above; returns that of standard output.

    Characters that an encoding lacks are escaped.  A closed stream is opened on nothing, so that no file opened
    later gets its number and the messages of some library.  Streams that somebody put in place of the process's
    own are left, and None is returned where that is standard output.
    """
    # Nothing can be written to a file that is open for reading: that output was lost is then said.
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # the lowest free number is this one
    output = None
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)
    if sys.stdout is sys.__stdout__:
        output = Output(1, "w", closefd=False)
        sys.stdout = _text(output, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(Notes(2, "w", closefd=False), sys.stderr)
    return output


def _text(raw: io.FileIO, before: TextIO | None) -> TextIO:
    """As Python opened it, or in UTF-8 where it did not."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace",
        newline="\n",
        line_buffering=getattr(before, "line_buffering", True),
        write_through=getattr(before, "write_through", False),
    )

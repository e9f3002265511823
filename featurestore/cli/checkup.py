"""Check: one line of `fstore doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, and what follows from it."""

    name: str
    state: State
    """ok, note: works with a restriction, problem: a promise does not hold or a command will fail"""
    what: str
    advice: str = ""

    def as_json(self) -> dict[str, str]:
        return dict(vars(self))

    def __str__(self) -> str:
        return f"{self.state:<8} {self.name:<20} {self.what}{f'; {self.advice}' if self.advice else ''}"


def ok(name: str, what: str) -> Check:
    return Check(name, "ok", what)


def note(name: str, what: str, advice: str) -> Check:
    return Check(name, "note", what, advice)


def problem(name: str, what: str, advice: str) -> Check:
    return Check(name, "problem", what, advice)

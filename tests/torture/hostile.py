"""What hostile files are made of: damaged bytes, values that nobody expects, and baits that must never be run."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

# Stand for what json.dumps cannot write; `rendered` puts it in their place.
_LITERALS = {
    "@deep@": "[" * 20_000 + "]" * 20_000,
    "@deep objects@": '{"a":' * 20_000 + "0" + "}" * 20_000,
    "@long number@": "9" * 5_000,
    "@infinite@": "1e999",
    "@nan@": "NaN",
    "@half a pair@": '"\\ud800"',
    "@twice@": '{"id":"a","id":"b"}',
}
SPARSE_BYTES = 5 << 28  # more than a process here may have; what hashes it takes a second or two
EDGES = (
    0,
    1,
    -1,
    2,
    255,
    256,
    2**15,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**53,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    10**30,
)


@dataclass(frozen=True)
class Bait:
    """A file that must never appear: whatever makes it has run something, or written outside of its folder."""

    canary: Path

    def shell(self) -> str:
        return f"touch {self.canary}"

    def python(self) -> str:
        return f"open({str(self.canary)!r}, 'w')"

    def pickled(self, random: Random) -> Any:
        """An object whose pickle makes the canary when it is loaded."""
        return random.choice(
            (
                _Runs(os.system, (self.shell(),)),
                _Runs(eval, (self.python(),)),
                _Runs(exec, (self.python(),)),
                _Runs(open, (str(self.canary), "w")),
                _Runs(os.mkdir, (str(self.canary),)),
                {"a": [_Runs(os.system, (self.shell(),))]},
            )
        )

    def pickle(self, random: Random) -> bytes:
        return pickle.dumps(self.pickled(random), protocol=random.randrange(5))

    def yaml(self, random: Random) -> str:
        return random.choice(
            (
                f'!!python/object/apply:os.system ["{self.shell()}"]',
                f'!!python/object/apply:os.mkdir ["{self.canary}"]',
                f'!!python/object/new:os.system ["{self.shell()}"]',
                f'!!python/object/apply:builtins.eval ["{self.python()}"]',
                "!!python/name:os.system",
                "!!python/module:os",
                "!!binary aGVsbG8=",
                "!unknown x",
            )
        )

    def path(self, random: Random) -> str:
        """The canary as a path that climbs out of where it is."""
        climbing = "../" * random.choice((1, 3, 8, 20))
        return random.choice((str(self.canary), climbing + str(self.canary).lstrip("/"), f"a/../../{self.canary}"))


class _Runs:
    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def odd_text(random: Random, bait: Bait) -> str:
    return random.choice(
        (
            "", " ", ".", "..", "/", "~", "-", "-rf", "--help", "\0", "a\0b", "a\nb", "\x1b[2J", "\u2028", "\ufeff",
            "e\u0301", "\u00e9", "\u202egpj.exe", "\U0001f600" * 200, "A" * 600, "A" * 70_000, "NaN", "null", "true",
            "1e999", "%s%n", "{0.__class__}", "${HOME}", "random:0", "con", "a@b", "*", "[", "file:///etc/passwd",
            "http://127.0.0.1:1/x", "/dev/zero", "/dev/stdin", "/proc/self/mem",
            bait.path(random), bait.path(random), bait.shell(), f"$({bait.shell()})", f"`{bait.shell()}`",
            f"; {bait.shell()}", f"| {bait.shell()}", f"__import__('os').system({bait.shell()!r})",
        )
    )  # fmt: skip


def odd(random: Random, bait: Bait) -> Any:
    """A value of any type that a reader may not expect."""
    return random.choice(
        (
            None, True, False, random.choice(EDGES), random.choice(EDGES), 0.5, -0.0, 1e308, 5e-324,
            odd_text(random, bait), odd_text(random, bait), [], {}, [[]], [None], {"": None}, [1, "a", None],
            ["a"] * 1000, random.choice(tuple(_LITERALS)),
        )
    )  # fmt: skip


def bent(random: Random, value: Any, bait: Bait) -> Any:
    """The value with one part of it replaced, removed, doubled, moved or added."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        name = random.choice(list(value))
        changed = dict(value)
        how = random.random()
        if how < 0.12:
            del changed[name]
        elif how < 0.2:
            changed[odd_text(random, bait)] = changed.pop(name)
        elif how < 0.26:
            changed[odd_text(random, bait)] = odd(random, bait)
        else:
            changed[name] = bent(random, value[name], bait)
        return changed
    if isinstance(value, list) and value and random.random() < 0.75:
        at = random.randrange(len(value))
        part = random.choice(([], [bent(random, value[at], bait)], [bent(random, value[at], bait)], [value[at]] * 2))
        return [*value[:at], *part, *value[at + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and random.random() < 0.5:
        return value + random.choice((1, -1, 2, -2, value, 2**32, -value, 2**40))
    return odd(random, bait)


def bent_often(random: Random, value: Any, bait: Bait) -> Any:
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        value = bent(random, value, bait)
    return value


def rendered(value: Any, **options: Any) -> bytes:
    """JSON, with what no value of Python stands for."""
    text = json.dumps(value, **options)
    for mark, literal in _LITERALS.items():
        text = text.replace(json.dumps(mark), literal)
    return text.encode("utf-8", "surrogatepass")


def damaged(random: Random, data: bytes) -> bytes:
    """Bytes changed, cut, doubled, moved, and numbers among them turned into extreme ones."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        at = random.randrange(len(changed) + 1)
        how = random.randrange(8)
        if how == 0:
            changed = changed[:at]
        elif how == 1:
            changed[at:at] = changed[at : at + random.choice((1, 16, 1000))]
        elif how == 2:
            del changed[at : at + random.choice((1, 4, 64, 4096))]
        elif how == 3:
            changed[at:at] = random.randbytes(random.choice((1, 4, 100)))
        elif how == 4:
            number = random.choice(EDGES) % 2**64
            changed[at : at + 8] = struct.pack(random.choice("<>") + "Q", number)
        elif how == 5:
            changed[at : at + 4] = struct.pack(random.choice("<>") + "I", random.choice(EDGES) % 2**32)
        elif how == 6:
            changed[at : at + 4] = random.choice((b"\0" * 4, b"\xff" * 4, b"\x80\0\0\0"))
        elif changed:
            changed[at % len(changed)] ^= 1 << random.randrange(8)
    return bytes(changed)


def spoil(random: Random, path: Path) -> None:
    """Put something into the place of a file that is no file of its size: a folder, a pipe, a device, a hole."""
    how = random.choice(("folder", "pipe", "zeros", "loop", "nowhere", "hole", "hole", "empty", "stdin"))
    if how == "hole":
        with open(path, "ab") as file:
            file.truncate(SPARSE_BYTES)
        return
    if how == "empty":
        path.write_bytes(b"")
        return
    path.unlink(missing_ok=True)
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"zeros": "/dev/zero", "loop": path.name, "nowhere": "not-there", "stdin": "/dev/stdin"}[how])


def write(random: Random, path: Path, content: bytes, damage: float = 0.3, spoils: float = 0.05) -> Path:
    """The content, perhaps damaged, perhaps no file at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(damaged(random, content) if random.random() < damage else content)
    if random.random() < spoils:
        spoil(random, path)
    return path


def any_of(random: Random, values: Sequence[Any]) -> Any:
    return random.choice(list(values))

"""Results: one JSON line per sample, appended as they come, taken up again after any end."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from affect_infer.model.generate import DRAWING
from featurestore.errors import ConfigError, InputError, StoreError
from featurestore.untrusted_io.files import parse_json, read_untrusted

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
MAX_BYTES = 1 << 30
FSYNC_S = 1.0  # a power cut may cost the answers of this long; a kill costs none


class Results:
    """The file of one dataset.  Its first line says what was run, each other line one sample.

    Use as a context manager: it is locked against a second run meanwhile.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.identity = json.loads(json.dumps(identity))  # as it is read back
        self.answered: set[str] = set()
        self.skipped: set[str] = set()
        self._file = -1
        self._begun = False
        self._lock: Any = None
        self._synced = -math.inf  # by a clock that begins when the machine does

    def __enter__(self) -> Results:
        from filelock import FileLock, Timeout

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(f"{self.path}.lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise ConfigError(f"another run is writing {self.path}; wait for it, or choose another --output") from None
        try:
            self._resume()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._begin()
        os.fsync(self._file)
        os.close(self._file)
        if not self._begun:  # what failed before the first line leaves no file of results
            self.path.unlink(missing_ok=True)
        self._lock.release()

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one sample's line; it survives a kill when this returns."""
        self._begin()
        self._write(line)
        now = time.monotonic()
        if now - self._synced >= FSYNC_S:
            os.fsync(self._file)
            self._synced = now

    def _resume(self) -> None:
        lines, whole = _lines(self.path)
        if lines and not self._continues(lines):
            lines, whole = [], 0
        for line in lines[1:]:
            (self.skipped if "skipped" in line else self.answered).add(line["id"])
        self.skipped -= self.answered
        self._file = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o666)
        # A kill in the middle of a line left its beginning: that sample is not answered.
        os.ftruncate(self._file, whole)
        self._begun = bool(lines)

    def _begin(self) -> None:
        """The first line, once there is something to put below it."""
        if not self._begun:
            self._write({"run": self.identity})
            self._begun = True

    def _continues(self, lines: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the file is of this run; False for one of another that holds no answers, and may be replaced.

        Raises ConfigError where answers of other settings would be joined, InputError for a file of something else.
        """
        before = lines[0].get("run")
        if not isinstance(before, dict):
            raise InputError(f"{self.path} does not begin with a line about its run; choose another --output")
        then, now = dict(_flat(before)), dict(_flat(self.identity))
        if then == now:
            return True
        if all("skipped" in line for line in lines[1:]):
            return False
        if unrecorded := [name for name, value in self.identity.items() if value and before.get(name) is None]:
            raise ConfigError(
                f"{self.path} was begun by an earlier version, which did not record {' and '.join(unrecorded)} as in "
                "force, so that nobody can say whether its answers belong with those of this run; move the file away, "
                "or choose another --output"
            )
        changes = "; ".join(
            f"{name}: {_said(then, name)} then, {_said(now, name)} now"
            for name in {**then, **now}
            if _said(then, name) != _said(now, name)
        )
        raise ConfigError(
            f"{self.path} holds answers of other settings ({changes}); give the same settings to go on with it, or "
            "another --output to begin anew"
        )

    def _write(self, line: Mapping[str, Any]) -> None:
        # A path in a message need not be text: of what UTF-8 has no bytes for comes an escape of JSON.
        data = _ENCODER.encode(line).encode("utf-8", "backslashreplace") + b"\n"
        try:
            written = os.write(self._file, data)
            while written < len(data):  # a full disk may take a part first
                written += os.write(self._file, data[written:])
        except OSError as error:
            raise StoreError(error.errno, f"cannot write results: {error.strerror}", str(self.path)) from error


def read_results(path: str | Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """(what was run, {sample: its line}) of a file; of a sample with two lines (skipped, then answered) the last.

    Raises InputError for a file that is no such file.
    """
    path = Path(path)
    lines, _ = _lines(path)
    if not lines or not isinstance(lines[0].get("run"), dict):
        raise InputError(f"{path} holds no results of affect-infer: its first line is not about a run")
    return lines[0]["run"], {line["id"]: line for line in lines[1:]}


def write_npz(path: str | Path, answers: Mapping[str, str]) -> None:
    """`name2reason`, the file that existing evaluation reads: {sample: answer} as a pickled 0-d array."""
    from featurestore.object_npz import write_object_npz

    path = Path(path)
    draft = path.with_name(f".{path.name}.tmp")
    write_object_npz(draft, {"name2reason": dict(answers)})
    draft.replace(path)


def answers_in_order(lines: Mapping[str, Mapping[str, Any]], ids: Iterable[str]) -> dict[str, str]:
    """{sample: answer} of those that were answered, in the dataset's order."""
    return {id: lines[id]["answer"] for id in ids if "answer" in lines.get(id, {})}


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """{"sampling": {"seed": 0}} -> ("sampling.seed", 0), without what changes no answer.

    Where a digest is known, the path beside it is for people; where the likeliest token is taken, nothing is drawn.
    """
    for name, value in settings.items():
        if (name == "path" and "sha256" in settings) or (name in DRAWING and settings.get("greedy") is True):
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _said(settings: Mapping[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "nothing"


def _lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """(the complete lines, their bytes).  Only the last line may be incomplete; damage elsewhere is an InputError."""
    try:
        data = read_untrusted(path, MAX_BYTES)
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise InputError(f"results {path} cannot be read: {error.strerror}; choose another --output") from error
    whole = data.rfind(b"\n") + 1
    lines = []
    for number, text in enumerate(data[:whole].splitlines(), 1):
        try:
            line = parse_json(text)
            if not isinstance(line, dict) or (number > 1 and not isinstance(line.get("id"), str)):
                raise ValueError("not a line of results")
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {error}; the file was changed by hand or is damaged") from error
        lines.append(line)
    return lines, whole

"""Figures: what the proofs counted.  A long run keeps them, and docs/reliability.md is made from them."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featurestore.storage.reader import FORMAT

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "torture.json"


class Figures:
    """Of one test: `record` before the assertions, so that what is bad is kept as well.

    kept   {"proofs": {name: entry}, "mutants": {name: [mutant]}} of the test
    form   "short" or "long"
    file   of the test, from the root of the project
    """

    def __init__(self, kept: dict[str, Any], form: str, file: str) -> None:
        self._kept = kept
        self._form = form
        self._file = file
        self._began = time.perf_counter()

    def record(
        self, proof: str, tried: int, what: str, bad: Mapping[str, int], beside: Mapping[str, int] | None = None
    ) -> None:
        """Count for a proof; the cases of a parametrized test are added up.

        tried    how often, and `what` that was: 10_000, "kills"
        bad      {"lost": 0, "hangs": 0}: what must not happen
        beside   {"samples acknowledged": 12_000}: what else tells how hard it was tried
        """
        took_s = time.perf_counter() - self._began
        self._began += took_s
        entry = {
            "tried": tried,
            "what": what,
            "bad": dict(bad),
            "beside": dict(beside or {}),
            "seconds": round(took_s, 1),
            "form": self._form,
            "file": self._file,
        }
        proofs = self._kept.setdefault("proofs", {})
        proofs[proof] = _sum(proofs[proof], entry) if proof in proofs else entry

    def caught(self, proof: str, mutant: str) -> None:
        """A deliberately broken version that the proof found."""
        self._kept.setdefault("mutants", {}).setdefault(proof, []).append(mutant)


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    total = {**other, "tried": one["tried"] + other["tried"], "seconds": round(one["seconds"] + other["seconds"], 1)}
    for counts in ("bad", "beside"):
        names = [*one[counts], *(name for name in other[counts] if name not in one[counts])]
        total[counts] = {name: one[counts].get(name, 0) + other[counts].get(name, 0) for name in names}
    return total


def keep(path: Path, test: str, kept: Mapping[str, Any]) -> None:
    """Put what one test counted in the place of what it counted before, and add up the proofs.

    A short form replaces no long one.  A run that was cut off goes on with the tests that have no piece yet.
    """
    stamp = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": _commit(), "format": FORMAT}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # several sessions may end at once
        file.seek(0)
        document = json.loads(file.read() or '{"proofs": {}, "mutants": {}}')
        pieces = document.setdefault("pieces", {})
        if form_of(kept) == "long" or form_of(pieces.get(test, kept)) != "long":
            pieces[test] = {**kept, **stamp}
        _add_up(document)
        document["machine"] = _machine()
        file.truncate(0)
        file.write(json.dumps(document, indent=1, sort_keys=True) + "\n")


def is_done(path: Path, test: str) -> bool:
    """Whether a long run of this test is kept, on the format that is written now, in which it found nothing bad."""
    pieces = json.loads(path.read_text(encoding="utf-8")).get("pieces", {}) if path.exists() else {}
    piece = pieces.get(test, {})
    bad = [count for entry in piece.get("proofs", {}).values() for count in entry["bad"].values()]
    return form_of(piece) == "long" and piece["format"] == FORMAT and not any(bad)


def form_of(piece: Mapping[str, Any]) -> str:
    """`long`, `short`, or nothing where only mutants were tried, which have one form."""
    return max((entry["form"] for entry in piece.get("proofs", {}).values()), default="")


def _add_up(document: dict[str, Any]) -> None:
    """Make proofs and mutants from the pieces.  What has no piece yet, since it is older than they are, stays."""
    proofs: dict[str, Any] = {}
    mutants: dict[str, set[str]] = {}
    for piece in document["pieces"].values():
        stamp = {name: piece[name] for name in ("date", "commit", "format")}
        for name, entry in piece.get("proofs", {}).items():
            before = proofs.get(name)
            proofs[name] = {**entry, **stamp} if before is None else _both(before, {**entry, **stamp})
        for name, caught in piece.get("mutants", {}).items():
            mutants.setdefault(name, set()).update(caught)
    document["proofs"].update(proofs)
    document["mutants"].update({name: sorted(caught) for name, caught in mutants.items()})


def _both(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    commits = ", ".join(dict.fromkeys([*one["commit"].split(", "), other["commit"]]))
    return {**_sum(one, other), "commit": commits, "date": max(one["date"], other["date"])}


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "no repository"


def _machine() -> dict[str, Any]:
    sys.path.append(str(ROOT / "benchmarks"))
    from harness import machine

    found = machine()
    versions = {name: found["versions"][name] for name in ("featurestore", "numpy", "google-crc32c", "zarr")}
    return {name: found[name] for name in ("cpu", "cores", "memory_gib", "system", "python")} | {"versions": versions}

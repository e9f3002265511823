"""Write what the torture tests counted, and the defects they found, into docs/reliability.md.

    .venv/bin/python scripts/write_reliability.py

The figures are those of benchmarks/results/torture.json, which `make torture` writes.
tests/test_reliability.py fails while the page says anything else.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "benchmarks" / "results" / "torture.json"
BLOCK = re.compile(r"(<!-- written: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

# What a long run sets out to try; the rest is as much as there is, or as fits into some minutes.
AIMS = {
    "kill -9": 10_000,
    "power cuts": 100_000,
    "forks under 4 reading threads": 3_000,
    "single locks": 100_000,
    "hostile inputs": 20_000,
}

# What a run found and the page names under "One finding stands".
STANDING = {"hostile inputs": {"other errors, crashes, over 1 GiB or 10 s": 3}}


def rendered(page: str, results: Mapping[str, Any]) -> str:
    """The page with these figures."""
    return BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match['name']](results)}\n{match[3]}", page)


def read_results() -> dict[str, Any]:
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return results


def _machine(results: Mapping[str, Any]) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}; {versions}."
    )


def _summary(results: Mapping[str, Any]) -> str:
    proofs = results["proofs"]
    bad = {f"{name}: {what}": n for name, proof in proofs.items() for what, n in proof["bad"].items() if n}
    mutants = sum(map(len, results["mutants"].values()))
    found = "; ".join(f"**{n:,} {what}**" for what, n in bad.items())
    return (
        f"{len(proofs)} proofs, {sum(proof['tried'] for proof in proofs.values()):,} attempts: "
        f"{found or 'none found anything lost, wrong or silent'}. Of versions that were broken on purpose "
        f"{mutants} were caught, each by the proof that it is listed under."
    )


def _proofs(results: Mapping[str, Any]) -> str:
    """One section for each file of tests."""
    files: dict[str, list[str]] = {}
    for name in sorted(results["proofs"], key=lambda name: (name not in AIMS, name)):
        files.setdefault(results["proofs"][name]["file"], []).append(name)
    return "\n\n".join(_section(file, names, results) for file, names in files.items())


def _section(file: str, names: list[str], results: Mapping[str, Any]) -> str:
    module = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    says = (ast.get_docstring(module) or "").partition("\n")[0].rstrip(".")
    lines = [f"### {says}", "", "| proof | tried | what must not be | besides | run |", "|---|---|---|---|---|"]
    lines += [_row(name, results["proofs"][name]) for name in names]
    caught = [mutant for name in names for mutant in results["mutants"].get(name, ())]
    if caught:
        more = f"; and {len(caught) - 8} more" if len(caught) > 8 else ""
        lines += ["", f"Caught when broken on purpose: {'; '.join(caught[:8])}{more}."]
    return "\n".join([*lines, "", f"`{command(file)}`"])


def _defects(results: Mapping[str, Any]) -> str:
    """What the tests of defects say of themselves."""
    module = ast.parse((ROOT / "tests" / "torture" / "test_defects.py").read_text(encoding="utf-8"))
    told = [
        (node.name.removeprefix("test_").replace("_", " "), ast.get_docstring(node))
        for node in module.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    return "\n".join(f"* *{promise}*: {' '.join(text.split())}" for promise, text in told if text)


def command(file: str) -> str:
    return f".venv/bin/python -m pytest {file} --long --timeout 0"


def _row(name: str, proof: Mapping[str, Any]) -> str:
    tried = f"{proof['tried']:,} {proof['what']}"
    if proof["tried"] < AIMS.get(name, 0):
        tried += f" (aimed at {AIMS[name]:,})"
    bad = ", ".join(f"{what}: **{count:,}**" for what, count in proof["bad"].items())
    beside = ", ".join(_beside(proof["beside"]))
    run = f"{proof['form']}, {_duration(proof['seconds'])}, {proof['date']}, {proof['commit']}"
    return f"| {name} | {tried} | {bad} | {beside} | {run} |"


def _beside(counts: Mapping[str, int]) -> Iterator[str]:
    """Equal counts of many things together."""
    names: dict[int, list[str]] = {}
    for what, count in counts.items():
        names.setdefault(count, []).append(what)
    for count, some in names.items():
        if len(some) > 3:
            yield f"{count:,} each of {len(some)} kinds ({', '.join(some)})"
        else:
            yield from (f"{count:,} {what}" for what in some)


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


BLOCKS = {"summary": _summary, "machine": _machine, "proofs": _proofs, "defects": _defects}


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8"), read_results()), encoding="utf-8")

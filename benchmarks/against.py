"""The working tree against an earlier commit, in turns in one go: has anything become slower?

    python benchmarks/against.py COMMIT [MEASURE...] [--rounds 7] [--most 5] [--save NAME] [--quick]    about 3 minutes

Each of the two trees is run by a process of its own, on files of its own, by the same Python and the same programs
(`turns.py` beside this).  The two take turns, so that a busy moment hits both, and which of them begins changes.  What
counts is the median over the rounds of the ratio of CPU seconds, now to then; wall seconds are shown beside it.  There
are two such pairs, in one of which the earlier commit was started first, and of their medians the geometric mean is
taken: of two equal trees the one that is started first was up to 15 % slower here, in every round.  The exit code is 1
where that is above 1 for some measure by more than --most percent.
Does not show: waiting (for a disk, a network, a lock), which costs no CPU seconds; a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness import save, scratch, table
from turns import MEASURES

ROOT = Path(__file__).resolve().parents[1]
TURNS = Path(__file__).with_name("turns.py")


class Tree:
    """A tree of the project, and the process that takes its turns in the folder `work`."""

    def __init__(self, source: Path, work: Path, quick: bool) -> None:
        work.mkdir()
        command = [sys.executable, str(TURNS), str(source), str(work), *(["--quick"] if quick else [])]
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        # As where it is installed: else each start compiles the sources, and the longer ones take longer.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = str(work / "compiled")
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self, measure: str) -> tuple[float, float]:
        """(CPU seconds, wall seconds) of one turn."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{measure}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{measure}: the process that measures ended with exit code {self._process.wait()}; see above")
        cpu_s, wall_s = json.loads(line)
        return cpu_s, wall_s

    def close(self) -> None:
        self._process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="whatever git calls a commit")
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=f"default all: {', '.join(MEASURES)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--most", type=float, default=5.0, help="percent by which it may be slower")
    parser.add_argument("--quick", action="store_true", help="less of everything: does it run, not how fast is it")
    parser.add_argument("--save", metavar="NAME", help="keep the table as results/NAME.json")
    chosen = parser.parse_args()
    if unknown := set(chosen.measures) - set(MEASURES):
        parser.error(f"no measure is called {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    with scratch() as folder:
        then = unpacked(chosen.commit, folder / "source")
        sources = {"now": ROOT, "then": then}
        pairs = [
            {name: Tree(sources[name], folder / f"{name} {'-'.join(order)}", chosen.quick) for name in order}
            for order in (("now", "then"), ("then", "now"))
        ]
        rows = [compared(measure, pairs, chosen.rounds) for measure in chosen.measures or MEASURES]
        for tree in (tree for pair in pairs for tree in pair.values()):
            tree.close()
    slower = [row["measure"] for row in rows if row["CPU ratio"] > 1 + chosen.most / 100]
    print(table(rows))
    if chosen.save:
        save(chosen.save, {"then": chosen.commit, "measures": rows})
    print(f"slower than {chosen.commit} by more than {chosen.most:g} %: {', '.join(slower) or 'nothing'}")
    sys.exit(bool(slower))


def unpacked(commit: str, folder: Path) -> Path:
    """The files of a commit of this repository."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if archive.returncode:
        sys.exit(f"{commit} is no commit of {ROOT}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def compared(measure: str, pairs: list[dict[str, Tree]], rounds: int) -> dict[str, Any]:
    """One line of the table."""
    taken = [in_turns(measure, trees, rounds) for trees in pairs]

    def seconds(name: str) -> float:
        return round(statistics.median(cpu_s for pair in taken for cpu_s, _ in pair[name]), 3)

    def ratio(which: int) -> float:
        """Now to then: the median over the rounds of each pair, and the geometric mean of these."""
        turns = [zip(pair["now"], pair["then"], strict=True) for pair in taken]
        medians = [statistics.median(now[which] / then[which] for now, then in pair) for pair in turns]
        return round(statistics.geometric_mean(medians), 3)

    return {
        "measure": measure,
        "CPU s now": seconds("now"),
        "CPU s then": seconds("then"),
        "CPU ratio": ratio(0),
        "wall ratio": ratio(1),
    }


def in_turns(measure: str, trees: dict[str, Tree], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """(CPU seconds, wall seconds) of each round, by tree."""
    order = list(trees)
    for name in order:
        trees[name].turn(measure)  # makes its files, compiles, starts workers
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in order}
    for _ in range(rounds):
        for name in order:
            taken[name].append(trees[name].turn(measure))
        order.reverse()
    return taken


if __name__ == "__main__":
    main()

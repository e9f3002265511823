"""Processes forked from one warm parent, killed at any moment, and the log of what they were told."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from oracle import ABSENT, ALL, KEY, RECIPE, SECOND_RECIPE, Op, Oracle

from featurestore import FeatureStore

IDS = 24  # of each victim


class Victim:
    """One process at work on a store; `kill` ends it wherever it is and tells an oracle what it had reported.

    It lives for 1 to 50 ms from its first operation on.
    """

    def __init__(self, root: Path, owner: int, oracle: Oracle, seed: int) -> None:
        self.oracle = oracle
        self.ops: dict[int, Op] = {}
        read_end, write_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(read_end)
            _work(root, owner, oracle, seed, lambda *line: os.write(write_end, json.dumps(line).encode() + b"\n"))
        os.close(write_end)
        self.log = os.fdopen(read_end)
        # A loaded machine may need longer to start it than it is to live.
        self.first = self.log.readline()
        self.until = time.monotonic() + random.Random(seed).uniform(0.001, 0.05)

    def kill(self) -> list[str]:
        """Errors that the victim met before it was killed."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        errors = []
        with self.log:
            for line in filter(None, itertools.chain([self.first], self.log)):
                kind, *rest = json.loads(line)
                if kind == "begin":
                    self.oracle.begin(op_of(*rest))
                elif kind == "done":
                    self.oracle.done()
                else:
                    errors.append(rest[0])
        return errors


def op_of(name: str, ids: list[str], version: int, all_rows: bool, second: bool) -> Op:
    return Op(name, tuple(ids), version, ALL if all_rows else KEY, SECOND_RECIPE if second else RECIPE)


def _work(root: Path, owner: int, oracle: Oracle, seed: int, tell: Callable[..., object]) -> None:
    """Operations one after the other, each announced and acknowledged through the pipe, for ever."""
    try:
        random_ = random.Random(seed)
        store = FeatureStore(root)
        while True:
            line = choose(random_, owner, oracle, seed)
            if line is None:
                continue
            tell("begin", *line)
            op = op_of(*line)
            oracle.begin(op)
            op.run(store)
            oracle.done()
            tell("done")
    except BaseException:  # noqa: BLE001 - told to the parent, who fails the test
        tell("error", traceback.format_exc()[-3000:])
    finally:
        sys.stdout.flush()
        os._exit(1)


def choose(random_: random.Random, owner: int, oracle: Oracle, seed: int) -> tuple[object, ...] | None:
    """The line of an operation that can be done now, for `op_of`; None where the first idea cannot."""
    all_rows, second = random_.random() < 0.15, random_.random() < 0.15
    held = oracle.held.get((ALL if all_rows else KEY, SECOND_RECIPE if second else RECIPE), {})
    ids = random_.sample([f"v{owner}-{number}" for number in range(IDS)], random_.choice((1, 1, 2, 5)))
    present = [id for id in ids if held.get(id, ABSENT) != ABSENT]
    absent = [id for id in ids if held.get(id, ABSENT) == ABSENT]
    version = seed * 1000 + random_.randrange(1, 1000)
    name = random_.choice(("put", "put", "put", "overwrite", "delete", "get", "compact", "gc"))
    where = (all_rows, second)
    if name == "put" and absent:
        return ("put", absent, version, *where)
    if name in ("overwrite", "delete", "get") and present:
        return (name, present, version, *where)
    if name in ("compact", "gc") and any(held.values()):
        return (name, [], ABSENT, *where)
    return None


def kill_many(root: Path, kills: int, seed: int, stop_at_first: bool = False) -> tuple[list[str], int]:
    """(what was lost, wrong or raised; samples acknowledged).  Two victims at a time on one store, ids of their own."""
    oracles = [Oracle(), Oracle()]
    running: list[Victim] = []
    found: list[str] = []
    for number in range(kills):
        owner = number % 2
        if len(running) == 2:
            victim = running.pop(0)
            time.sleep(max(0.0, victim.until - time.monotonic()))
            found += victim.kill() + victim.oracle.settle(root)
            if found and stop_at_first:
                break
        running.append(Victim(root, owner, oracles[owner], seed * 1_000_000 + number))
    for victim in running:
        found += victim.kill() + victim.oracle.settle(root)
    return found, sum(oracle.acknowledged for oracle in oracles)

"""The process that gives hostile inputs to children of its own and writes, a line of JSON each, what became of them.

    python hostile_run.py --count 300 --seed 0 --folder /tmp/arena [--kind .npy]
    python hostile_run.py --mutants --folder /tmp/arena

Each input is made here and read in a process forked from this one, which is warm: everything is imported.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import select
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import hostile_files as files
import hostile_stores as stores
from hostile import Bait

MEMORY_BYTES = 1 << 30
SECONDS = 10.0  # of the processor
WAIT_S = 60.0  # for one that sleeps, on a machine that may be busy with other things
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
MEDIA = ("videos", "sounds")  # which the program reads in processes of their own

Maker = Callable[[Random, Path, Bait], files.Case]


def kinds_of_input(seeds: Path) -> dict[str, Maker]:
    clips = files.make_clips(seeds / "clips")
    store = stores.make_store(seeds / "store")
    return {
        "ids, keys and recipes": stores.names,
        "manifests": files.manifest,
        "settings in YAML": files.guide,
        "MER-Factory JSON": files.merfactory,
        "OpenFace tables": files.openface,
        "dataset TOML": files.dataset,
        "results and certificates": files.results,
        ".npy": files.npy,
        "label .npz": files.labels,
        ".pth": files.checkpoint,
        ".safetensors and configs": files.weights,
        "videos": partial(files.video, clips=clips),
        "sounds": files.sound,
        "forged segments": partial(stores.forged_segment, store=store),
        "foreign stores": partial(stores.foreign_store, store=store),
        "failure records": partial(stores.failure_record, store=store),
    }


def warm_up() -> None:
    """Import what readers import when they are used: a child would pay for it each time."""
    import av.filter
    import click  # noqa: F401
    import cv2
    import soxr  # noqa: F401
    import torch
    import yaml  # noqa: F401
    import zarr  # noqa: F401

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    av.logging.set_level(None)


def attempt(case: files.Case) -> dict[str, Any]:
    """Read one input in a child: how that ended, how long it took, and how much memory the child had at most."""
    answer, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(answer)
        _child(case, said)
    os.close(said)
    with open(answer, "rb") as pipe:
        in_time = bool(select.select([pipe], [], [], WAIT_S)[0])  # something, or the end, comes in time
        if not in_time:
            os.kill(pid, signal.SIGKILL)
        text = pipe.read().decode("utf-8", "replace")
    _, status, usage = os.wait4(pid, 0)
    end = text.partition("\n")[0]
    if not in_time:
        end = "timeout"
    elif os.WIFSIGNALED(status):
        end = f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    elif not end:
        end = f"exit {os.waitstatus_to_exitcode(status)}"
    return {
        "end": end,
        "seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "bytes": usage.ru_maxrss << 10,
        "text": text.partition("\n")[2],
    }


def _child(case: files.Case, said: int) -> None:
    with open("/proc/self/statm", encoding="utf-8") as statm:
        space, resident = (int(pages) * resource.getpagesize() for pages in statm.read().split()[:2])
    resource.setrlimit(resource.RLIMIT_AS, (space + MEMORY_BYTES - resident,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(SECONDS),) * 2)
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silence, descriptor)
    end = "raised"
    text = ""
    try:
        files.refusing(case.read, *case.about)
        end = "answered"
    except BaseException as error:  # noqa: BLE001 - told to the parent
        end = f"raised {type(error).__name__}"
        text = "".join(traceback.format_exception(error, limit=-6))[-3000:]
    os.write(said, f"{end}\n{text}".encode("utf-8", "replace"))
    os._exit(0)


def run(numbers: Iterable[int], seed: int, folder: Path, only: str | None) -> Iterator[dict[str, Any]]:
    """What became of the inputs with these numbers, of all kinds in turn or of one."""
    seeds, arena, bait = folder / "seeds", folder / "arena", Bait(folder / "trap" / "canary")
    for path in (seeds, arena, bait.canary.parent):
        path.mkdir(parents=True)
    makers = kinds_of_input(seeds)
    names = [name for name in makers if only in (None, name)]
    warm_up()
    around = _listing(folder)
    for number in numbers:
        kind, place = names[number % len(names)], arena / str(number)
        place.mkdir()
        line: dict[str, Any] = {"kind": kind, "number": number}
        try:
            case = makers[kind](Random(f"{seed} {kind} {number}"), place, bait)
            line |= attempt(case)
        except Exception:  # noqa: BLE001 - the maker of an input is at fault, and the test says so
            line |= {"end": "not made", "text": traceback.format_exc()[-3000:], "seconds": 0.0, "bytes": 0}
        line["executed"] = os.listdir(bait.canary.parent) != [] or _listing(folder) != around
        line["finding"] = finding(line)
        yield line
        for left in (*bait.canary.parent.iterdir(),):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()
        if not line["finding"]:
            shutil.rmtree(place, ignore_errors=True)


def _listing(folder: Path) -> list[str]:
    return sorted(f"{place}/{name}" for place in (".", "seeds") for name in os.listdir(folder / place))


def finding(line: dict[str, Any]) -> str:
    """What is wrong with how an input ended; empty where nothing is."""
    if line["executed"]:
        return "something of it was executed, or written elsewhere"
    if line["kind"] in MEDIA and line["end"] in {f"signal {crash.name}" for crash in CRASHES}:
        return ""  # in a worker that decodes this is one sample that fails
    if line["end"] != "answered":
        return str(line["end"])
    if line["bytes"] > MEMORY_BYTES:
        return f"{line['bytes'] >> 20} MiB"
    return f"{line['seconds']} s" if line["seconds"] > SECONDS else ""


def try_mutants(seed: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Each broken version, and the first finding among a few hundred inputs of its kind."""
    from hostile_mutants import MUTANTS, TRIES

    for number, (name, (kind, broken)) in enumerate(MUTANTS.items()):
        with broken():
            for line in run(range(TRIES), seed, folder / str(number), kind):
                if line["finding"] and line["end"] != "not made":
                    yield {"mutant": name, "finding": line["finding"], "inputs": line["number"] + 1}
                    break
            else:
                yield {"mutant": name, "finding": "", "inputs": TRIES}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kind")
    parser.add_argument("--number", type=int, help="one of them again")
    parser.add_argument("--mutants", action="store_true", help="broken versions, one after the other")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    if arguments.mutants:
        lines = try_mutants(arguments.seed, arguments.folder)
    else:
        numbers = range(arguments.count) if arguments.number is None else (arguments.number,)
        lines = run(numbers, arguments.seed, arguments.folder, arguments.kind)
    for line in lines:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

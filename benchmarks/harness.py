"""What every benchmark shares: its options, the machine, the clock, and the committed result."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(os.environ.get("BENCH_RESULTS") or Path(__file__).parent / "results")
PACKAGES = (
    "featurestore", "numpy", "zarr", "numcodecs", "google-crc32c", "av", "torch", "open_clip_torch", "transformers",
    "tensorstore", "zarrs", "lmdb", "h5py", "safetensors", "pyarrow", "datasets", "diskcache", "joblib",
    "litdata", "pylance", "webdataset",
)  # fmt: skip
_began = time.perf_counter()
_load_before = os.getloadavg()[0]


def _busy_s() -> float | None:
    """CPU seconds of the whole machine since it started, idle and waiting for a disk left out; None but on Linux."""
    try:
        fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, *interrupts = map(int, fields)
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


_busy_before = _busy_s()


def options(doc: str | None, **numbers: tuple[int, int]) -> argparse.Namespace:
    """Options of a benchmark: for each number (full, quick), and --quick, which takes the second ones."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of everything: does it run, not how fast is it")
    for name, (full, quick) in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=None, help=f"default {full}, with --quick {quick}")
    parser.add_argument("--dir", type=Path, default=None, help="where to make the files that are read and written")
    chosen = parser.parse_args()
    for name, (full, quick) in numbers.items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, quick if chosen.quick else full)
    return chosen


@contextmanager
def scratch(under: Path | None = None) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=under) as name:
        yield Path(name)


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system, versions, the load when the program began and now, and who used the cores.

    `others_cores`: how many cores programs other than this one kept busy meanwhile.
    """
    model, memory_gib = platform.processor(), None
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        memory_gib = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (OSError, StopIteration, ValueError):
        pass  # not Linux
    taken, own, busy = time.perf_counter() - _began, cpu_seconds(), _busy_s()
    others = None if busy is None or _busy_before is None else max(0.0, busy - _busy_before - own) / taken
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": memory_gib,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "versions": versions,
        "gpu": _gpu(),
        "load_before": round(_load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "cpu_s": round(own, 1),
        "others_cores": None if others is None else round(others, 2),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _gpu() -> str | None:
    torch = sys.modules.get("torch")  # not imported for this alone
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None


def cpu_seconds() -> float:
    """User and system time of this process, and of its children: those that ended, and those that are alive."""
    import resource  # not on every platform

    import psutil

    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    spent = sum(each.ru_utime + each.ru_stime for each in used)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended this moment
            times = process.cpu_times()
            spent += times.user + times.system
    return spent


def seconds(call: Callable[[], Any]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleaved(
    calls: dict[str, Callable[[], Any]], rounds: int, after: Callable[[], Any] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of each call in each round; rivals take turns, so that a busy moment hits all of them.

    `after` each call something may be cleared away, off the clock.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(seconds(call))
            after()
    return taken


def spread(values: Iterable[float], scale: float = 1.0) -> dict[str, float]:
    """Median, least and p90, times `scale`."""
    ordered = sorted(values)
    p90 = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    return {
        "median": round(statistics.median(ordered) * scale, 4),
        "min": round(ordered[0] * scale, 4),
        "p90": round(p90 * scale, 4),
    }


def dropped(folder: Path) -> None:
    """Have the contents of all files out of the page cache; pages that were not written back yet would stay."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def save(name: str, result: dict[str, Any]) -> Path:
    """Write results/<name>.json, or into $BENCH_RESULTS."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    head = {"command": command, "took_s": round(time.perf_counter() - _began), "machine": machine()}
    path.write_text(json.dumps({**head, **result}, indent=1, ensure_ascii=False) + "\n")
    return path


def table(rows: list[dict[str, Any]]) -> str:
    """Aligned text; columns are the keys of all rows, in the order in which they come."""
    head = list(dict.fromkeys(key for row in rows for key in row))
    cells = [head] + [[f"{row.get(key, '')}" for key in head] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)

"""Every benchmark one after the other, then the page.

    python benchmarks/run.py [--quick] [NAME...]

Results go to benchmarks/results and the page to docs/; with --quick both go to build/benchmarks, because numbers of
a quick run are not worth keeping.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
QUICK = HERE.parent / "build" / "benchmarks"
# The one whose numbers a busy machine spoils most comes first, while it is still cool.
NAMES = (
    "reads", "loaders", "shapes", "writes", "startup", "scale", "hit_rates", "decoding", "extraction",
    "inference_modes", "inference_loop", "loading", "importing", "rounding",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three minutes: does it all run?")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default all: {', '.join(NAMES)}")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    environment = {**os.environ, **({"BENCH_RESULTS": str(QUICK)} if chosen.quick else {})}
    failed, began = [], time.perf_counter()
    for name in chosen.names or NAMES:
        print(f"== {name}", flush=True)
        start = time.perf_counter()
        command = [sys.executable, str(HERE / f"{name}.py"), *(["--quick"] if chosen.quick else [])]
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.append(name)
        print(f"== {name}: {time.perf_counter() - start:.0f} s\n", flush=True)
    where = ["--results", str(QUICK), "--page", str(QUICK / "benchmarks.md")] if chosen.quick else []
    subprocess.run([sys.executable, str(HERE / "render.py"), *where], check=True)
    print(f"== all: {(time.perf_counter() - began) / 60:.1f} minutes", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

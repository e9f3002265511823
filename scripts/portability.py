"""`make portability`: the tests where the machine is another one, a run for each setting, and a table at the end.

    .venv/bin/python scripts/portability.py [SETTING...] [--limit 5]

A setting is run with the test files that it can change, for at most --limit minutes.  One that this machine cannot
give is "not run", with the reason, and never counts as passed.  The output of each run is in .portability/, as is what
is made once: a locale, a clock, environments of other Pythons.  The exit code is 1 where a test failed.
`.ci/run` has the settings that go together.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from sum_up import outcome_of

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".portability"
sys.path.insert(0, str(ROOT / "tests"))

from interpreters import interpreter  # noqa: E402 - of the tests, which look for old Pythons as well


class NotHere(Exception):
    """This machine cannot give the setting; why."""


@dataclass(frozen=True)
class Setting:
    """One way in which a machine differs.

    files        patterns of the test files that it can change, below tests/
    wrapped      a command that runs its arguments in the setting
    environment  variables of the setting
    options      of pytest
    python       the interpreter; makes it where it has to be made, raises NotHere where that cannot be
    each         a process for each file: what changes with time is as it should be when a file begins
    prepare      (environment, wrapped) that must be made first; raises NotHere
    """

    files: str
    wrapped: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    python: Callable[[], str] = lambda: sys.executable
    each: bool = False
    prepare: Callable[[], tuple[Mapping[str, str], tuple[str, ...]]] = lambda: ({}, ())

    @property
    def paths(self) -> list[str]:
        tests = ROOT / "tests"
        found = [sorted(tests.glob(pattern)) for pattern in self.files.split()]
        if empty := [pattern for pattern, paths in zip(self.files.split(), found, strict=True) if not paths]:
            raise SystemExit(f"no test file is called {', '.join(empty)}")
        return [str(path.relative_to(ROOT)) for paths in found for path in paths]


# -- settings that have to be made -------------------------------------------------------------------


def chinese() -> tuple[Mapping[str, str], tuple[str, ...]]:
    """A locale whose text is not UTF-8, in a folder of our own."""
    name = "zh_CN.GB18030"
    if not (KEPT / "locale" / name).is_dir():
        (KEPT / "locale").mkdir(exist_ok=True)
        made("localedef", "-i", "zh_CN", "-f", "GB18030", str(KEPT / "locale" / name), hint="locales")
    return {"LOCPATH": str(KEPT / "locale"), "LANG": name, "LC_ALL": name}, ()


def moved_clock(date: str) -> Callable[[], tuple[Mapping[str, str], tuple[str, ...]]]:
    """The clock of the machine and of its files at a date; compiled files of Python are by it, and so kept apart."""

    def prepare() -> tuple[Mapping[str, str], tuple[str, ...]]:
        library = KEPT / "moved_clock.so"
        made("cc", "-shared", "-fPIC", "-o", str(library), str(ROOT / "scripts" / "moved_clock.c"), "-ldl", hint="gcc")
        moved_s = int(time.mktime(time.strptime(date, "%Y-%m-%d")) - time.time())
        apart = {"PYTHONPYCACHEPREFIX": str(KEPT / "compiled" / date)}
        return {"LD_PRELOAD": str(library), "CLOCK_MOVED_S": str(moved_s), **apart}, ()

    return prepare


def just_started() -> tuple[Mapping[str, str], tuple[str, ...]]:
    """A machine that is up for 30 seconds."""
    back = 30 - int(time.clock_gettime(time.CLOCK_BOOTTIME))
    return {}, ("unshare", "--time", f"--monotonic={back}", f"--boottime={back}", "--fork")


def javascript() -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Another language's reader of Zarr, in a folder of our own."""
    folder = KEPT / "javascript"
    library = folder / "node_modules" / "zarrita" / "dist" / "src" / "index.js"
    if not library.exists():
        made("npm", "install", "--silent", "--prefix", str(folder), f"zarrita@{ZARRITA}", hint="npm")
    return {"FEATURESTORE_ZARRITA": str(library)}, ()


# A /dev of our own with everything but shm: to take it away from the real one would take it from everybody.
NO_SHARED_MEMORY = """
set -e
dev=$(mktemp -d)
mount -t tmpfs none "$dev"
for name in null zero full random urandom tty; do : > "$dev/$name"; mount --bind "/dev/$name" "$dev/$name"; done
mkdir "$dev/pts"; mount --bind /dev/pts "$dev/pts"; ln -s pts/ptmx "$dev/ptmx"
ln -s /proc/self/fd "$dev/fd"
for number in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${number%:*}" "$dev/${number#*:}"; done
mount --rbind "$dev" /dev
exec "$@"
"""


def processor(ability: str) -> Callable[[], tuple[Mapping[str, str], tuple[str, ...]]]:
    """Kernels for the abilities of another processor, as far as this one has them."""

    def prepare() -> tuple[Mapping[str, str], tuple[str, ...]]:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split() if Path("/proc/cpuinfo").exists() else []
        needed = {"avx2": "avx2", "avx512": "avx512f"}.get(ability)
        if needed and needed not in flags:
            raise NotHere(f"this processor has no {needed}")
        return {"ATEN_CPU_CAPABILITY": ability}, ()

    return prepare


def keeping_python(version: str) -> Callable[[], str]:
    """An environment of that Python with the newest of what the package needs to keep features, and no torch."""

    def python() -> str:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        plain = [tool for tool in project["optional-dependencies"]["dev"] if tool.startswith(PLAIN_TOOLS)]
        own, stamp = KEPT / version / "bin" / "python", KEPT / version / "stamp"
        needed = "\n".join([*project["dependencies"], *plain])
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != needed:
            base = interpreter(version)
            if base is None:
                raise NotHere(f"no Python {version} was found")
            made(base, "-m", "venv", "--clear", str(KEPT / version))
            made(str(own), "-m", "pip", "install", "--quiet", "--editable", str(ROOT), *plain)
            stamp.write_text(needed, encoding="utf-8")
        return str(own)

    return python


def made(*command: str, hint: str = "") -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        raise NotHere(f"{command[0]} is not installed" + (f": apt-get install {hint}" if hint else "")) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise NotHere(f"`{shlex.join(command)[:60]}...` failed: {last}" + (f" (Debian: {hint})" if hint else ""))


# -- the table ---------------------------------------------------------------------------------------

TOLD = "test_bad_input.py test_cli*.py test_config_explain.py test_demo.py test_errors.py"  # what people read
GIVEN = "test_sample.py test_untrusted_io_*.py test_datasets.py test_merfactory.py test_affectgpt_import.py"
KEEPING = (
    "test_storage_*.py test_features.py test_fill.py test_forged.py test_format.py test_key.py test_provenance.py"
    " test_packs.py test_quality.py test_recipe.py test_stats.py test_store.py test_xarray_engine.py"
)
RESULTS = "affect_infer/test_results.py affect_infer/test_resume.py affect_infer/test_affect_cli.py"
NUMBERS = "test_encoders*.py affect_infer/test_heads.py affect_infer/test_kv_cache.py affect_infer/test_model.py"
AGED = (  # whose answer depends on how old something is
    "test_cli_doctor.py test_cli_maintenance.py test_encoders_digest.py test_media_pool.py test_storage_failures.py"
    " test_storage_locks.py test_storage_maintenance.py test_storage_reader.py test_storage_writer.py test_store.py"
    " affect_infer/test_ahead.py affect_infer/test_results.py torture/test_clocks.py torture/test_defects.py"
    " torture/test_network.py torture/test_system_calls.py"
)
DATED = f"{AGED} test_datasets.py test_affectgpt_export.py affect_infer/test_inspection.py"
MEMORY = (  # without processes that share locks: those end in one line there, which test_media_pool.py has
    "test_cli_doctor.py test_cli_listing.py test_store.py test_storage_locks.py torture/test_defects.py"
    " torture/test_forks.py"
)
ZARRITA = "0.7.5"
# That tests without torch are run with.
PLAIN_TOOLS = ("pytest>", "pytest-timeout", "pytest-xdist", "hypothesis", "tensorstore", "vermin", "xarray")
TWO = ("-n", "2", "--dist", "loadfile")

SETTINGS: dict[str, Setting] = {
    "random-order": Setting(f"{KEEPING} {GIVEN} test_encoders_registry.py {RESULTS}", options=("-p", "randomly", *TWO)),
    "gb18030": Setting(f"{TOLD} {GIVEN} {RESULTS} test_docs.py test_format.py", options=TWO, prepare=chinese),
    "no-dev-shm": Setting(MEMORY, wrapped=("unshare", "--mount", "sh", "-c", NO_SHARED_MEMORY, "sh"), options=TWO),
    "no-stderr": Setting(
        f"{TOLD} test_media_audio.py test_media_video.py {RESULTS}",
        wrapped=("sh", "-c", 'exec "$@" 2>&-', "sh"),
        options=(
            "--capture=no",
            "-p",
            "no:faulthandler",
            "-o",
            "strict_config=false",
            "-W",
            "ignore::pytest.PytestConfigWarning",
        ),
    ),
    "up-for-30-s": Setting(AGED, prepare=just_started, each=True),
    "in-1981": Setting(DATED, prepare=moved_clock("1981-06-01"), options=TWO),
    "in-2100": Setting(DATED, prepare=moved_clock("2100-06-01"), options=TWO),
    **{
        f"{ability}-{threads}": Setting(
            NUMBERS, environment={"OMP_NUM_THREADS": str(threads)}, prepare=processor(ability)
        )
        for ability in ("default", "avx2", "avx512")
        for threads in (1, 2, 4)
    },
    **{
        f"python-{version}": Setting(
            f"{KEEPING} test_affectgpt_export.py test_untrusted_io_files.py",
            python=keeping_python(version),
            options=TWO,
        )
        for version in ("3.12", "3.13")
    },
    "javascript": Setting("test_javascript.py", prepare=javascript),
    "copied-reader": Setting(
        "test_storage_reader_copied.py test_reader_package.py", options=("-k", "old_environments or in_each_python")
    ),
}


@dataclass
class Row:
    """What came of a setting."""

    name: str
    said: str = ""
    seconds: float = 0.0
    files: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        counts = "  ".join(f"{self.counts[each]:7}" for each in ("passed", "failed", "skipped"))
        return f"{self.name:14} {self.files:5}  {self.seconds / 60:7.1f}  {counts}  {self.said}"


HEAD = f"{'setting':14} files  minutes   passed   failed  skipped"


def run(name: str, setting: Setting, limit_s: float) -> Row:
    """One setting: its test files, in one process or in one each."""
    row = Row(name, files=len(setting.paths))
    start = time.monotonic()
    log = KEPT / f"{name}.log"
    log.unlink(missing_ok=True)
    try:
        python = setting.python()
        made_environment, made_wrapped = setting.prepare()
        probe = subprocess.run([*made_wrapped, *setting.wrapped, "true"], capture_output=True, text=True, check=False)
        if probe.returncode:
            raise NotHere(f"`{(made_wrapped + setting.wrapped)[0]}`: {probe.stderr.strip() or probe.returncode}")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **setting.environment, **made_environment}
        for files in [[path] for path in setting.paths] if setting.each else [setting.paths]:
            xml = KEPT / f"{name}.xml"
            xml.unlink(missing_ok=True)
            wrapped = (setting.prepare()[1] if setting.each else made_wrapped) + setting.wrapped
            command = [*wrapped, python, "-m", "pytest", "-v", "-m", "not serial", "--junit-xml", str(xml)]
            command += [*setting.options, *files]
            left_s = limit_s - (time.monotonic() - start)
            if not completed(command, environment, log, left_s):
                row.counts["failed"] += 1
                row.said = f"did not end within {limit_s / 60:g} minutes"
                break
            row.counts.update(outcomes(xml))
    except NotHere as error:
        row.said = f"not run: {error}"
    row.seconds = time.monotonic() - start
    if not row.counts and not row.said:
        row.counts["failed"], row.said = 1, f"FAILED: no test ran, see {os.path.relpath(log, ROOT)}"
    if row.counts["skipped"] and not row.counts["passed"] + row.counts["failed"]:
        row.said = "not run: everything was skipped"
    if not row.said:
        row.said = f"FAILED, see {os.path.relpath(log, ROOT)}" if row.counts["failed"] else "passed"
    return row


def completed(command: list[str], environment: dict[str, str], log: Path, limit_s: float) -> bool:
    """Whether the run ended in time; its processes are ended where it did not."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            process.wait(max(1.0, limit_s))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return False
    return True


def outcomes(xml: Path) -> Counter[str]:
    try:
        cases = ElementTree.parse(xml).getroot().iter("testcase")
        return Counter(outcome_of(case)[0] for case in cases)
    except (OSError, ElementTree.ParseError):
        return Counter(failed=1)  # it ended before it could write one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", metavar="SETTING", help=f"default all: {', '.join(SETTINGS)}")
    parser.add_argument("--limit", type=float, default=5.0, help="minutes that one may take")
    parser.add_argument("--files", action="store_true", help="only say which test files each setting is run with")
    chosen = parser.parse_args()
    if unknown := set(chosen.settings) - set(SETTINGS):
        parser.error(f"no setting is called {', '.join(sorted(unknown))}; there are {', '.join(SETTINGS)}")
    names = chosen.settings or list(SETTINGS)
    if chosen.files:
        for name in names:
            print(f"{name}: {' '.join(SETTINGS[name].paths)}\n")
        return
    KEPT.mkdir(exist_ok=True)
    print(HEAD, flush=True)
    rows = []
    for name in names:
        rows.append(run(name, SETTINGS[name], chosen.limit * 60))
        print(rows[-1], flush=True)
    total = sum((row.counts for row in rows), Counter[str]())
    not_run = sum(row.said.startswith("not run") for row in rows)
    print(f"\n{sum(row.seconds for row in rows) / 60:.1f} minutes; {not_run} of {len(rows)} settings not run")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    sys.exit(bool(total["failed"]))


if __name__ == "__main__":
    main()

"""scripts/test.sh runs all of its parts whatever comes of the first, and sums them up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PASSES = "def test_it(): pass\n"
FAILS = "def test_it(): assert 0\n"
ERRS = "import pytest\n@pytest.fixture\ndef broken(): raise OSError\ndef test_it(broken): pass\n"
SKIPS = "import pytest\ndef test_it(): pytest.skip('no such disk')\n"
ENDS = "import os\ndef test_it(): os._exit(3)\n"
ALONE = "import pytest\npytestmark = pytest.mark.serial\n"


def run(root: Path, tests: dict[str, str]) -> tuple[int, str, list[str]]:
    """(exit code, output, its lines from the summary on) of test.sh in a project that has only these tests."""
    (root / "scripts").mkdir()
    (root / ".venv" / "bin").mkdir(parents=True)
    python = root / ".venv" / "bin" / "python"
    python.write_text(f"#!/bin/sh\nexec '{sys.executable}' \"$@\"\n")
    python.chmod(0o755)
    for name in ("test.sh", "sum_up.py"):
        shutil.copy(ROOT / "scripts" / name, root / "scripts")
    for name, text in {"torture/test_none.py": "", **tests}.items():
        path = root / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    # Only the plugins that test.sh has options of: others take seconds to import, in every process.
    (root / "pytest.ini").write_text("[pytest]\nmarkers = serial\naddopts = -p xdist.plugin -p pytest_timeout\n")
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = ["/bin/sh", str(root / "scripts" / "test.sh")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("together: "))
    return done.returncode, done.stdout + done.stderr, lines[first:]


def test_a_failing_first_part_hides_no_other(tmp_path: Path) -> None:
    code, said, told = run(
        tmp_path,
        {"test_a.py": FAILS, "test_b.py": ALONE + ERRS, "torture/test_c.py": PASSES, "torture/test_d.py": SKIPS},
    )
    assert code == 1, said
    assert [line.split(": ")[0] for line in told[:3]] == ["together", "alone", "torture"]
    assert all(", 1 tests" in line for line in told[:2])
    assert "     1  no such disk" in told
    assert told[-1] == "1 passed, 2 failed, 1 skipped"


def test_all_is_well_also_without_tests_of_a_kind(tmp_path: Path) -> None:
    code, said, told = run(tmp_path, {"test_a.py": PASSES})
    assert code == 0, said
    assert told[-1] == "1 passed, 0 failed, 0 skipped"


def test_a_part_that_was_ended_is_a_failure(tmp_path: Path) -> None:
    """And a later part decides as the first does."""
    code, said, told = run(tmp_path, {"test_a.py": PASSES, "test_b.py": ALONE + ENDS})
    assert code == 1, said
    assert "alone: no result; pytest was ended before it could write one" in told
    assert told[-1] == "1 passed, 1 failed, 0 skipped"


def test_a_setting_in_which_no_test_ran_is_not_passed(tmp_path: Path) -> None:
    """An option that a plugin does not know ends pytest before the first one, with a report of no tests."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import pathlib, portability; "
        "portability.KEPT = pathlib.Path(sys.argv[2]); "
        "print(portability.run('none', portability.Setting('test_key.py', options=('-k', 'is_called_so')), 60))"
    )
    command = [sys.executable, "-c", code, str(ROOT / "scripts"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "FAILED: no test ran" in done.stdout, done.stderr


def test_the_files_of_every_setting_are_there() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "portability.py"), "--files"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "random-order: " in done.stdout

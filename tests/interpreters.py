"""The other Pythons of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest


def interpreter(version: str) -> str | None:
    """One of that version, e.g. "3.8", that runs: on the PATH, beside this one, or of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"))
    folders = (Path(sys.base_prefix).parent, pyenv / "versions")
    managed = [str(path) for folder in folders for path in sorted(folder.glob(f"{version}.*/bin/python"))]
    for path in (shutil.which(f"python{version}"), *managed):
        # Run it: a version manager's shim exists for versions that are not active, and fails.
        if path is not None:
            command = [path, "-c", "import sys; print(sys.version)"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0 and done.stdout.startswith(f"{version}."):
                return path
    return None


def packages_for(version: str, requirements: tuple[str, ...], kept: Path) -> Path:
    """A folder with packages of that Python, as `--target` makes it: fetched once, and kept in `kept`.

    Skips the test where no index can be reached.
    """
    folder = kept / "-".join([version, *(text.replace("==", "-") for text in requirements)])
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=kept) as made:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
            command += ["--no-deps", "--only-binary", ":all:", "--python-version", version]
            command += ["--target", f"{made}/packages"]
            # An empty constraint switches off one of the user's own settings, which could contradict this.
            environment = {**os.environ, "PIP_CONSTRAINT": ""}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                why = done.stderr.strip().splitlines()[-1]
                pytest.skip(f"{' and '.join(requirements)} for Python {version} cannot be had: {why}")
            os.rename(f"{made}/packages", folder)
    return folder

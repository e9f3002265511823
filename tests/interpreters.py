"""The other Pythons of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


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

"""The recorder names places in the package, wherever the project lies and whatever its folder is called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import recorder

import featurestore

# Also through a function of the tests' own, as every test that records has.
PROGRAM = """
import sys
from pathlib import Path
from recorder import Recorder
import numpy as np
from featurestore import FeatureStore

def put(store):
    store.put_many("a/frame/X/uniform/1", ["one"], np.ones((1, 1, 4), np.float32), recipe={"x": 1})

root = Path(sys.argv[1])
root.mkdir(parents=True)
with Recorder(root) as recorded:
    put(FeatureStore(root / "store"))
print("\\n".join(recorded.recording.sites))
"""


def sites(checkout: Path, folder: Path) -> list[str]:
    """Where a put calls fsync, as recorded by a copy of the project in `checkout`."""
    tests = checkout / "tests" / "torture"
    shutil.copytree(Path(featurestore.__file__).parent, checkout / "featurestore")
    tests.mkdir(parents=True)
    shutil.copy(recorder.__file__, tests)
    (tests / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, str(tests / "program.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_name_of_the_checkout_is_no_matter(tmp_path: Path) -> None:
    told = sites(tmp_path / "anything", tmp_path / "here")
    assert len(told) >= 3
    for name in ("featurestore", "featurestore/featurestore"):
        assert sites(tmp_path / "clones" / name, tmp_path / "there" / name.replace("/", "-")) == told

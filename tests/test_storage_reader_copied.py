"""`reader.py`, copied alone into an environment without the package, reads a store.

The oldest such environments, Python 3.8 and 3.10 with numpy 1.23.5, are tried wherever those interpreters are found, on
the PATH or among pyenv's; numpy is fetched once and kept in pytest's cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from interpreters import interpreter, packages_for

import featurestore.storage.reader
from featurestore.store import FeatureStore

KEY = "mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8"
IDS = [f"sample_{number:08d}" for number in range(20)]
OLD_NUMPY = "numpy==1.23.5"
READER = Path(featurestore.storage.reader.__file__)

# Runs in the folder that holds nothing but reader.py; `expected.npy` was written with np.save.
PROGRAM = """
import sys
sys.modules["featurestore"] = None          # even where it is installed
if {unchecked}:
    sys.modules["google_crc32c"] = None
sys.path[:0] = [".", *{packages!r}]
import warnings
import numpy as np
from reader import open_key
expected = np.load("expected.npy")
ids = ["sample_%08d" % number for number in range(20)]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    frames = open_key({store!r}, {key!r})
    for id, values in zip(ids, expected):
        found = frames.get(id)
        assert found.dtype == np.float32 and found.flags.writeable and found.tobytes() == values.tobytes(), id
    assert frames.get_many(ids[::-1]).tobytes() == expected[::-1].tobytes()
    assert frames.get("nobody") is None
    assert frames.ids() == ids
print(len([w for w in caught if "unchecked" in str(w.message)]), "zarr" in sys.modules)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two segments, so that more than one file is looked into."""
    root = tmp_path_factory.mktemp("store")
    values = np.random.default_rng(0).standard_normal((20, 8, 768), dtype=np.float32)
    store = FeatureStore(root)
    store.put_many(KEY, IDS[:12], values[:12], recipe={"x": 1})
    store.put_many(KEY, IDS[12:], values[12:], recipe={"x": 1})
    np.save(root / "expected.npy", values)
    return root


def read(python: str, store: Path, folder: Path, unchecked: bool, packages: tuple[str, ...] = ()) -> str:
    shutil.copy(READER, folder / "reader.py")
    shutil.copy(store / "expected.npy", folder)
    program = PROGRAM.format(unchecked=unchecked, store=str(store), key=KEY, packages=packages)
    # -I: neither the user's site-packages nor PYTHONPATH.
    command = [python, "-I", "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_reader_reads_a_store_on_its_own(store: Path, tmp_path: Path) -> None:
    assert read(sys.executable, store, tmp_path, unchecked=False) == "0 False"


def test_without_google_crc32c_it_warns_once(store: Path, tmp_path: Path) -> None:
    assert read(sys.executable, store, tmp_path, unchecked=True) == "1 False"


@pytest.mark.parametrize("version", ["3.8", "3.10"])
def test_old_environments_read_it(
    store: Path, tmp_path: Path, version: str, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    # Without a cache, e.g. under `-p no:cacheprovider`, it is fetched each time.
    cache = getattr(pytestconfig, "cache", None)
    kept = cache.mkdir("old-numpy") if cache is not None else tmp_path_factory.mktemp("old-numpy")
    packages = str(packages_for(version, (OLD_NUMPY,), kept))
    # google-crc32c is not among what they have.
    assert read(python, store, tmp_path, unchecked=False, packages=(packages,)) == "1 False"


def test_its_minimum_python_is_at_most_3_8() -> None:
    vermin = shutil.which("vermin", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if vermin is None:
        pytest.skip("vermin is not installed")
    done = subprocess.run([vermin, "--no-tips", "-t=3.8-", str(READER)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_changed_bit_is_noticed_by_the_copy(store: Path, tmp_path: Path) -> None:
    """The mutant: one bit of one row, in a copy of the store."""
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    shard = next(copy.rglob("c.0.0.0"))
    raw = bytearray(shard.read_bytes())
    raw[100] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(AssertionError):
        read(sys.executable, copy, tmp_path, unchecked=False)

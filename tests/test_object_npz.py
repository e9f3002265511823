"""Objects in an `.npz`: numpy of any age finds the names that the pickle asks for."""

from __future__ import annotations

import io
import os
import pickletools
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from featurestore.datasets.label_npz import read_label_array
from featurestore.demo import write_dataset
from featurestore.object_npz import write_object_npz

# The text must not be taken for the name in front of it.
ANSWERS = {"s1": "happy, 安心", "s2": "cnumpy._core.multiarray\n", "s3": ""}
OLD = [path for path in os.environ.get("FEATURESTORE_OLD_PYTHONS", "").split(os.pathsep) if path]


def names_asked_for(path: Path) -> set[str]:
    """Of numpy's modules, in all members of the file."""
    found = set[str]()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            member = archive.read(name)
            for opcode, argument, _ in pickletools.genops(io.BytesIO(member[member.index(b"\n") + 1 :])):
                assert opcode.name != "STACK_GLOBAL", "its names would have to be looked for"
                if opcode.name == "GLOBAL":
                    found.add(str(argument).partition(" ")[0])
    return found


def test_what_is_written_is_read_by_numpy_and_by_our_reader(tmp_path: Path) -> None:
    write_object_npz(tmp_path / "a.npz", {"name2reason": ANSWERS, "none": {}})
    with np.load(tmp_path / "a.npz", allow_pickle=True) as loaded:
        assert loaded.files == ["name2reason", "none"]
        assert (loaded["name2reason"].shape, loaded["name2reason"].dtype) == ((), np.dtype(object))
        assert loaded["name2reason"].tolist() == ANSWERS
    assert read_label_array(tmp_path / "a.npz", "name2reason") == ANSWERS


def test_no_name_is_asked_for_that_older_numpy_lacks(tmp_path: Path) -> None:
    write_object_npz(tmp_path / "a.npz", {"name2reason": ANSWERS})
    assert names_asked_for(tmp_path / "a.npz") == {"numpy.core.multiarray", "numpy"}
    write_dataset(tmp_path / "demo")
    for path in (tmp_path / "demo").rglob("*.npz"):
        assert names_asked_for(path) == {"numpy.core.multiarray", "numpy"}, path


@pytest.mark.skipif(not OLD, reason="FEATURESTORE_OLD_PYTHONS names no interpreter")
@pytest.mark.parametrize("python", OLD)
def test_old_environments_read_it(tmp_path: Path, python: str) -> None:
    write_object_npz(tmp_path / "a.npz", {"name2reason": ANSWERS})
    program = "import numpy as np; print(ascii(np.load('a.npz', allow_pickle=True)['name2reason'].tolist()))"
    done = subprocess.run([python, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ascii(ANSWERS)), done.stderr

"""Headers of `.npy`: read as numpy writes them, bounded, and refused in half a sentence that each reader completes."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy

from featurestore.affectgpt.npy import read_npy
from featurestore.datasets.label_npz import read_label_array
from featurestore.errors import LegacyTreeError, ManifestError, MediaError
from featurestore.media import count_faces
from featurestore.untrusted_io.npy_header import HEADER_BYTES, read_npy_header

BOMB = b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little") + b"{}"
LITERAL = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"


def version_1(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


class Watched(io.BytesIO):
    """Remembers the most that was asked for at once."""

    most = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.most = max(self.most, 2**63 if size is None or size < 0 else size)
        return super().read(size)


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 3), "<f4"), np.zeros((), ">f8"), np.zeros((4, 0), bool), np.asfortranarray(np.ones((5, 2), "u1"))],
)
def test_a_header_is_read_as_numpy_writes_it(array: np.ndarray[Any, Any], version: tuple[int, int]) -> None:
    stream = io.BytesIO()
    stream.write(b"before")
    npy.write_array(stream, array, version)
    stream.seek(6)
    shape, fortran_order, dtype = read_npy_header(stream)
    assert (shape, dtype) == (array.shape, array.dtype)
    assert fortran_order == (array.ndim > 1 and not array.flags.c_contiguous)
    assert stream.read() == array.tobytes("A")  # it stands where the data begin


def test_what_a_header_says_is_not_judged_here() -> None:
    header = read_npy_header(io.BytesIO(version_1(LITERAL.replace("(2, 3)", "(-2, 10000000000000)"))))
    assert header.shape == (-2, 10**13)
    objects = io.BytesIO()
    np.save(objects, np.array([{}], object), allow_pickle=True)
    objects.seek(0)
    assert read_npy_header(objects).dtype.hasobject


REFUSED = {
    "nothing": (b"", "is empty"),
    "other bytes": (b"PK\x03\x04" + bytes(100), r"is not a \.npy file: the magic string is not correct"),
    "a cut": (version_1(LITERAL)[:30], r"is not a \.npy file: EOF"),
    "gigabytes": (BOMB, r"is not a \.npy file: EOF"),
    "no literal": (version_1("(" * 300), r"is not a \.npy file: \S"),
    "much text": (version_1("{" + " " * 20_000 + "}"), r"is not a \.npy file: Header info length .* is large[^\n]*$"),
    "a call": (version_1("__import__('os').mkdir('x')"), r"is not a \.npy file: malformed node"),
    "a long number": (version_1(LITERAL.replace("2", "9" * 5000)), r"is not a \.npy file: \S"),
    "version 3": (b"\x93NUMPY\x03\x00" + b"x" * 99, r"is \.npy version \(3, 0\), which no plain array needs"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_each_reader_refuses_it_in_the_same_words(tmp_path: Path, what: str) -> None:
    data, told = REFUSED[what]
    with pytest.raises(ValueError, match=f"^{told}"):
        read_npy_header(io.BytesIO(data))
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    with pytest.raises(LegacyTreeError, match=f"^{told}"):
        read_npy(path)
    with pytest.raises(MediaError, match=rf"a\.npy {told}"):
        count_faces(path)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", data)
    with pytest.raises(ManifestError, match=rf"label file .*a\.npz, array 'x': refused or unreadable: {told}"):
        read_label_array(tmp_path / "a.npz", "x")


def test_no_header_makes_it_ask_for_more_than_the_bound() -> None:
    watched = Watched(BOMB)
    with pytest.raises(ValueError, match="EOF"):
        read_npy_header(watched)
    assert watched.most == HEADER_BYTES
    believing = Watched(BOMB)  # numpy's own reader is the mutant
    npy.read_magic(believing)
    with pytest.raises(ValueError, match="EOF"):
        npy.read_array_header_2_0(believing)
    assert believing.most == 2**32 - 1

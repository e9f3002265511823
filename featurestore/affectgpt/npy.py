"""`.npy` files of unknown origin, read without running or believing anything in them."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from featurestore.errors import LegacyTreeError
from featurestore.untrusted_io.files import open_untrusted
from featurestore.untrusted_io.npy_header import read_npy_header

MAX_BYTES = 128 << 20  # of one sample, as in a store


@dataclass(frozen=True, slots=True)
class NpyFile:
    """An array, and how its file differs from the one that numpy writes for it now."""

    array: NDArray[np.generic]
    """C-contiguous, in its stored dtype"""
    header: bytes
    fortran_order: bool = False
    parts: tuple[str, ...] = ()
    """names of its files, where each of its frames is in one"""
    part_shape: tuple[int, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether header and array are all there is to the file."""
        return not self.fortran_order and self.header == npy_header(self.array.dtype, self.array.shape)


def read_npy(path: str | Path) -> NDArray[np.generic]:
    """The array in a `.npy` file, C-contiguous, in its stored dtype.  Errors as `read_npy_file`."""
    return read_npy_file(path).array


def read_npy_file(path: str | Path) -> NpyFile:
    """A `.npy` file as a whole.

    Raises LegacyTreeError for an object array (a pickle, which is never loaded), fields, and for a file whose size is
    not header + items x itemsize: half-written, or with something behind the data.  OSError as from `open_untrusted`.
    """
    with open_untrusted(path) as (stream, status):
        return parse_npy(stream, status.st_size)


def parse_npy(stream: BinaryIO, size: int) -> NpyFile:
    """The same of a stream of so many bytes that stands at its beginning."""
    try:
        shape, fortran_order, dtype = read_npy_header(stream)
    except ValueError as error:
        raise LegacyTreeError(str(error)) from error
    if dtype.hasobject:
        raise LegacyTreeError("holds Python objects (a pickle), which are never loaded")
    if dtype.fields or min(shape, default=0) < 0:
        raise LegacyTreeError(f"holds {dtype} {shape}, not a plain array")
    start = stream.tell()
    wanted = start + math.prod(shape) * dtype.itemsize
    if size != wanted:
        kind = "half-written" if size < wanted else "followed by something else"
        raise LegacyTreeError(f"is {kind}: {size} bytes, not the {wanted} of {dtype} {shape}")
    if size > MAX_BYTES:
        raise LegacyTreeError(f"is too large: {size} bytes, and a sample may have {MAX_BYTES}")
    stream.seek(0)
    header = stream.read(start)
    data = np.frombuffer(bytearray(stream.read()), dtype)
    array = data.reshape(shape, order="F" if fortran_order else "C")
    return NpyFile(np.ascontiguousarray(array).reshape(shape), header, fortran_order and array.ndim > 1)


@lru_cache(4096)
def npy_header(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """What numpy writes in front of a C-contiguous array of this dtype and shape."""
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
    return stream.getvalue()


def read_rows(folder: Path, names: Sequence[str], out: NDArray[np.generic], shape: tuple[int, ...]) -> list[int]:
    """Read files that all have one shape straight into the rows of `out`; the positions that could not be.

    out    (len(names), ...) C-contiguous; row i has as many bytes as an array of `shape` and out's dtype
    shape  what the header of each file must say

    The header is compared as bytes with what numpy writes for such an array, which is 8 times faster than parsing it.
    Whatever differs in any way (another shape, version, order, size) is left to `read_npy`.
    """
    expected = npy_header(out.dtype, shape)
    header, beyond = bytearray(len(expected)), bytearray(1)
    size = len(expected) + math.prod(shape) * out.dtype.itemsize
    view = out.reshape(-1).view(np.uint8).data
    row = size - len(expected)
    left = []
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # removed meanwhile
        return list(range(len(names)))
    try:
        for i, name in enumerate(names):
            try:
                file = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
            except OSError:
                left.append(i)
                continue
            try:
                count = os.readv(file, [header, view[i * row : (i + 1) * row], beyond])
            except OSError:
                count = -1
            finally:
                os.close(file)
            if count != size or header != expected:
                left.append(i)
    finally:
        os.close(directory)
    return left

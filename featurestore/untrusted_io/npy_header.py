"""The header of `.npy` data of unknown origin: what array is behind it, without believing or running any of it."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy

HEADER_BYTES = 1 << 16  # far beyond any header of a plain array


class NpyHeader(NamedTuple):
    """What a header says."""

    shape: tuple[int, ...]
    """numbers may be negative, or more than memory holds"""
    fortran_order: bool
    dtype: np.dtype[Any]
    """may have fields, or be of Python objects"""


def read_npy_header(stream: BinaryIO) -> NpyHeader:
    """The header of a stream that can go back, which then stands where the data begin.

    Raises ValueError, half a sentence without a name, for what is empty, no `.npy`, or of another version than 1 and 2.
    """
    start = stream.tell()
    # No more than this: a header may say that it has four gigabytes.
    head = io.BytesIO(stream.read(HEADER_BYTES))
    if not head.getbuffer():
        raise ValueError("is empty")
    try:
        version = npy.read_magic(head)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        header = read and NpyHeader(*read(head))
    # numpy's parser tokenizes the header and lets what that raises through, so almost anything can come.
    except Exception as error:
        why = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(f"is not a .npy file: {why}") from error
    if header is None:
        raise ValueError(f"is .npy version {version}, which no plain array needs")
    stream.seek(start + head.tell())
    return header

"""Files that are protected from root by their mode, as they are from anybody else."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_VERSION = 0x20080522
_READ_AND_WRITE_ANYWHERE = (1 << 1) | (1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
_Header = ctypes.c_uint32 * 2  # version, process
_Sets = ctypes.c_uint32 * 6  # twice effective, permitted, inheritable


@contextmanager
def rights_by_mode() -> Iterator[None]:
    """In this thread, and in threads that it starts, even root writes only where the mode of a file allows it.

    Another user would not do: the checkout and the folder of temporary files may be closed to him.
    """
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, before = _Header(_VERSION, 0), _Sets()
    if libc.capget(header, before):
        raise OSError(ctypes.get_errno(), "capget")
    less = _Sets(*before)
    less[0] &= ~_READ_AND_WRITE_ANYWHERE
    if libc.capset(header, less):
        raise OSError(ctypes.get_errno(), "capset")
    try:
        yield
    finally:
        libc.capset(header, before)

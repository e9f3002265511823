"""What decode workers run for `decoding.py`: pictures that cost nothing to make, and two ways of handing them over."""

from __future__ import annotations

from multiprocessing import shared_memory

import numpy as np
from numpy.typing import NDArray

PICTURES = (8, 224, 224, 3)


def pictures() -> NDArray[np.uint8]:
    return np.ones(PICTURES, np.uint8)


def pictures_in_shared_memory() -> str:
    """As a pool with shared memory would do it; whoever receives the name unlinks it."""
    block = shared_memory.SharedMemory(create=True, size=int(np.prod(PICTURES)))
    np.ndarray(PICTURES, np.uint8, block.buf)[:] = pictures()
    block.close()
    return block.name

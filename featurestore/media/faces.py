"""Face crops that OpenFace aligned, kept as one `.npy` per video: uint8 (T, height, width, 3).

The usual script (`cv2.imread` of OpenFace's bitmaps, `np.save`) writes blue first, and AffectGPT hands the
rows to its encoder as they are, so its checkpoints have only ever seen swapped colours.  Rows keep the
order of the file here too; the recipe says so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import MediaError, MissingPackageError
from featurestore.media.source import check_unchanged, file_source, opened_file
from featurestore.untrusted_io.npy_header import read_npy_header

MAX_PIXELS = 1 << 24  # of a crop; OpenFace makes 112 x 112


@dataclass(frozen=True)
class FaceIndex:
    """What the header of a face file tells."""

    path: Path
    total: int
    """crops in the file; row numbers are 0 to total - 1"""
    size: tuple[int, int]
    """(height, width) of a crop"""
    offset: int
    """bytes before the first crop"""
    source: dict[str, Any]
    """{path, size, mtime_ns, sha256}"""


def face_recipe(size: tuple[int, int]) -> dict[str, Any]:
    """What decides pixels besides the row number."""
    return {"resize": "cv2.resize, INTER_LINEAR, squashed", "size": list(size), "face_color": "bgr_as_rgb"}


def count_faces(path: str | Path) -> FaceIndex:
    """Read and check the header.  Nothing in the file is ever unpickled.

    Raises MediaError if the file is missing, is no `.npy` of uint8 (T, height, width, 3), holds no crops, or
    is shorter or longer than its header says.
    """
    path = Path(path)
    with opened_file(path) as (file, status):
        try:
            shape, fortran_order, dtype = read_npy_header(file)
        except ValueError as error:
            raise MediaError(f"{path} {error}", path) from error
        offset = file.tell()
    if fortran_order and len(shape) > 1:
        raise MediaError(f"{path} is in Fortran order; save it with np.ascontiguousarray", path)
    if shape[:1] == (0,):
        raise MediaError(f"{path} holds no faces: OpenFace found none in the video", path)
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or min(shape) < 1:
        raise MediaError(f"{path} holds {dtype} {shape}, not uint8 (T, height, width, 3)", path)
    if shape[1] * shape[2] > MAX_PIXELS:
        raise MediaError(
            f"{path} holds crops of {shape[1]} x {shape[2]}, and more than {MAX_PIXELS} pixels are not read", path
        )
    expected = offset + int(np.prod(shape, dtype=object))
    if status.st_size != expected:
        raise MediaError(
            f"{path} has {status.st_size} bytes, but its header announces {expected}: it is cut off or damaged; "
            "copy or make it again",
            path,
        )
    # Last, because it reads the whole file.
    return FaceIndex(path, shape[0], (shape[1], shape[2]), offset, file_source(path))


def read_faces(
    index: FaceIndex, indices: Sequence[int] | NDArray[np.int64], size: tuple[int, int] = (224, 224)
) -> NDArray[np.uint8]:
    """The crops with these numbers, squashed to `size` (height, width): (n, height, width, 3), channels as in the file.

    Only these crops are read.  Raises MediaError if one is not in the file or the file changed.
    """
    cv2 = _cv2()
    numbers = np.asarray(indices, np.int64)
    if numbers.size == 0 or numbers.min() < 0 or numbers.max() >= index.total:
        raise MediaError(
            f"{index.path}: faces {numbers.tolist()} were asked for, of 0 to {index.total - 1}", index.path
        )
    check_unchanged(index.source)
    height, width = size
    crops = np.empty((len(numbers), height, width, 3), np.uint8)
    crop_bytes = index.size[0] * index.size[1] * 3
    with opened_file(index.path) as (file, _):
        for row, number in enumerate(numbers):
            # Not mapped into memory: a file that shrinks meanwhile would kill the process.
            data = os.pread(file.fileno(), crop_bytes, index.offset + int(number) * crop_bytes)
            if len(data) != crop_bytes:
                raise MediaError(f"{index.path} became shorter while it was being read", index.path)
            crop = np.frombuffer(data, np.uint8).reshape(*index.size, 3)
            crops[row] = cv2.resize(crop, (width, height), interpolation=cv2.INTER_LINEAR)
    return crops


def _cv2() -> Any:
    try:
        import cv2  # costs 0.1 s, which importing this module must not
    except ImportError as error:
        raise MissingPackageError("resizing faces needs OpenCV: pip install 'featurestore[encoders]'") from error
    cv2.setNumThreads(1)  # parallel over samples
    return cv2

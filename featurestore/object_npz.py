"""An `.npz` that holds Python objects, for code of other environments: every numpy reads it."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# numpy 2 names its own place; numpy below 1.26 has none of that name, and 2 still knows the old one.
_NEW, _OLD = b"\x80\x03cnumpy._core.multiarray\n", b"\x80\x03cnumpy.core.multiarray\n"


def write_object_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """`np.savez_compressed` of plain Python values, each as a pickled 0-d array for `np.load(allow_pickle=True)`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in arrays.items():
            array = np.empty((), dtype=object)
            array[()] = value
            pickled = pickle.dumps(array, protocol=3)  # as numpy 1.23 writes; a name is then a line of text
            if pickled.startswith(_NEW):
                pickled = _OLD + pickled.removeprefix(_NEW)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                header = {"descr": "|O", "fortran_order": False, "shape": ()}
                np.lib.format.write_array_header_1_0(file, header)
                file.write(pickled)

"""Label `.npz` files of the published datasets: pickled dicts, read without running what a pickle can run.

`np.load(allow_pickle=True)` executes whatever a file says.  Here a pickle may name six things, each replaced
by a stand-in that checks its arguments; any other name is refused before it is looked up.  Sizes are checked
before a byte is inflated.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featurestore.errors import ManifestError

MAX_MEMBER_BYTES = 256 << 20  # 31,327 labels with their text are about 10 MB
MAX_RATIO = 400  # deflate reaches about 1,000 on zeros; pickled dicts of names stay below 30
_PLAIN_DTYPE = re.compile(r"[<>=|]?[biufcSUO][0-9]{0,6}")


class _Array:
    """Stand-in for `numpy.ndarray`: a mark that `_Reconstruct` accepts, so that nothing can be called on it."""

    __slots__ = ()


class _Reconstruct:
    """`numpy.core.multiarray._reconstruct(ndarray, (0,), b"b")`, with no other arguments: it allocates nothing."""

    __slots__ = ()

    def __call__(self, kind: Any, shape: Any, code: Any) -> Any:
        import numpy as np  # the declarations are read without it

        if not isinstance(kind, _Array) or shape != (0,) or code not in (b"b", "b"):
            raise pickle.UnpicklingError(f"refused array of {kind!r} {shape!r} {code!r}")
        return np.empty(0, np.int8)


class _Dtype:
    """`numpy.dtype` of plain numbers, text and objects."""

    __slots__ = ()

    def __call__(self, code: Any, align: Any = False, copy: Any = False) -> Any:
        import numpy as np

        if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
            raise pickle.UnpicklingError(f"refused dtype {code!r}")
        return np.dtype(code, copy=True)


class _Scalar:
    """`numpy.core.multiarray.scalar(dtype, bytes)`."""

    __slots__ = ()

    def __call__(self, dtype: Any, raw: Any = b"") -> Any:
        import numpy as np

        if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(raw, bytes):
            raise pickle.UnpicklingError(f"refused scalar of {dtype!r}")
        if len(raw) != dtype.itemsize:
            raise pickle.UnpicklingError(f"refused scalar of {dtype!r} from {len(raw)} bytes")
        return np.frombuffer(raw, dtype)[0] if raw else dtype.type()


# numpy 2 renamed numpy.core to numpy._core; files of both are around.  Instances with __slots__ = (): a BUILD
# opcode cannot set anything on them.
_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array(),
    ("numpy", "dtype"): _Dtype(),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Reconstruct() for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar() for core in ("core", "_core")},
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "complex"): complex,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, which labels do not need") from None


def read_label_array(path: str | Path, name: str) -> dict[str, Any]:
    """The dict that the array `name` of a label `.npz` holds: sample name -> record.

    Raises ManifestError, naming file and array, for anything else: no such array, a damaged zip, an array that
    inflates beyond limits, a pickle that asks for more than plain data.  Nothing in the file is executed.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            raw = _member(archive, path, name)
        value = _unpickle(raw)
    except ManifestError:
        raise
    except FileNotFoundError:
        raise ManifestError(f"label file {path} does not exist") from None
    # A hostile pickle can make the unpickler, or numpy's __setstate__ beneath it, raise almost anything.
    except Exception as error:
        raise ManifestError(f"label file {path}, array {name!r}: refused or unreadable: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ManifestError(f"label file {path}, array {name!r} is not a dict of sample names")
    return value


def _member(archive: zipfile.ZipFile, path: Path, name: str) -> bytes:
    names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
    if names.count(name) != 1:
        raise ManifestError(f"label file {path} has no single array {name!r}; it has {', '.join(names) or 'none'}")
    info = archive.infolist()[names.index(name)]
    if info.file_size > MAX_MEMBER_BYTES or info.file_size > MAX_RATIO * max(info.compress_size, 1024):
        raise ManifestError(
            f"label file {path}, array {name!r} would inflate from {info.compress_size} to {info.file_size} bytes, "
            "which no label file does; it is refused"
        )
    with archive.open(info) as member:
        # The declared size may lie; one byte beyond it proves that.
        raw = member.read(info.file_size + 1)
    if len(raw) != info.file_size:
        raise ManifestError(
            f"label file {path}, array {name!r} has {len(raw)} bytes, not the {info.file_size} declared"
        )
    return raw


def _unpickle(raw: bytes) -> Any:
    from numpy.lib import format as npy

    stream = io.BytesIO(raw)
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise pickle.UnpicklingError(f".npy version {version}")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if not dtype.hasobject or shape not in ((), (1,)):
        raise pickle.UnpicklingError(f"an array of {dtype} with shape {shape}, not one pickled dict")
    value = _Unpickler(stream).load()
    # np.savez pickles the 0-d array, not the dict in it.
    return value.item() if hasattr(value, "item") and getattr(value, "size", 0) == 1 else value

"""Label `.npz` files of the published datasets: pickled dicts, read without running what a pickle can run.

`np.load(allow_pickle=True)` executes whatever a file says.  Here a pickle may use the opcodes that plain data
needs and name seven things, those of numpy replaced by stand-ins in Python; anything else is refused before it
is looked up.  Sizes are checked before a byte is inflated.
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
from featurestore.untrusted_io.files import read_untrusted

MAX_MEMBER_BYTES = 256 << 20  # 31,327 labels with their text are about 10 MB
MAX_RATIO = 400  # deflate reaches about 1,000 on zeros; pickled dicts of names stay below 30
_PLAIN_DTYPE = re.compile(r"[biufc][1-9][0-9]?|[SU][0-9]{1,5}|O8?")


class _Dtype:
    """Stand-in for `numpy.dtype`: plain numbers, text and objects; the real one crashes on states it did not write."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
            raise pickle.UnpicklingError(f"refused dtype {code!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, item size, alignment, flags)
        if type(state) is not tuple or len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
            raise pickle.UnpicklingError(f"refused dtype with state {state!r:.80}")
        self.order = state[1]


class _Array:
    """Stand-in for `numpy.ndarray`: its one value where it has one; the real one crashes on states it did not write."""

    __slots__ = ("value",)

    value: Any

    def __setstate__(self, state: Any) -> None:
        # (version, shape, dtype, fortran order, items)
        one = type(state) is tuple and len(state) == 5 and state[1] in ((), (1,)) and isinstance(state[2], _Dtype)
        if not one or not state[2].code.startswith("O") or type(state[4]) is not list or len(state[4]) != 1:
            raise pickle.UnpicklingError("refused array: labels are arrays of one Python object")
        self.value = state[4][0]


class _Ndarray:
    """The name `numpy.ndarray`, which only `_Reconstruct` takes."""

    __slots__ = ()


class _Reconstruct:
    """`numpy.core.multiarray._reconstruct(ndarray, (0,), b"b")`, with no other arguments."""

    __slots__ = ()

    def __call__(self, kind: Any, shape: Any, code: Any) -> _Array:
        if not isinstance(kind, _Ndarray) or shape != (0,) or code not in (b"b", "b"):
            raise pickle.UnpicklingError(f"refused array of {kind!r} {shape!r} {code!r}")
        return _Array()


class _Scalar:
    """`numpy.core.multiarray.scalar(dtype, bytes)` as a Python number or text."""

    __slots__ = ()

    def __call__(self, dtype: Any, raw: Any = b"") -> Any:
        import numpy as np  # the declarations are read without it

        if not isinstance(dtype, _Dtype) or dtype.code.startswith("O"):
            raise pickle.UnpicklingError(f"refused scalar of {dtype!r}")
        raw = raw.encode("latin1") if isinstance(raw, str) else raw  # as Python 2 wrote it
        real = np.dtype(dtype.order + dtype.code)
        if not isinstance(raw, bytes) or not raw or len(raw) != real.itemsize:
            raise pickle.UnpicklingError(f"refused scalar of {real}")
        return np.frombuffer(raw, real)[0].item()


# numpy 2 renamed numpy.core to numpy._core; files of both are around.
_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Ndarray(),
    ("numpy", "dtype"): _Dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Reconstruct() for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar() for core in ("core", "_core")},
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "complex"): complex,
}


# What dicts of names, numbers and text, and numpy's own arrays and scalars, are made of.  Not among them: instances of
# classes (INST, OBJ, NEWOBJ), extension codes, persistent ids, and BYTEARRAY8, which allocates what it is told.
_OPCODES = (
    "PROTO FRAME MARK STOP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT STRING BINSTRING "
    "SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_DICT DICT "
    "SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_SET ADDITEMS "
    "FROZENSET GLOBAL STACK_GLOBAL REDUCE BUILD PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET MEMOIZE"
).split()


class _Dispatch(dict[int, Any]):
    def __missing__(self, opcode: int) -> Any:
        raise pickle.UnpicklingError(f"the pickle uses opcode {bytes([opcode])!r}, which labels do not need")


# The one in Python: the one in C grows its memo to any index that a pickle names, gigabytes for five bytes.
class _Unpickler(pickle._Unpickler):
    dispatch = _Dispatch({code: pickle._Unpickler.dispatch[code] for code in (getattr(pickle, n)[0] for n in _OPCODES)})

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
        with zipfile.ZipFile(io.BytesIO(read_untrusted(path, MAX_MEMBER_BYTES))) as archive:
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
    from featurestore.untrusted_io.npy_header import read_npy_header  # with numpy, which names of datasets do without

    stream = io.BytesIO(raw)
    shape, _, dtype = read_npy_header(stream)
    if not dtype.hasobject or shape not in ((), (1,)):
        raise pickle.UnpicklingError(f"an array of {dtype} with shape {shape}, not one pickled dict")
    # latin1: what numpy under Python 2 wrote.
    value = _Unpickler(stream, encoding="latin1").load()
    # np.savez pickles the 0-d array, not the dict in it.
    return value.value if isinstance(value, _Array) else value

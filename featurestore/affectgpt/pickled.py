"""Pickled arrays, such as `.pkl` files of `{sample: array}`, read without running what a pickle can run.

A pickle may use the opcodes that plain data needs and name what numpy writes for plain arrays, each replaced by a
stand-in in Python; anything else is refused before it is looked up.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import LegacyTreeError

_PLAIN = re.compile(r"[biuf][1248]|f16|[SU][0-9]{1,5}")


class _Dtype:
    """Stand-in for `numpy.dtype`; the real one crashes on states that it did not write."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        if not isinstance(code, str) or not _PLAIN.fullmatch(code):
            raise pickle.UnpicklingError(f"an array of dtype {code!r:.40}, which is not of numbers")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, item size, alignment, flags)
        if type(state) is not tuple or len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
            raise pickle.UnpicklingError("a dtype with fields, which is not of numbers")
        self.order = state[1]

    @property
    def real(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _Array:
    """Stand-in for `numpy.ndarray`; `array` is what its state says."""

    array: NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        # (version, shape, dtype, fortran order, data)
        if type(state) is not tuple or len(state) != 5 or not isinstance(state[2], _Dtype):
            raise pickle.UnpicklingError("an array that numpy did not write")
        self.array = _filled(state[4], state[2], state[1], "F" if state[3] else "C")


def _filled(data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    data = data.encode("latin1") if isinstance(data, str) else data  # as Python 2 wrote it
    right = isinstance(dtype, _Dtype) and isinstance(data, bytes | bytearray) and type(shape) is tuple
    if not right or not all(type(n) is int and n >= 0 for n in shape) or order not in ("C", "F"):
        raise pickle.UnpicklingError("an array that numpy did not write")
    if math.prod(shape) * dtype.real.itemsize != len(data):
        raise pickle.UnpicklingError(f"an array {shape} of {len(data)} bytes")
    return np.frombuffer(bytearray(data), dtype.real).reshape(shape, order=order)


class _Ndarray:
    """The name `numpy.ndarray`, which only `_Reconstruct` takes."""


class _Reconstruct:
    """`numpy.core.multiarray._reconstruct(ndarray, (0,), b"b")`, with no other arguments."""

    def __call__(self, kind: Any, shape: Any, code: Any) -> _Array:
        if not isinstance(kind, _Ndarray) or shape != (0,) or code not in (b"b", "b"):
            raise pickle.UnpicklingError("an array that numpy did not write")
        return _Array()


class _FromBuffer:
    """`numpy.core.numeric._frombuffer(data, dtype, shape, order)`, of pickle's protocol 5."""

    def __call__(self, data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
        return _filled(data, dtype, shape, order)


class _Encode:
    """`_codecs.encode(text, "latin1")`: how protocol 2 writes bytes."""

    def __call__(self, text: Any, codec: Any = None) -> bytes:
        if type(text) is not str or codec != "latin1":
            raise pickle.UnpicklingError("bytes that Python did not write")
        return text.encode("latin1")


class _NoBytes:
    """`bytes()`: how protocol 2 writes those of an empty array."""

    def __call__(self) -> bytes:
        return b""


_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Ndarray(),
    ("numpy", "dtype"): _Dtype,
    # numpy 2 renamed numpy.core to numpy._core; files of both are around.
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Reconstruct() for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FromBuffer() for core in ("core", "_core")},
    ("_codecs", "encode"): _Encode(),
    **{(module, "bytes"): _NoBytes() for module in ("__builtin__", "builtins")},
    ("collections", "OrderedDict"): dict,
}
# What dicts, lists, numbers, text and numpy's arrays are made of.
_OPCODES = (
    "PROTO FRAME MARK STOP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT STRING BINSTRING "
    "SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_DICT DICT "
    "SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 "
    "GLOBAL STACK_GLOBAL REDUCE BUILD PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET MEMOIZE"
).split()


def _bytearray8(self: Any) -> None:
    size = int.from_bytes(self.read(8), "little")
    if size > self.limit:  # it would be allocated before a byte of it is read
        raise pickle.UnpicklingError("a pickle that is cut off")
    self.append(bytearray(self.read(size)))


class _Dispatch(dict[int, Any]):
    def __missing__(self, opcode: int) -> Any:
        raise pickle.UnpicklingError(f"opcode {bytes([opcode])!r}, which arrays do not need")


# The one in Python: the one in C grows its memo to any index that a pickle names, gigabytes for five bytes.
class _Unpickler(pickle._Unpickler):
    dispatch = _Dispatch(
        {getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in _OPCODES}
        | {pickle.BYTEARRAY8[0]: _bytearray8, pickle.READONLY_BUFFER[0]: lambda self: None}
    )

    def __init__(self, raw: bytes) -> None:
        super().__init__(io.BytesIO(raw), encoding="latin1")
        self.limit = len(raw)

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            more = "; save tensors with torch.save as .pt" if module.startswith("torch") else ""
            raise pickle.UnpicklingError(f"it would run {module}.{name}, which arrays do not need{more}") from None


def read_pickle(raw: bytes) -> Any:
    """What a pickle of arrays, or of dicts and lists of them, holds.

    Raises LegacyTreeError, half a sentence without a name, for anything else.  Nothing in it is executed.
    """
    try:
        return _real(_Unpickler(raw).load())
    # A hostile pickle can make the unpickler raise almost anything.
    except Exception as error:
        why = str(error).strip().split("\n")[0] or type(error).__name__
        raise LegacyTreeError(f"is a pickle that is not loaded: {why}") from error


def _real(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, dict):
        return {name: _real(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_real(each) for each in value]
    return value

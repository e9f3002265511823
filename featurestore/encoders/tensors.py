"""Tensors in files: their names and float32 values, read without torch where the format allows it, and their digest.

A safetensors file is eight bytes (the length of the header, little endian), a JSON header
{name: {dtype, shape, data_offsets}} and the data.  It is read here and not through the safetensors
package because that needs torch to read bfloat16, and a digest must not.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.encoders.weights import missing_package
from featurestore.errors import InputError
from featurestore.untrusted_io.files import is_lfs_pointer, open_untrusted, parse_json

Array = NDArray[np.float32]
Tensors = Mapping[str, Array]

_HEADER_LIMIT = 100_000_000  # bytes, as the safetensors package has it
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def read_tensors(files: tuple[Path, ...]) -> Tensors:
    """The tensors of one model, which may be split over several files; values are read when asked for.

    Raises InputError for a file that is truncated, not what its name says, or holds more than tensors.
    """
    if len(files) == 1:
        return _read_file(files[0])
    return {name: tensors[name] for tensors in map(_read_file, files) for name in tensors}


def digest(tensors: Tensors) -> str:
    """sha256 over [name, shape] as a line of JSON and the float32 bytes (little endian), in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        array = np.asarray(tensors[name], dtype="<f4", order="C")
        total.update(json.dumps([name, list(array.shape)]).encode() + b"\n")
        total.update(array.reshape(-1).data)
    return total.hexdigest()


def _read_file(path: Path) -> Tensors:
    return SafetensorsFile(path) if path.suffix == ".safetensors" else _read_pickle(path)


class SafetensorsFile(Mapping[str, Array]):
    """name -> float32 array of one .safetensors file, converted when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header, self._start = _read_header(path)

    def __getitem__(self, name: str) -> Array:
        entry = self._header[name]
        dtype, shape, (begin, end) = _DTYPES.get(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
        if dtype is None:
            raise InputError(f"{self.path}: tensor {name!r} has dtype {entry['dtype']}, which cannot be read")
        if end - begin != math.prod(shape) * np.dtype(dtype).itemsize:
            raise InputError(f"{self.path}: tensor {name!r} has {end - begin} bytes, which is not what its shape needs")
        with open_untrusted(self.path) as (file, _):
            file.seek(self._start + begin)
            data = file.read(end - begin)
        if len(data) != end - begin:
            raise InputError(f"{self.path} is truncated: tensor {name!r} is cut off; fetch the file again")
        array = np.frombuffer(data, dtype).reshape(shape)
        if entry["dtype"] == "BF16":  # the upper half of a float32
            array = (array.astype("<u4") << 16).view("<f4")
        return array.astype(np.float32, copy=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._header)

    def __len__(self) -> int:
        return len(self._header)


class Renamed(Mapping[str, Array]):
    """Some of the tensors under other names; values are read when asked for.  `names`: new name -> old name."""

    def __init__(self, tensors: Tensors, names: Mapping[str, str]) -> None:
        self.tensors, self.names = tensors, names

    def __getitem__(self, name: str) -> Array:
        return self.tensors[self.names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header without its metadata, and where the data begin."""
    try:
        _refuse_pointer(path)
        with open_untrusted(path) as (file, status):
            size = status.st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(size - 8, _HEADER_LIMIT):
                raise InputError(f"{path} is no safetensors file, or is truncated ({size} bytes); fetch the file again")
            text = file.read(length)
    except OSError as error:
        raise InputError(f"weights {path} cannot be read: {error.strerror}; fetch the file again") from error
    try:
        header: dict[str, Any] = parse_json(text)
        header.pop("__metadata__", None)
        last = max((_end_of(name, entry) for name, entry in header.items()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} has a header that is not safetensors' ({error}); fetch the file again") from None
    if size != 8 + length + last:
        raise InputError(f"{path} has {size} bytes where its header asks for {8 + length + last}; fetch the file again")
    return header, 8 + length


def _refuse_pointer(path: Path) -> None:
    if is_lfs_pointer(path):
        raise InputError(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` in its repository")


def _end_of(name: str, entry: Any) -> int:
    """Where the data of one tensor end.  Raises ValueError, TypeError or KeyError for what is no entry of a header."""
    begin, end = entry["data_offsets"]
    shape = entry["shape"]
    numbers = (begin, end, *shape)
    if type(entry["dtype"]) is not str or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"tensor {name!r} is {entry!r}")
    if begin > end:
        raise ValueError(f"tensor {name!r} ends before it begins")
    name.encode()  # half of a surrogate pair would be found when the digest is taken
    return int(end)


def load_plain(path: Path) -> Any:
    """What a file of torch's holds, of tensors and plain values.  Imports torch; runs nothing of the file.

    Raises InputError for a file that cannot be read or asks for more than that.
    """
    try:
        import torch  # only this format needs it
    except ImportError:
        raise missing_package("torch") from None
    try:
        _refuse_pointer(path)
        # weights_only: a pickle from elsewhere may otherwise run any code.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except InputError:
        raise
    # A pickle that torch did not write makes its unpickler raise almost anything.
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):
            reason = f"it holds more than tensors and plain values, and reading that would run it: {reason}"
        raise InputError(
            f"{path} cannot be read as tensors alone, and nothing else is loaded ({reason}); "
            f"use the model's .safetensors, save its tensors alone, or fetch the file again"
        ) from error


def plain_tensors(path: Path, content: Mapping[Any, Any]) -> dict[str, Any]:
    """The tensors of a dict that `load_plain` read, without gradients.

    Raises InputError for one that has no name or no values of its own, is sparse or quantised, or claims more numbers
    than the file holds bytes.
    """
    import torch  # as above

    size = path.stat().st_size
    found = {}
    for name, value in content.items():
        if not isinstance(value, torch.Tensor):
            continue
        form = f"{value.dtype} {tuple(value.shape)}"
        if not isinstance(name, str):
            raise InputError(f"{path}: a tensor {form} is named {name!r}, which is no text")
        if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
            raise InputError(f"{path}: tensor {name!r} is {value.layout} {form}, not plain numbers; save it as float32")
        if value.numel() * value.element_size() > size:
            raise InputError(f"{path}: tensor {name!r} is {form}, more than the {size} bytes of the file can hold")
        found[name] = value.detach()
    return found


def _read_pickle(path: Path) -> dict[str, Array]:
    content = load_plain(path)
    for nested in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(nested), dict):
            content = content[nested]
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not a dict of tensors")
    return {name: value.float().numpy() for name, value in plain_tensors(path, content).items()}

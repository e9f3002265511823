"""Containers: files other than `.npy` that hold the array of a sample, or those of a whole set by sample."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurestore.affectgpt.model_folders import KINDS
from featurestore.affectgpt.npy import MAX_BYTES, NpyFile, npy_header, parse_npy, read_npy_file
from featurestore.affectgpt.pickled import read_pickle
from featurestore.errors import LegacyTreeError, MissingPackageError
from featurestore.untrusted_io.files import read_untrusted

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FILE_BYTES = 8 << 30  # of a set
Members = Mapping[str, Callable[[], NpyFile]]


def read_sample(path: Path) -> NpyFile:
    """The one array in a file of any kind, or those in a folder of `.npy` files, in the order of their names.

    Raises LegacyTreeError, half a sentence without a name, MissingPackageError, and OSError as `open_untrusted`.
    """
    if path.suffix == ".npy":
        return read_npy_file(path)
    if path.suffix not in KINDS:
        return _stacked(path)
    if path.suffix in (".npz", ".h5", ".hdf5"):
        members = read_members(path)
        if len(members) != 1:
            raise LegacyTreeError(f"holds {len(members)} arrays, not the one of its sample")
        return next(iter(members.values()))()
    return _plain(_loaded(path))


def read_members(path: Path) -> Members:
    """What reads the array of each sample in the file of a whole set, by sample.  Errors as `read_sample`."""
    if path.suffix == ".npz":
        return _of_npz(path)
    if path.suffix in (".h5", ".hdf5"):
        return _of_h5(path)
    content = _loaded(path)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise LegacyTreeError(f"holds a {type(content).__name__}, not arrays by sample")
    return {name: lambda value=value: _plain(value) for name, value in content.items()}  # type: ignore[misc]


def _stacked(folder: Path) -> NpyFile:
    """The files of one sample, a frame each."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix == ".npy" and path.name[0] != ".")
    parts = [read_npy_file(folder / name) for name in names]
    if not parts:
        raise LegacyTreeError("is a folder without .npy files")
    first = parts[0]
    if len({part.header for part in parts}) > 1 or not first.is_plain or first.array.shape[-1:] != (first.array.size,):
        raise LegacyTreeError("is a folder of files that differ in shape or dtype, or hold more than one frame")
    if sum(part.array.nbytes for part in parts) > MAX_BYTES:
        raise LegacyTreeError(f"is too large: a sample may have {MAX_BYTES} bytes")
    array = np.stack([part.array.reshape(-1) for part in parts])
    return NpyFile(array, npy_header(array.dtype, array.shape), False, tuple(names), first.array.shape)


def _plain(value: Any) -> NpyFile:
    if type(value).__module__.startswith("torch") and hasattr(value, "detach"):
        value = value.detach()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    if not isinstance(value, np.ndarray) or value.dtype.hasobject or value.dtype.fields:
        raise LegacyTreeError(f"holds a {type(value).__name__}, not an array of numbers")
    if value.nbytes > MAX_BYTES:
        raise LegacyTreeError(f"is too large: {value.nbytes} bytes, and a sample may have {MAX_BYTES}")
    array: NDArray[Any] = np.ascontiguousarray(value).reshape(value.shape)
    return NpyFile(array, npy_header(array.dtype, array.shape))


def _loaded(path: Path) -> Any:
    if path.suffix in (".pkl", ".pickle"):
        return read_pickle(read_untrusted(path, MAX_FILE_BYTES))
    try:
        import torch
    except ImportError as error:
        raise MissingPackageError(f"{path.name} was written by PyTorch: pip install torch, to read it") from error
    raw = read_untrusted(path, MAX_FILE_BYTES)
    try:
        return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    # What it finds in a damaged or hostile file can raise almost anything.
    except Exception as error:
        why = str(error).strip().split("\n")[0][:160] or type(error).__name__
        raise LegacyTreeError(f"is not loaded: damaged, or more than tensors by name: {why}") from error


def _of_npz(path: Path) -> Members:
    raw = read_untrusted(path, MAX_FILE_BYTES)
    try:
        archive = zipfile.ZipFile(io.BytesIO(raw))
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise LegacyTreeError(f"is no .npz, or cut off: {error}") from error

    def member(info: zipfile.ZipInfo) -> NpyFile:
        if info.file_size > MAX_BYTES:
            raise LegacyTreeError(f"is too large: {info.file_size} bytes, and a sample may have {MAX_BYTES}")
        try:
            with archive.open(info) as stream:
                data = stream.read(info.file_size + 1)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
            raise LegacyTreeError(f"is damaged: {error}") from error
        return parse_npy(io.BytesIO(data), len(data))

    return {
        info.filename.removesuffix(".npy"): lambda info=info: member(info)  # type: ignore[misc]
        for info in archive.infolist()
        if not info.is_dir()
    }


def _of_h5(path: Path) -> Members:
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError(f"{path.name} is an HDF5 file: pip install h5py, to read it") from error

    @contextmanager
    def opened() -> Iterator[Any]:
        try:
            with h5py.File(path, "r") as file:
                yield file
        except FileNotFoundError:
            raise
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise LegacyTreeError(f"is no HDF5 file, or damaged: {error}") from error

    def member(name: str) -> NpyFile:
        with opened() as file:
            dataset = file[name]
            if dataset.nbytes > MAX_BYTES:
                raise LegacyTreeError(f"is too large: {dataset.nbytes} bytes, and a sample may have {MAX_BYTES}")
            value = dataset[()]
        return _plain(value)

    names: list[str] = []
    with opened() as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return {name: lambda name=name: member(name) for name in names}  # type: ignore[misc]

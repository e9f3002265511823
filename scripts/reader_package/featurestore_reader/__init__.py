"""A feature store, read where the package featurestore cannot be installed: Python 3.8 to 3.13 and numpy.

    import featurestore_reader as fr
    fr.get_many("features", "mer2026/audio/chinese-hubert-large/utterance/1", ids)      # (N, 1, 1024)

`reader.py` is the project's own read path, the same file.  `checked` says whether values are compared with their
checksums: only where google-crc32c is installed.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Sequence, Tuple

from featurestore_reader.folders import Folders
from featurestore_reader.reader import CorruptRowError, FramesError, Reader, UnknownFormatError, crc32c, open_key

__all__ = [
    "CorruptRowError", "Folders", "FramesError", "Reader", "UnknownFormatError", "checked", "get", "get_many",
    "get_ragged", "open_key",
]  # fmt: skip

checked = crc32c is not None
_readers: Dict[Tuple[str, str], Reader] = {}


def get(store: str, key: str, id: str, frames: Any = None) -> Any:
    """A fresh (n_frames, *item) array of the stored dtype.

    frames   those wanted of the sample, a slice or ascending numbers: no others are read

    Raises LookupError where the sample or the key is not stored, FramesError for frames that the sample has not.
    """
    reader = _reader(store, key, [id])
    return reader.get_ragged([id])[0] if frames is None or id not in reader else reader.get(id, frames)


def get_many(store: str, key: str, ids: Sequence[str]) -> Any:
    """(N, n_frames, *item) in the order of the request.

    Raises LookupError naming a sample that is not stored, ValueError under a key whose samples differ in length.
    """
    if key.endswith("/all"):
        raise ValueError(f"samples of {key} differ in their number of frames: get_ragged gives a list of arrays")
    return _reader(store, key, ids).get_many(ids)


def get_ragged(store: str, key: str, ids: Sequence[str]) -> List[Any]:
    """N arrays (n_frames, *item) in the order of the request, under any key.  Raises LookupError as `get_many`."""
    return _reader(store, key, ids).get_ragged(ids)


def _reader(store: str, key: str, ids: Sequence[str]) -> Reader:
    """Kept, so that the table of ids is read once; looks at the disk again where one of these is not known."""
    place = os.path.abspath(store), key
    reader = _readers.get(place)
    if reader is None:
        reader = _readers[place] = open_key(store, key)
    if (reader.find_all(ids).numbers < 0).any():
        reader.refresh()
    return reader

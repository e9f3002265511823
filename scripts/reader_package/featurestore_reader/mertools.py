"""MERTools' feature reader, answered from a store.  One line before its data sets are made:

    import featurestore_reader.mertools as m; m.patch(store="features", dataset="mer2026")

Everything behind it, padding and collating included, is MERTools' own code and sees the arrays that the files held.
"""

from __future__ import annotations

import importlib
import os
from typing import Any, List, Mapping, Optional, Sequence, Tuple

from featurestore_reader.folders import Folders

USERS = ("toolkit.data.feat_data", "toolkit.data.feat_data_topn")  # each has the function under a name of its own
FUNCTION = "func_read_multiprocess"


class FeatureReader:
    """Called like MERTools' `func_read_multiprocess`, without its pool of processes."""

    def __init__(self, store: str, dataset: str, keys: Optional[Mapping[str, str]] = None, means: bool = False) -> None:
        self.folders = Folders(store, dataset, keys, means)

    def __call__(
        self,
        feature_root: str,
        names: Sequence[str],
        processor: Any = None,
        read_type: str = "feat",
        model_name: Any = None,
    ) -> Tuple[List[Any], int]:
        """(a list of arrays (T_i, D) in the order of the names, read-only; D of the first).

        feature_root   only its last part counts, such as chinese-hubert-large-UTT
        Raises LookupError naming a sample that is not stored, ValueError for another read_type or no names.
        """
        if read_type != "feat":
            raise ValueError(f"read_type={read_type!r} is not 'feat': read what are no features from their own files")
        if not len(names):
            raise ValueError(f"no names are asked of {feature_root!r}: which width features have the first sample says")
        values = self.folders.read(os.path.basename(os.path.normpath(feature_root)), names, copy=False)
        features = [array[None] if array.ndim == 1 else _squeezed(array) for array in values]
        return features, features[0].shape[-1]


def _squeezed(array: Any) -> Any:
    """As MERTools does it: without axes of one element, and then two axes at least."""
    array = array.squeeze() if 1 in array.shape else array
    return array[None] if array.ndim == 1 else array


def patch(store: str, dataset: str, keys: Optional[Mapping[str, str]] = None, means: bool = False) -> List[str]:
    """Have MERTools' data sets read from a store.  Before they are made; `toolkit` must be importable.

    keys    {folder: key}, where a folder's name does not say which key is meant
    means   have utterances that are not stored made of their frames, of which they are the mean

    Returns the modules that were changed.  Raises LookupError where the store has nothing of the dataset, and
    ImportError where there is no MERTools.
    """
    reader = FeatureReader(store, dataset, keys, means)
    changed = []
    for name in USERS:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise  # it is there, and something that it needs is not; or there is no `toolkit`
            continue  # older ones have no top-n runs
        if hasattr(module, FUNCTION):
            setattr(module, FUNCTION, reader)
            changed.append(name)
    if not changed:
        raise ImportError(f"none of {', '.join(USERS)} has {FUNCTION}: is the folder that holds `toolkit` on sys.path?")
    return changed

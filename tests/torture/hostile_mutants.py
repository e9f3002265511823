"""Readers that believe what they are given: a run of hostile inputs has to find each of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from mutants import mutant

from featurestore.affectgpt import npy, strict_yaml
from featurestore.datasets import label_npz
from featurestore.encoders import tensors
from featurestore.storage import reader
from featurestore.untrusted_io import files

Mutant = Callable[[], AbstractContextManager[None]]
TRIES = 400  # inputs until a broken version must have been found

# What is broken, and the kind of input that shows it.
MUTANTS: dict[str, tuple[str, Mutant]] = {
    "arrays of objects are loaded": (
        ".npy",
        lambda: mutant(
            npy.parse_npy,
            "if dtype.hasobject:",
            "if dtype.hasobject and not stream.seek(0) and np.load(stream, allow_pickle=True):",
        ),
    ),
    "labels are unpickled by pickle": (
        "label .npz",
        lambda: mutant(label_npz._unpickle, '_Unpickler(stream, encoding="latin1").load()', "pickle.load(stream)"),
    ),
    "YAML may name objects": (
        "settings in YAML",
        lambda: mutant(strict_yaml.load_yaml, "yaml.load(text, _Loader)", "yaml.load(text, yaml.Loader)"),
    ),
    "checkpoints are loaded whole": (
        ".pth",
        lambda: mutant(tensors.load_plain, "weights_only=True", "weights_only=False"),
    ),
    "samples may be of any size": (
        "forged segments",
        lambda: mutant(reader._form_of, "if not 0 < size <= SAMPLE_BYTES or", "if"),
    ),
    "samples may overlap": (
        "forged segments",
        lambda: mutant(reader._require_order, "if not sound:", "if False:"),
    ),
    "lines may begin anywhere": (
        "forged segments",
        lambda: mutant(
            reader._require_order, 'raise ValueError("the lines in `rows` are not one behind the other")', "pass"
        ),
    ),
    "any file is read whole": (
        "manifests",
        lambda: mutant(files.read_untrusted, "if status.st_size > limit:", "if False:"),
    ),
    "documents may be nested at will": (
        "failure records",
        lambda: mutant(files.parse_json, "except RecursionError:", "except ZeroDivisionError:"),
    ),
}

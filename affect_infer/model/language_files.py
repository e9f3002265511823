"""The files of a language model, looked at before anything is loaded: whether they are here, whole, and what is meant.

Some kilobytes of each are read: a model that was cloned without Git LFS, copied by half or is another's is told within
a second, and not after minutes of loading.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from featurestore.errors import InputError
from featurestore.untrusted_io.files import is_file_name, is_lfs_pointer, open_untrusted, read_json_object

JSON_BYTES = 256 << 20  # a tokenizer of 150,000 pieces has 10 MB
# In the order in which transformers looks for them.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer.model",))
CAUSAL = ("ForCausalLM", "LMHeadModel")
MANY = 5  # tensors; no layer has so few, so that more of them may be a layer that is left out


def check_language_files(folder: Path) -> None:
    """InputError that names the file, what is wrong with it and what to do."""
    _check_config(folder)
    for path in sorted(folder.iterdir()):
        if path.is_fifo():  # transformers opens more than is looked into here, and would wait
            raise InputError(f"{path} cannot be read: is not a regular file; fetch the file again")
    tokenizer = next((names for names in TOKENIZERS if all((folder / name).exists() for name in names)), None)
    if tokenizer is None:
        wanted = " or ".join(" with ".join(names) for names in TOKENIZERS)
        raise InputError(f"language model {folder} has no tokenizer: {wanted}; fetch the whole folder again")
    if not (folder / "tokenizer_config.json").exists():  # without it, what ends an answer would be a default
        raise InputError(f"language model {folder} has no tokenizer_config.json; fetch the whole folder again")
    for name in (*tokenizer, "tokenizer_config.json", "generation_config.json"):
        if (folder / name).exists():
            _require_content(folder / name)
            if name.endswith(".json"):
                _read_json(folder / name)
    weights = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if weights is None:
        raise InputError(f"language model {folder} has no weights: {' or '.join(WEIGHTS)}; fetch the whole folder")
    if weights.name.endswith(".index.json"):
        _check_shards(weights)
    else:
        _names_in(weights)


def check_loaded(source: str, report: Mapping[str, Any]) -> list[str]:
    """What transformers' report of loading says: lines for the user.  InputError where something would stay random."""
    shaped = {name for name, _, _ in report["mismatched_keys"]}
    wrong = {f"{name} is missing" for name in report["missing_keys"] if name not in shaped}
    wrong |= {f"{name} is {tuple(got)}, not {tuple(wanted)}" for name, got, wanted in report["mismatched_keys"]}
    unexpected = sorted(report["unexpected_keys"])
    if wrong:
        raise InputError(
            f"language model {source} does not fit its config.json; {len(wrong)} tensors would stay random: "
            f"{some(sorted(wrong))}"
            + (f"; {len(unexpected)} have no place in it: {some(unexpected)}" if unexpected else "")
            + "; fetch its folder again, or give another with --llm"
        )
    if len(unexpected) > MANY:
        raise InputError(
            f"language model {source} has {len(unexpected)} tensors that its config.json has no place for, so that a "
            f"part of it would be left out: {some(unexpected)}; fetch its folder again, or give another with --llm"
        )
    return [f"{len(unexpected)} tensors of {source} are not used: {some(unexpected)}"] if unexpected else []


def some(names: Iterable[str]) -> str:
    """The first five, and how many more there are."""
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _check_config(folder: Path) -> None:
    path = folder / "config.json"
    if not path.exists():
        raise InputError(f"language model {folder} has no config.json; fetch the whole folder again")
    _require_content(path)
    config = _read_json(path)
    kind, classes = config.get("model_type"), config.get("architectures")
    if not isinstance(kind, str):
        raise InputError(f"{path} names no model_type, so it is no language model's; give another folder with --llm")
    if isinstance(classes, list) and classes and not any(str(each).endswith(CAUSAL) for each in classes):
        raise InputError(
            f"{path} describes {', '.join(map(str, classes))} ({kind}), which does not go on with a text; give a "
            "causal language model, such as Qwen/Qwen2.5-7B-Instruct, with --llm"
        )


def _check_shards(index: Path) -> None:
    placed = _read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(is_file_name(part) for part in placed.values()):
        raise InputError(f"{index} does not say which file each tensor is in; fetch the file again")
    parts: dict[Path, set[str]] = {}
    for name, part in placed.items():
        parts.setdefault(index.parent / part, set()).add(name)
    if absent := [part.name for part in parts if not part.exists()]:
        raise InputError(f"{index} names {len(absent)} files that are not there: {some(absent)}; fetch them")
    for part, names in sorted(parts.items()):
        there = _names_in(part)
        if there is not None and (lacking := sorted(names - there)):
            raise InputError(
                f"{part} lacks {len(lacking)} tensors that {index.name} places in it: {some(lacking)}; fetch both again"
            )


def _names_in(path: Path) -> set[str] | None:
    """Names of the tensors in a file of weights; None where that would mean to unpickle it."""
    from featurestore.encoders.tensors import SafetensorsFile

    _require_content(path)
    if path.suffix == ".safetensors":
        return set(SafetensorsFile(path))
    with open_untrusted(path) as (file, _):
        begins = file.read(2)
    if begins == b"PK" and not zipfile.is_zipfile(path):
        raise InputError(f"{path} is cut off: the end of its archive is missing; fetch the file again")
    if begins != b"PK" and not begins.startswith(b"\x80"):
        raise InputError(f"{path} is no file of torch.save; fetch the file again")
    return None


def _require_content(path: Path) -> None:
    try:
        pointer = is_lfs_pointer(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; fetch the file again") from error
    if pointer:
        raise InputError(f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in {path.parent}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path, JSON_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; fetch the file again") from error

"""The files of a run's model: whether they are here, told before all else, and digests of what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from affect_infer.model.language_files import TOKENIZERS, check_language_files
from featurestore.encoders.hub import HUB_ID, find_snapshot, how_to_fetch
from featurestore.encoders.weights import find
from featurestore.errors import ConfigError, InputError, WeightsNotFoundError
from featurestore.provenance import file_sha256
from featurestore.untrusted_io.files import is_lfs_pointer, open_untrusted

MAGIC = (b"PK\x03\x04", b"\x80")  # a zip, as torch.save writes since 1.6, and a pickle, as before


def check_model_files(checkpoint: Path | None, llm: str) -> None:
    """Whether both are here and whole, as far as their first kilobytes say.

    Raises ConfigError without a checkpoint, InputError for one that is absent or no file of torch.save and for files of
    a language model that are damaged or another's, WeightsNotFoundError for a language model that is not here.
    """
    if checkpoint is None:
        raise ConfigError("no checkpoint is given; add --ckpt FILE.pth")
    if not checkpoint.exists():
        raise InputError(f"checkpoint {checkpoint} does not exist; give the .pth file with --ckpt")
    if not checkpoint.is_file():
        raise InputError(f"checkpoint {checkpoint} is not a file; give the .pth file with --ckpt")
    with open_untrusted(checkpoint) as (file, _):
        begins = file.read(4)
    if is_lfs_pointer(checkpoint):
        raise InputError(
            f"checkpoint {checkpoint} is a Git LFS pointer, not the weights; run `git lfs pull` in its repository"
        )
    if not begins.startswith(MAGIC):
        raise InputError(f"checkpoint {checkpoint} is not a PyTorch checkpoint file; give the .pth file with --ckpt")
    check_language_files(llm_folder(llm))


def llm_folder(source: str) -> Path:
    """The folder of a language model, given as a directory or as HUB_ID[@REVISION] in the cache.  WeightsNotFoundError.

    Of a repository the config, the tokenizer and the weights must be here, and nothing else.
    """
    path = Path(source)
    if source and path.is_dir():
        return path
    hub = HUB_ID.fullmatch(source)
    looks_like_path = hub is None or source.startswith((".", "/", "~")) or Path(source.split("/")[0]).exists()
    if hub is None or looks_like_path:
        what = "is not a directory" if path.exists() else "does not exist"
        raise WeightsNotFoundError(
            f"language model: the directory {source} {what}; give one with config.json, tokenizer.json and the weights"
        )
    command = how_to_fetch(hub["repo"], hub["revision"])
    snapshot = find_snapshot(hub["repo"], hub["revision"])
    if snapshot is None:
        raise WeightsNotFoundError(
            f"language model {source!r} is not in the hub's cache on this machine; give a directory with --llm DIR, or "
            f"fetch it once with `{command}`"
        )
    if absent := _absent(snapshot.folder):
        raise WeightsNotFoundError(
            f"language model {source!r}: {snapshot.folder} has not {' and '.join(absent)}; give a directory with "
            f"--llm DIR, or fetch what is missing with `{command}`"
        )
    return snapshot.folder


def _absent(folder: Path) -> list[str]:
    """What a language model needs and the folder has not."""
    absent = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZERS):
        absent.append("tokenizer.json")
    try:
        find(str(folder), None, "")
    except WeightsNotFoundError:
        absent.append("all of the weights")
    return absent


def model_identity(checkpoint: Path | None, llm: str) -> dict[str, Any]:
    """{checkpoint, llm: {path, sha256}}, JSON: two with one sha256 are the same, wherever they are.

    What is not here, as when a model of the caller's answers, is {name}.  The digest of a language model, which is
    that of all files of its folder, is remembered as long as they stay as they are.
    """
    return {"checkpoint": _checkpoint(checkpoint) if checkpoint is not None else None, "llm": _language_model(llm)}


def _checkpoint(path: Path) -> dict[str, str]:
    try:
        return {"path": str(path), "sha256": file_sha256(path)}
    except OSError:
        return {"name": str(path)}


def _language_model(source: str) -> dict[str, str]:
    from featurestore.encoders.weights import file_identity

    try:
        folder = llm_folder(source)
    except WeightsNotFoundError:
        return {"name": source}
    return {"path": source, "sha256": file_identity(str(folder), f"language model {source}")["digest"]}

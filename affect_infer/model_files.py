"""The files of a run's model: whether they are here, told before all else, and digests of what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from featurestore.errors import ConfigError, InputError, WeightsNotFoundError
from featurestore.sources import file_sha256

MAGIC = (b"PK\x03\x04", b"\x80")  # a zip, as torch.save writes since 1.6, and a pickle, as before


def check_model_files(checkpoint: Path | None, llm: str) -> None:
    """Whether both are here, which costs nothing.

    Raises ConfigError without a checkpoint, InputError for one that is absent or no file of torch.save,
    WeightsNotFoundError for a language model that is not here.
    """
    if checkpoint is None:
        raise ConfigError("no checkpoint is given; add --ckpt FILE.pth")
    if not checkpoint.exists():
        raise InputError(f"checkpoint {checkpoint} does not exist; give the .pth file with --ckpt")
    if not checkpoint.is_file():
        raise InputError(f"checkpoint {checkpoint} is not a file; give the .pth file with --ckpt")
    with checkpoint.open("rb") as file:
        begins = file.read(4)
    if not begins.startswith(MAGIC):
        raise InputError(f"checkpoint {checkpoint} is not a PyTorch checkpoint file; give the .pth file with --ckpt")
    llm_folder(llm)


def llm_folder(source: str) -> Path:
    """The folder of a language model, given as a directory or as a hub id in the cache.  WeightsNotFoundError."""
    path = Path(source)
    if source and path.is_dir():
        return path
    looks_like_path = source.startswith((".", "/", "~")) or source.count("/") > 1 or Path(source.split("/")[0]).exists()
    if looks_like_path:
        what = "is not a directory" if path.exists() else "does not exist"
        raise WeightsNotFoundError(
            f"language model: the directory {source} {what}; give one with config.json, tokenizer.json and the weights"
        )
    from huggingface_hub import snapshot_download  # 0.1 s; only hub ids need it
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, ValueError):
        raise WeightsNotFoundError(
            f"language model {source!r} is not in the hub's cache on this machine; give a directory with --llm DIR, or "
            f"fetch it once with `hf download {source}`"
        ) from None


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

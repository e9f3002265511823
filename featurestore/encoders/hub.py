"""The cache of the Hugging Face hub: where a repository's files are, which it has besides, what fetches them.

Read as it lies on the disk: refs/NAME holds a commit, snapshots/COMMIT its files, as many as were fetched, and
trees/COMMIT.json, of newer versions of the hub's client, what the repository has.  The client itself takes a snapshot
for absent as long as anything of the repository is, a model card for example.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from featurestore.errors import MissingPackageError
from featurestore.untrusted_io.files import parse_json, read_untrusted

HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
LISTING_BYTES = 64 << 20


@dataclass(frozen=True)
class Snapshot:
    """What is here of a repository at one commit."""

    folder: Path
    """its name is the commit"""
    listed: Collection[str] | None
    """names of all files that the repository has; None where that is not known"""


def cache_folder() -> Path:
    """Where the hub's client keeps repositories: HF_HUB_CACHE, or below HF_HOME.  Raises MissingPackageError."""
    try:
        from huggingface_hub import constants  # 0.1 s; only hub ids need it
    except ImportError:
        raise MissingPackageError(
            "huggingface_hub is not installed; hub ids need it: pip install 'featurestore[encoders]'"
        ) from None
    return Path(constants.HF_HUB_CACHE)


def find_snapshot(repo: str, revision: str | None) -> Snapshot | None:
    """The snapshot of a branch, tag or commit, by default of `main`, if anything of it is here."""
    name = revision or "main"
    if ".." in (*repo.split("/"), *name.split("/")):
        return None
    storage = cache_folder() / f"models--{repo.replace('/', '--')}"
    commit = name if _COMMIT.fullmatch(name) else _read_ref(storage / "refs" / name)
    folder = storage / "snapshots" / commit
    if not _COMMIT.fullmatch(commit) or not folder.is_dir():
        return None
    return Snapshot(folder, _read_listing(storage / "trees" / f"{commit}.json"))


def how_to_fetch(repo: str, revision: str | None, files: Sequence[str] = ()) -> str:
    """The command that fetches these files, or all."""
    return " ".join(["hf download", repo, *files, *(["--revision", revision] if revision else [])])


def _read_ref(path: Path) -> str:
    try:
        return read_untrusted(path, 4096).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _read_listing(path: Path) -> Collection[str] | None:
    try:
        document = parse_json(read_untrusted(path, LISTING_BYTES))
        return frozenset(document["files"]) if document["format_version"] == 1 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not written by this version of the client, or of a form that only a later one knows

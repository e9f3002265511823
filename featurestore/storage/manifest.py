"""Manifest: what a feature set consists of, and which sets a store has, for readers that cannot list folders.

A reader of a local folder lists it and needs neither.  `extract` and `compact` write them at their end, under the
lock of the recipe, each replaced by a rename.  `docs/format.md` has every field.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featurestore.errors import CorruptSegmentError
from featurestore.storage.durable import explain, fsync_dir, write_file
from featurestore.storage.layout import Layout
from featurestore.storage.reader import FORMAT, HEADER_BYTES, SEAL_SIZE, Reader, Segment, seal_of
from featurestore.untrusted_io.files import parse_json, read_untrusted

ADVICE = "compact writes it again"
ATTEMPTS = 20  # looks at two files that a writer replaces one after the other
COMMITS = 100  # last ones that a manifest names, by which a pusher finds its own again


def write_manifest(layout: Layout, reader: Reader) -> dict[str, Any]:
    """Say what is stored now, beside the feature set, and that the store has it; what was said.

    The caller holds the lock of the recipe.  Raises StoreError where it cannot be written.
    """
    before = _before(layout)
    table, segments = b"", []
    for segment in reader.segments:
        records = segment.records().tobytes()
        segments.append(_entry(segment))
        table += records
    commit = uuid.uuid4().hex
    there = {segment.name for segment in reader.segments}
    gone = {*before.get("gone", ()), *(each["name"] for each in before.get("segments", ()))} - there
    document = {
        "format": FORMAT,
        "key": str(layout.key),
        "fingerprint": layout.fingerprint,
        "generation": before.get("generation", 0) + 1,
        "commits": [*before.get("commits", ()), commit][-COMMITS:],
        "rows": {"bytes": len(table), "blake2b": hashlib.blake2b(table, digest_size=32).hexdigest()},
        "segments": segments,
        "gone": sorted(gone),
    }
    # The table first: whoever finds the old manifest beside it sees by its digest that it is not the one meant.
    _replace(layout.manifest_rows, [table], layout)
    _replace(layout.manifest, [sealed(document)], layout)
    write_catalog(layout.root, layout.housekeeping / "tmp")
    return document


def read_manifest(layout: Layout) -> dict[str, Any]:
    """What was said last.  FileNotFoundError where nothing was; CorruptSegmentError where it fails its seal."""
    return _unsealed(layout.manifest)


def check_manifest(layout: Layout) -> None:
    """Hold the manifest against its seal, and its table against the manifest.

    FileNotFoundError where there is no manifest; CorruptSegmentError where one of both is not what was written.
    """
    document = read_manifest(layout)
    if (document.get("key"), document.get("fingerprint")) != (str(layout.key), layout.fingerprint):
        raise CorruptSegmentError(f"{layout.manifest} is that of another feature set", advice=ADVICE)
    for _ in range(ATTEMPTS):
        try:
            table = layout.manifest_rows.read_bytes()
        except FileNotFoundError:
            raise CorruptSegmentError(f"{layout.manifest} has no table beside it", advice=ADVICE) from None
        digest = hashlib.blake2b(table, digest_size=32).hexdigest()
        if document["rows"] == {"bytes": len(table), "blake2b": digest}:
            return
        time.sleep(0.05)  # a writer may be between its two renames
        document = read_manifest(layout)
    raise CorruptSegmentError(f"{layout.manifest} names another table than the one beside it", advice=ADVICE)


def read_catalog(root: Path) -> dict[str, list[str]]:
    """{key: fingerprints} as said last.  FileNotFoundError where nothing was; CorruptSegmentError as above."""
    keys = _unsealed(_catalog(root)).get("keys")
    return keys if isinstance(keys, dict) else {}


def _unsealed(path: Path) -> dict[str, Any]:
    raw = read_untrusted(path, HEADER_BYTES)
    found, expected = seal_of(raw)
    document = parse_json(raw) if found == expected else None
    if not isinstance(document, dict):
        raise CorruptSegmentError(f"{path} fails its seal", advice=ADVICE, path=path)
    return document


def _catalog(root: Path) -> Path:
    return root / ".fstore" / "catalog.json"


def withdraw(layout: Layout) -> None:
    """Say no more of a feature set that was removed."""
    said = layout.manifest.exists()
    for path in (layout.manifest, layout.manifest_rows):
        path.unlink(missing_ok=True)
    if said:
        write_catalog(layout.root, layout.housekeeping / "tmp")


def write_catalog(root: Path, staging: Path) -> None:
    """{key: fingerprints} of a store, by its folders, for who cannot list them.

    `staging` is where gc looks for what killed writers left.
    """
    path = _catalog(root)
    keys: dict[str, list[str]] = {}
    for folder in sorted(root.glob("data/*/*/*/*/*/*/segments")):
        *key, fingerprint = folder.parent.relative_to(root / "data").parts
        keys.setdefault("/".join(key), []).append(fingerprint)
    document = {"format": FORMAT, "keys": keys}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _swap(path, [sealed(document)], staging, root)
    except OSError as error:
        raise explain(error, "the list of keys cannot be written") from error


def sealed(document: Mapping[str, Any]) -> bytes:
    """A document with its seal as the last field, as in a segment's zarr.json."""
    raw = json.dumps({**document, "seal": "0" * SEAL_SIZE}, ensure_ascii=False, separators=(",", ":")).encode()
    _, seal = seal_of(raw)
    at = raw.rfind(b"0" * SEAL_SIZE)
    return raw[:at] + seal + raw[at + SEAL_SIZE :]


def _entry(segment: Segment) -> dict[str, Any]:
    with open(os.path.join(segment.path, "zarr.json"), "rb") as file:
        document = file.read()
    header = segment.header
    files = {"zarr.json": {"bytes": len(document), "blake2b": hashlib.blake2b(document, digest_size=32).hexdigest()}}
    for name, field in ((segment.shard_file, "shard"), ("rows", "rows"), ("frames", "frames")):
        if (segment.n and header[field]) or field == "rows":
            files[name] = {"bytes": header[field]["bytes"], "blake2b": header[field]["blake2b"]}
    return {"name": segment.name, "samples": segment.n, "replaces": segment.replaces, "files": files}


def _before(layout: Layout) -> dict[str, Any]:
    try:
        return read_manifest(layout)
    except (OSError, ValueError, CorruptSegmentError):
        return {}  # none yet, or a damaged one, which this replaces


def _replace(path: Path, parts: Sequence[bytes], layout: Layout) -> None:
    try:
        _swap(path, parts, layout.housekeeping / "tmp", layout.root)
    except OSError as error:
        raise explain(error, f"the manifest of {layout.key} cannot be written; all samples are stored") from error


def _swap(path: Path, parts: Sequence[bytes], staging: Path, root: Path) -> None:
    staging.mkdir(parents=True, exist_ok=True)
    staged = staging / f"{uuid.uuid4().hex}.json"
    try:
        write_file(staged, parts)
        os.rename(staged, path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    for level in path.parents[: len(path.parts) - len(root.parts)]:  # nobody else makes those of `.fstore` durable
        fsync_dir(level)

"""docs/format.md is enough to read a store: a reader written from the page alone gets the same values."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest

from featurestore import FeatureStore, Recipe

KEY = "mer2023/frame/CLIP_VIT_LARGE/emotion_peak/2"
IDS = ["-MeTTeMJBNc_0", "a/../b", "笑", "sample_00000001"]


def values(number: int, dtype: str) -> np.ndarray[Any, Any]:
    return (np.arange(6).reshape(2, 3) / 8 + number).astype(dtype)


@pytest.fixture
def recipe_dir(tmp_path: Path) -> Path:
    """The store of the page's worked example."""
    store = FeatureStore(tmp_path)
    recipe = {"weights": "example"}
    store.put_many(
        KEY,
        IDS,
        [values(number, "float32") for number in range(4)],
        recipe=recipe,
        frame_indices=[[number, number + 10] for number in range(4)],
        timestamps_s=[[number / 25, (number + 10) / 25] for number in range(4)],
        provenance=[{"sources": [], "note": {"peak": number}} for number in range(4)],
    )
    store.put_many(KEY, IDS[:1], [values(40, "float32")], recipe=recipe, overwrite=True)
    store.delete(KEY, IDS[3:])
    return tmp_path / "data" / KEY / Recipe(recipe).fingerprint


def by_the_page(recipe_dir: Path) -> dict[str, tuple[np.ndarray[Any, Any], dict[str, Any]]]:
    """{id: (row, line)} with the steps of docs/format.md and nothing of the project."""
    sound: dict[str, dict[str, Any]] = {}
    for folder in sorted((recipe_dir / "segments").iterdir()):
        if not folder.is_dir():
            continue
        document = (folder / "zarr.json").read_bytes()
        at = document.rindex(b'"seal":"') + 8
        blank = document[:at] + b"0" * 64 + document[at + 64 :]
        assert document[at : at + 64].decode() == hashlib.blake2b(blank, digest_size=32).hexdigest()
        array = json.loads(document)
        header = array["attributes"]["featurestore"]
        assert header["format"] == 1
        assert header["name"] == folder.name
        assert header["fingerprint"] == recipe_dir.name
        assert header["key"] == "/".join(recipe_dir.parts[-6:-1])
        for name, said in (("c.0.0.0", header["shard"]), ("rows", header["rows"])):
            content = (folder / name).read_bytes()
            assert len(content) == said["bytes"]
            assert hashlib.blake2b(content, digest_size=32).hexdigest() == said["blake2b"]
        if header["replaces"]:
            assert (folder / "replaces").read_text().splitlines() == header["replaces"]
        sound[folder.name] = array
    replaced = {name for array in sound.values() for name in array["attributes"]["featurestore"]["replaces"]}
    found: dict[str, tuple[np.ndarray[Any, Any], dict[str, Any]]] = {}
    for name in sorted(sound.keys() - replaced):
        (n, n_frames, dim), header = sound[name]["shape"], sound[name]["attributes"]["featurestore"]
        dtype = np.dtype(sound[name]["data_type"]).newbyteorder("<")
        shard = (recipe_dir / "segments" / name / "c.0.0.0").read_bytes()
        rows = (recipe_dir / "segments" / name / "rows").read_bytes()
        assert hashlib.blake2b(rows[: 32 * n], digest_size=32).hexdigest() == header["rows"]["table_blake2b"]
        records = [struct.unpack_from("<16sQII", rows, 32 * row) for row in range(n)]
        ends = [record[1] for record in records[1:]] + [len(rows)]
        payload = n_frames * dim * dtype.itemsize
        for row, ((digest, start, crc, line_crc), end) in enumerate(zip(records, ends, strict=True)):
            line = rows[start:end]
            assert google_crc32c.value(line) == line_crc
            told = json.loads(line)
            assert hashlib.blake2b(told["id"].encode(), digest_size=16).digest() == digest
            offset, size = struct.unpack_from("<QQ", shard, len(shard) - 4 - 16 * (n - row))
            if header["codec"] is None:
                assert (offset, size) == (row * (payload + 4), payload + 4)
                stored = raw = shard[offset : offset + payload]
                assert struct.unpack_from("<I", shard, offset + payload) == (crc,)
            else:
                from numcodecs import Zstd

                stored = shard[offset : offset + size]
                raw = Zstd().decode(stored)
            assert google_crc32c.value(stored) == crc
            found.setdefault(told["id"], (np.frombuffer(raw, dtype).reshape(n_frames, dim), told))
    return found


def test_the_page_is_enough_to_read_a_store(recipe_dir: Path) -> None:
    found = by_the_page(recipe_dir)
    assert found.keys() == set(IDS[:3])
    for id, number in zip(IDS, (40, 1, 2), strict=False):
        np.testing.assert_array_equal(found[id][0], values(number, "float32"))
    assert found["笑"][1] == {
        "id": "笑",
        "frame_indices": [2, 12],
        "timestamps_s": [2 / 25, 12 / 25],
        "provenance": {"sources": [], "note": {"peak": 2}},
    }


def test_the_page_is_enough_to_read_compressed_rows(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.put_many(KEY, ["half", "too"], [values(n, "float16") for n in (5, 6)], recipe={"dtype": "float16"})
    store.compact(KEY, codec="zstd")
    found = by_the_page(tmp_path / "data" / KEY / Recipe({"dtype": "float16"}).fingerprint)
    np.testing.assert_array_equal(found["half"][0], values(5, "float16"))
    np.testing.assert_array_equal(found["too"][0], values(6, "float16"))


def test_the_worked_example_of_the_page(recipe_dir: Path) -> None:
    headers = {
        path.parent.name: json.loads(path.read_text())["attributes"]["featurestore"]
        for path in recipe_dir.glob("segments/*/zarr.json")
    }
    assert sorted(len(header["replaces"]) for header in headers.values()) == [0, 1, 2]
    (last,) = (header for header in headers.values() if len(header["replaces"]) == 2)
    assert last["shard"]["bytes"] == 136 == 3 * (24 + 4) + 3 * 16 + 4
    page = (Path(__file__).parents[1] / "docs" / "format.md").read_text()
    assert "= 136 bytes" in page


def test_a_mistake_in_the_page_would_be_seen(recipe_dir: Path) -> None:
    """One byte of a row, its record, its line or the seal: the reader of the page refuses each."""
    (last,) = (path.parent for path in recipe_dir.glob("segments/*/replaces") if len(path.read_text().split()) == 2)
    for name, at in (("c.0.0.0", 3), ("rows", 5), ("rows", -5), ("zarr.json", 60)):
        content = bytearray((last / name).read_bytes())
        content[at] ^= 1
        whole = (last / name).read_bytes()
        (last / name).write_bytes(content)
        with pytest.raises(AssertionError):
            by_the_page(recipe_dir)
        (last / name).write_bytes(whole)
    by_the_page(recipe_dir)

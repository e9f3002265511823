"""A reader in another language finds the same: zarrita, in JavaScript, on segments and on packs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from store_factories import segment_dirs
from test_packs import FORMS, filled

from featurestore.packs import pack

NODE = shutil.which("node")
ZARRITA = os.environ.get("FEATURESTORE_ZARRITA", "")
READER = Path(__file__).with_name("read_zarr.mjs")
pytestmark = [
    pytest.mark.skipif(not NODE, reason="node is not installed"),
    pytest.mark.skipif(not ZARRITA, reason="FEATURESTORE_ZARRITA names no zarrita"),
]


def by_zarrita(folders: list[Path]) -> list[Any]:
    command = [str(NODE), str(READER), ZARRITA, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def by_zarr_python(folder: Path) -> dict[str, Any]:
    array = zarr.open_array(folder, mode="r")
    values = np.asarray(array[:])
    text = values.dtype.kind in "TO"
    return {
        "dtype": "string" if text else str(values.dtype),
        "shape": list(values.shape),
        "axes": list(array.metadata.dimension_names or ()),  # type: ignore[union-attr]
        **({"texts": values.tolist()} if text else {"sha256": hashlib.sha256(values.tobytes()).hexdigest()}),
    }


@pytest.mark.parametrize("form", FORMS)
def test_javascript_reads_every_array_of_a_store_and_of_a_pack(tmp_path: Path, form: str) -> None:
    key, _, dtype, _ = FORMS[form]
    if dtype is np.float16:
        has = subprocess.run([str(NODE), "-p", "typeof Float16Array"], capture_output=True, text=True, check=True)
        if has.stdout.strip() == "undefined":
            pytest.skip("this node has no Float16Array")
    store = filled(tmp_path / "store", form)
    pack(store, key, tmp_path / "pack")
    folders = segment_dirs(tmp_path / "store", key) + [path.parent for path in tmp_path.glob("pack/*/zarr.json")]
    assert len(folders) >= 8
    assert by_zarrita(folders) == [by_zarr_python(folder) for folder in folders]


def test_javascript_refuses_a_damaged_pack(tmp_path: Path) -> None:
    """Else the test above would not notice that checksums are not looked at."""
    key = FORMS["tokens"][0]
    pack(filled(tmp_path / "store", "tokens"), key, tmp_path / "pack")
    (file,) = (path for path in tmp_path.glob("pack/values/c/**/*") if path.is_file())
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    whole = by_zarr_python(tmp_path / "pack" / "id")
    assert by_zarrita([tmp_path / "pack" / "id"]) == [whole]
    with pytest.raises(AssertionError, match="Error"):
        by_zarrita([tmp_path / "pack" / "values"])

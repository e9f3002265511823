"""What is still open when Python ends is closed without a word: users would take a traceback for damage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from featurestore.storage import reader

STORED = """
import sys
import numpy as np
from featurestore import FeatureStore
store = FeatureStore(sys.argv[1])
key = "mine/frame/E.none/uniform/2"
store.put_many(key, ["a", "b", "c"], np.ones((3, 2, 4), np.float32), recipe={"made": 1})
store = FeatureStore(sys.argv[1])
"""
# torch is loaded first: what Python takes away, and when, depends on it.
WITH_TORCH = (
    """
import torch
from torch.utils.data import DataLoader
"""
    + STORED
    + """
from featurestore.torch import FeatureDataset, loader
dataset = FeatureDataset(store, key)
"""
)
COMPUTING = """
import sys
from pathlib import Path
from featurestore import Extractor, FeatureKey, FeatureStore, Sample, register_encoder
from media_factories import write_clip
samples = {id: Sample(id, video=write_clip(Path(sys.argv[1], id + ".mp4"), 8)) for id in "abc"}
register_encoder("MEAN", "encoder_factories:MeanColour")
compute = Extractor({"mer2023": samples}, workers=1)
store = FeatureStore(sys.argv[1] + "/store", compute=compute)
key = "mer2023/frame/MEAN/uniform/2"
"""

SCRIPTS = {
    "rows": STORED + "row, rows = store.get(key, 'a'), store.get_many(key, ['a', 'b']); ids = iter(store.ids(key))",
    "memory": STORED + "store = FeatureStore(sys.argv[1], memory_bytes=99999); row = store.get(key, 'a'); sys.exit(0)",
    "rows beside torch": "import torch" + STORED + "row = store.get(key, 'a')",
    "an iterator of a DataLoader": WITH_TORCH
    + "batches = iter(DataLoader(dataset, batch_size=2, collate_fn=dataset.collate)); next(batches)",
    "an iterator of a DataLoader with workers": WITH_TORCH
    + "batches = iter(DataLoader(dataset, num_workers=1, collate_fn=dataset.collate)); next(batches)",
    "an iterator of a loader, kept by torch": WITH_TORCH + "torch.kept = iter(loader(dataset, 2)); next(torch.kept)",
    "a cycle": WITH_TORCH + "dataset.itself = dataset; dataset[0]",
    "decode workers": COMPUTING + "store.get(key, 'a'); made = compute(FeatureKey.parse(key), samples); next(made)",
}  # fmt: skip


def said_by(code: str, folder: Path) -> str:
    """What a script writes to stderr; it must end well."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_is_said_at_the_end(name: str, tmp_path: Path) -> None:
    assert said_by(SCRIPTS[name], tmp_path) == ""


def test_a_descriptor_that_needs_the_module_os_at_the_end_is_caught(tmp_path: Path) -> None:
    """The end of Python takes modules away in an order that nobody promises, so it is made sure of here."""
    script = (
        STORED
        + """
row = store.get(key, "a")
import featurestore.storage.reader as reader
{change}
kept = reader._Descriptor(__file__ if "__file__" in globals() else sys.argv[1])
reader.os = None
del kept
"""
    )
    needy = "reader._Descriptor.__del__ = lambda self: self.number >= 0 and reader.os.close(self.number)"
    assert "'NoneType' object has no attribute 'close'" in said_by(script.replace("{change}", needy), tmp_path)
    assert said_by(script.replace("{change}", ""), tmp_path) == ""


def test_a_descriptor_is_closed_once(tmp_path: Path) -> None:
    closed: list[int] = []
    descriptor = reader._Descriptor(str(tmp_path))
    number = descriptor.number
    descriptor.__del__(closed.append)
    assert closed == [number]

"""DataLoaders beside merges and removals: the right rows in every epoch, with any number of workers; misses in them."""

from __future__ import annotations

import collections
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from encoder_factories import NAMES
from figures import Figures
from media_factories import write_clip
from mutants import mutant
from oracle import KEY, RECIPE, value
from workers import Worker

from featurestore import Extractor, FeatureKey, Features, FeatureStore, Recipe, register_encoder
from featurestore.errors import MissingFeatureError
from featurestore.sample import Sample
from featurestore.storage import reader

torch_data = pytest.importorskip("torch.utils.data")
from featurestore.torch import FeatureDataset  # noqa: E402 - imports torch

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning", "ignore:This DataLoader will create 4 worker:UserWarning"
)
IDS = [f"sample_{number}" for number in range(256)]
BATCH = 16
PROOF = "DataLoaders beside merges and removals"


def fill(root: Path) -> FeatureStore:
    store = FeatureStore(root)
    for start in range(0, len(IDS), 32):
        ids = IDS[start : start + 32]
        store.put_many(KEY, ids, np.stack([value(id, 1) for id in ids]), recipe=RECIPE)
    return store


def stir(root: Path, stop: Path) -> int:
    """Put other samples, merge all, remove at once, until the file is there; how often."""
    turns = 0
    while not stop.exists():
        store = FeatureStore(root)
        store.put_many(KEY, [f"other_{turns}"], value("other", turns)[None], recipe=RECIPE)
        feature_set = store.feature_set(KEY)
        assert feature_set is not None
        feature_set.compact(grace_s=0)
        turns += 1
    return turns


def epochs(root: Path, workers: int, persistent: bool, count: int) -> tuple[int, list[str]]:
    """(rows that came, those that were wrong) in so many epochs, each in another order."""
    dataset = FeatureDataset(FeatureStore(root, memory_bytes=4_000), KEY, IDS)
    loader = torch_data.DataLoader(
        dataset,
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=persistent,
        collate_fn=dataset.collate,
    )
    rows, wrong = 0, []
    for _ in range(count):
        seen = []
        for batch in loader:
            seen += batch.ids
            for id, values in zip(batch.ids, batch.features.numpy(), strict=True):
                wrong += [] if np.array_equal(values, value(id, 1)) else [id]
        wrong += [] if sorted(seen) == sorted(IDS) else ["an epoch is not every sample once"]
        rows += len(seen)
    del loader
    return rows, wrong


@pytest.mark.parametrize(
    ("workers", "persistent"),
    [(0, False), (2, False), (4, False), (2, True), (4, True)],
    ids=["0", "2", "4", "2 persistent", "4 persistent"],
)
def test_every_epoch_has_every_sample_once_and_right(
    workers: int, persistent: bool, fast_disk: Path, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    root = fast_disk / f"loader-{workers}-{persistent}"
    fill(root)
    stop = root.with_suffix(".stop")
    stirring = Worker(functools.partial(stir, root, stop))
    try:
        rows, wrong = epochs(root, workers, persistent, rounds(3, 30))
    finally:
        stop.touch()
        turns = stirring.result()
    figures.record(PROOF, rows, "rows", {"wrong": len(wrong)}, {"merges": turns})
    assert wrong == []
    assert turns > 0


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_started_anew_read_the_same(method: str, fast_disk: Path) -> None:
    root = fast_disk / f"loader-{method}"
    dataset = FeatureDataset(fill(root), KEY, IDS)
    loader = torch_data.DataLoader(
        dataset, batch_size=64, num_workers=1, multiprocessing_context=method, collate_fn=dataset.collate
    )
    batches = list(loader)
    assert [id for batch in batches for id in batch.ids] == IDS
    for batch in batches:
        np.testing.assert_array_equal(batch.features.numpy(), np.stack([value(id, 1) for id in batch.ids]))


def test_a_reader_that_gives_up_what_was_merged_is_caught(fast_disk: Path, figures: Figures) -> None:
    root = fast_disk / "loader-mutant"
    fill(root)
    dataset = FeatureDataset(FeatureStore(root), KEY, IDS)
    assert len(dataset[0])  # has looked at the disk, and opened one segment of eight
    feature_set = FeatureStore(root).feature_set(KEY)
    assert feature_set is not None
    feature_set.compact(grace_s=0)
    read_all = functools.partial(list, (dataset.__getitems__(range(at, at + BATCH)) for at in range(0, 256, BATCH)))
    with mutant(reader.Reader.recover, "error.errno in GONE and not again", "False"):
        with pytest.raises((MissingFeatureError, OSError)):
            read_all()
    figures.caught(PROOF, "gives up what was merged")


class Made:
    """A compute that needs no decode workers, and writes down what it made."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def recipe(self, key: FeatureKey) -> Recipe:
        return RECIPE

    def __call__(self, key: FeatureKey, ids: Sequence[str]) -> Iterator[tuple[str, Features]]:
        for id in ids:
            with self.log.open("ab", buffering=0) as log:
                log.write(f"{id}\n".encode())
            time.sleep(0.001)
            yield id, Features(value(id, 1))


def test_misses_in_workers_are_made_once(fast_disk: Path, figures: Figures) -> None:
    """Where a compute needs no decode workers, workers of a DataLoader make what is missing, and share it."""
    log = fast_disk / "made.log"
    store = FeatureStore(fast_disk / "loader-misses", compute=Made(log))
    # Each sample twice, so that two workers want it at about the same time.
    dataset = FeatureDataset(store, KEY, [id for id in IDS for _ in range(2)])
    loader = torch_data.DataLoader(dataset, batch_size=1, num_workers=4, collate_fn=dataset.collate)
    for batch in loader:
        np.testing.assert_array_equal(batch.features.numpy()[0], value(batch.ids[0], 1))
    times = collections.Counter(log.read_text().split())
    twice = sum(times.values()) - len(IDS)
    figures.record("misses in workers of a DataLoader", len(dataset), "requests", {"computed twice": twice})
    assert twice == 0
    assert times.keys() == set(IDS)


def test_a_miss_in_a_worker_that_would_need_decode_workers_says_what_to_do(fast_disk: Path) -> None:
    register_encoder("MeanColour", NAMES["MeanColour"])
    clip = write_clip(fast_disk / "loader.mp4", 8)
    key = FeatureKey("demo", "frame", "MeanColour", "uniform", 4)
    samples = {"demo": {"a": Sample("a", video=clip)}}
    with Extractor(samples, workers=1) as extractor:
        dataset = FeatureDataset(FeatureStore(fast_disk / "loader-decode", compute=extractor), key, ["a"])
        loader = torch_data.DataLoader(dataset, num_workers=1, collate_fn=dataset.collate)
        with pytest.raises(MissingFeatureError, match=r"`featurestore\.extract`.*num_workers=0"):
            list(loader)
        assert len(dataset[0])  # in this process it is made
        assert [batch.ids for batch in loader] == [["a"]]


def test_no_worker_is_left_behind() -> None:
    import multiprocessing

    until = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < until:
        time.sleep(0.05)
    assert multiprocessing.active_children() == []

"""Features as PyTorch tensors: the same numbers, in the order asked for, with and without workers."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from featurestore import FeatureKey, FeatureStore, MissingFeatureError
from featurestore.errors import ConfigError
from featurestore.torch import Batch, FeatureDataset, loader

KEY = FeatureKey("d", "frame", "E", "uniform", 4)
RAGGED = FeatureKey("d", "au", "CLIP_TEXT", "au_summary", "all")
IDS = [f"s{i}" for i in range(10)]
VALUES = np.random.default_rng(0).standard_normal((10, 4, 6), dtype=np.float32)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = FeatureStore(tmp_path)
    store.put_many(KEY, IDS, VALUES, recipe={"made": "here"})
    store.put_many(RAGGED, ["a", "b", "c"], [VALUES[0, :n] for n in (1, 3, 2)], recipe={"made": "here"})
    return store


def test_items_are_the_stored_rows(store: FeatureStore) -> None:
    dataset = FeatureDataset(store, KEY)
    assert len(dataset) == 10
    for i, id in enumerate(dataset.ids):
        np.testing.assert_array_equal(dataset[i].numpy(), VALUES[IDS.index(id)])


def test_ids_keep_their_order_and_a_transform_is_applied(store: FeatureStore) -> None:
    dataset = FeatureDataset(store, str(KEY), ["s7", "s2"], transform=lambda tensor: tensor * 2)
    np.testing.assert_array_equal(dataset[0].numpy(), VALUES[7] * 2)
    (batch,) = loader(dataset, 8)
    np.testing.assert_array_equal(batch.features.numpy(), VALUES[[7, 2]] * 2)
    assert batch.ids == ["s7", "s2"]


def test_loader_gives_every_sample_once_in_an_order_that_the_seed_decides(store: FeatureStore) -> None:
    dataset = FeatureDataset(store, KEY)
    batches = list(loader(dataset, 4, shuffle=True, seed=3))
    assert [len(batch.ids) for batch in batches] == [4, 4, 2]
    ids = [id for batch in batches for id in batch.ids]
    assert sorted(ids) == IDS
    assert ids != IDS
    assert ids == [id for batch in loader(dataset, 4, shuffle=True, seed=3) for id in batch.ids]
    assert ids != [id for batch in loader(dataset, 4, shuffle=True, seed=4) for id in batch.ids]
    for batch in batches:
        np.testing.assert_array_equal(batch.features.numpy(), VALUES[[IDS.index(id) for id in batch.ids]])
        assert batch.lengths.tolist() == [4] * len(batch.ids)


def test_drop_last_leaves_out_the_short_batch(store: FeatureStore) -> None:
    batches = loader(FeatureDataset(store, KEY), 4, drop_last=True)
    assert len(batches) == len(list(batches)) == 2


def test_rows_of_several_lengths_are_padded_and_counted(store: FeatureStore) -> None:
    (batch,) = loader(FeatureDataset(store, RAGGED), 3)
    assert batch.features.shape == (3, 3, 6)
    assert batch.lengths.tolist() == [1, 3, 2]
    for row, n in zip(batch.features.numpy(), (1, 3, 2), strict=True):
        np.testing.assert_array_equal(row[:n], VALUES[0, :n])
        assert not row[n:].any()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_dataloader_gives_the_same_batches(store: FeatureStore, workers: int) -> None:
    dataset = FeatureDataset(store, KEY)
    batches = list(DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=dataset.collate))
    for ours, theirs in zip(loader(dataset, 4), batches, strict=True):
        assert isinstance(theirs, Batch)
        assert ours.ids == theirs.ids
        assert torch.equal(ours.features, theirs.features)


def test_tensors_are_the_callers_own(store: FeatureStore) -> None:
    dataset = FeatureDataset(store, KEY)
    dataset[0].zero_()
    next(iter(loader(dataset, 4))).features.zero_()
    np.testing.assert_array_equal(dataset[0].numpy(), VALUES[0])


def test_dataset_survives_pickling(store: FeatureStore) -> None:
    dataset = pickle.loads(pickle.dumps(FeatureDataset(store, KEY)))
    np.testing.assert_array_equal(dataset[3].numpy(), VALUES[3])


def test_missing_sample_names_the_command(store: FeatureStore) -> None:
    with pytest.raises(MissingFeatureError, match=r"'nobody' is not stored .* `fstore extract d/frame/E/uniform/4"):
        next(iter(loader(FeatureDataset(store, KEY, ["nobody"]), 1)))


def test_a_dataset_of_nothing_is_an_error_and_no_epoch_of_no_batches(store: FeatureStore) -> None:
    with pytest.raises(MissingFeatureError, match=r"nothing is stored under d/frame/EE/uniform/4 .*`fstore ls`"):
        FeatureDataset(store, "d/frame/EE/uniform/4")
    assert len(FeatureDataset(store, KEY, [])) == 0


def test_batch_size_must_be_positive(store: FeatureStore) -> None:
    with pytest.raises(ConfigError, match="batch_size 0 is not a positive number"):
        loader(FeatureDataset(store, KEY), 0)

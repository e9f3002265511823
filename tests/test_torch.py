"""Features as PyTorch tensors: the same numbers, in the order asked for, with and without workers."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, Dataset, SequentialSampler, Subset, random_split

from featurestore import FeatureKey, FeatureStore, MissingFeatureError
from featurestore.errors import ConfigError, ValuesError
from featurestore.storage.reader import Found, Reader
from featurestore.torch import Batch, FeatureDataset, Item, loader

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
        assert dataset[i].id == id
        np.testing.assert_array_equal(dataset[i].features.numpy(), VALUES[IDS.index(id)])


def test_ids_keep_their_order_and_a_transform_is_applied(store: FeatureStore) -> None:
    dataset = FeatureDataset(store, str(KEY), ["s7", "s2"], transform=lambda tensor: tensor * 2)
    np.testing.assert_array_equal(dataset[0].features.numpy(), VALUES[7] * 2)
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
    dataset[0].features.zero_()
    next(iter(loader(dataset, 4))).features.zero_()
    np.testing.assert_array_equal(dataset[0].features.numpy(), VALUES[0])


def test_dataset_survives_pickling(store: FeatureStore) -> None:
    dataset = pickle.loads(pickle.dumps(FeatureDataset(store, KEY)))
    np.testing.assert_array_equal(dataset[3].features.numpy(), VALUES[3])


def test_missing_sample_says_what_would_make_it(store: FeatureStore) -> None:
    with pytest.raises(MissingFeatureError, match=r"'nobody' is not stored .* open it with one: "):
        next(iter(loader(FeatureDataset(store, KEY, ["nobody"]), 1)))


def test_a_dataset_of_nothing_is_an_error_and_no_epoch_of_no_batches(store: FeatureStore) -> None:
    with pytest.raises(
        MissingFeatureError,
        match=r"nothing is stored under d/frame/EE/.*; `store\.keys\(\)` lists what is; run ",
    ):
        FeatureDataset(store, "d/frame/EE/uniform/4")
    assert len(FeatureDataset(store, KEY, [])) == 0


def test_batch_size_must_be_positive(store: FeatureStore) -> None:
    with pytest.raises(ConfigError, match="batch_size 0 is not a positive number"):
        loader(FeatureDataset(store, KEY), 0)


# -- one kind of item, whichever way it is asked for -------------------------------------------------------------------


def are(items: Sequence[Item], numbers: Sequence[int]) -> None:
    assert [item.id for item in items] == [IDS[number] for number in numbers]
    for item, number in zip(items, numbers, strict=True):
        assert type(item) is Item
        np.testing.assert_array_equal(item.features.numpy(), VALUES[number])


class Counted(FeatureStore):
    """Counts what is asked of it."""

    asked: list[str]

    def get(self, *args: Any, **options: Any) -> Any:
        self.asked.append("get")
        return super().get(*args, **options)

    def get_many(self, *args: Any, **options: Any) -> Any:
        self.asked.append("get_many")
        return super().get_many(*args, **options)


@pytest.fixture
def counted(store: FeatureStore) -> FeatureDataset:
    again = Counted(store.root)
    again.asked = []
    return FeatureDataset(again, KEY)


@pytest.mark.parametrize(
    ("index", "numbers"),
    [
        (slice(2, 8, 3), [2, 5]),
        (slice(None, None, -4), [9, 5, 1]),
        (slice(20, 30), []),
        ([3, -1, 3], [3, 9, 3]),
        ((1, 2), [1, 2]),
        (range(4), [0, 1, 2, 3]),
        (np.array([4, -2]), [4, 8]),
        (np.array([4]), [4]),
        (np.flatnonzero(VALUES[:, 0, 0] > 0), np.flatnonzero(VALUES[:, 0, 0] > 0).tolist()),
        (torch.tensor([5, 0]), [5, 0]),
        (torch.tensor([5]), [5]),
        ([], []),
    ],
)
def test_several_numbers_give_a_list_of_items_with_one_read(
    counted: FeatureDataset, index: Any, numbers: list[int]
) -> None:
    are(counted[index], numbers)
    are(counted.__getitems__(numbers), numbers)
    assert counted.store.asked == ["get_many", "get_many"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("index", [3, -7, np.int64(3), np.array(3), torch.tensor(3), np.uint8(3)])
def test_one_number_gives_an_item(store: FeatureStore, index: Any) -> None:
    are([FeatureDataset(store, KEY)[index]], [3])


def test_a_dataset_ends_like_a_list(store: FeatureStore) -> None:
    dataset = FeatureDataset(store, KEY)
    are([*dataset], range(10))
    with pytest.raises(IndexError):
        dataset[10]


@pytest.mark.parametrize(
    ("index", "form"),
    [
        ([True] + [False] * 9, "bool"),
        (np.array([True] + [False] * 9), "bool"),
        (torch.tensor([True] + [False] * 9), "bool"),
        ("s3", "str"),
        (2.0, "float"),
        (None, "NoneType"),
        (np.array([[1, 2]]), "list"),
    ],
)
def test_masks_and_ids_are_no_numbers(store: FeatureStore, index: Any, form: str) -> None:
    with pytest.raises(ValuesError, match=f"by numbers, not by {form}: of a mask pass numpy.flatnonzero"):
        FeatureDataset(store, KEY)[index]


def joined(store: FeatureStore) -> ConcatDataset[Item]:
    other = FeatureKey("e", "frame", "E", "uniform", 4)
    if not store.ids(other):
        store.put_many(other, ["x", "y"], VALUES[:2] + 1, recipe={"made": "here"})
    return ConcatDataset([FeatureDataset(store, KEY), FeatureDataset(store, other)])


def wrapped(store: FeatureStore, kind: str) -> Dataset[Item]:
    plain = FeatureDataset(store, KEY)
    made: dict[str, Dataset[Item]] = {
        "plain": plain,
        "subset": Subset(plain, [7, 1, 1]),
        "subset of a subset": Subset(Subset(plain, [7, 1, 3, 5]), [3, 0]),
        "split": random_split(plain, [6, 4], torch.Generator().manual_seed(0))[0],
        "joined": joined(store),
        "subset of joined": Subset(joined(store), [11, 3, 10, 0]),
        "joined subsets": ConcatDataset([Subset(plain, [5]), joined(store), Subset(plain, [2, 4])]),
    }
    return made[kind]


KINDS = ["plain", "subset", "subset of a subset", "split", "joined", "subset of joined", "joined subsets"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_a_batch_gives_the_same(store: FeatureStore, kind: str) -> None:
    dataset = wrapped(store, kind)
    collate = FeatureDataset(store, KEY).collate
    items = [dataset[i] for i in range(len(dataset))]  # type: ignore[arg-type]
    whole = collate(items)
    ways: dict[str, Any] = {
        "loader": loader(dataset, 3),
        "DataLoader": DataLoader(dataset, batch_size=3, collate_fn=collate),
        "one by one": (collate([item]) for item in DataLoader(dataset, batch_size=None)),
    }
    if kind == "plain":  # only it is asked for several at once by a sampler of batches
        numbers = BatchSampler(SequentialSampler(range(10)), 3, drop_last=False)
        ways["BatchSampler"] = DataLoader(dataset, batch_size=None, sampler=numbers, collate_fn=collate)
    for name, batches in ways.items():
        found = list(batches)
        assert [id for batch in found for id in batch.ids] == whole.ids, name
        assert torch.equal(torch.cat([batch.features for batch in found]), whole.features), name
        assert {type(batch) for batch in found} == {Batch}


@pytest.fixture
def takes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples each read of a batch was of."""
    sizes: list[int] = []
    take = Reader.take

    def counting(self: Reader, found: Found, out: Any = None) -> Any:
        sizes.append(len(found))
        return take(self, found, out)

    monkeypatch.setattr(Reader, "take", counting)
    return sizes


def test_a_loader_of_a_subset_reads_once_a_batch(store: FeatureStore, takes: list[int]) -> None:
    dataset = FeatureDataset(store, KEY)
    assert [batch.ids for batch in loader(Subset(dataset, [1, 3, 5, 7, 9]), 3)] == [["s1", "s3", "s5"], ["s7", "s9"]]
    assert takes == [3, 2]
    takes.clear()
    both = ConcatDataset([dataset, Subset(dataset, [0])])
    assert len(next(iter(loader(both, 11, shuffle=True))).ids) == 11
    assert sorted(takes) == [1, 10]


def test_a_loader_looks_its_samples_up_once_an_epoch(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    find_all = Reader.find_all

    def counting(self: Reader, ids: Sequence[str]) -> Found:
        looked.append(len(ids))
        return find_all(self, ids)

    monkeypatch.setattr(Reader, "find_all", counting)
    batches = loader(FeatureDataset(store, KEY), 3, shuffle=True)
    for _ in range(2):
        for batch in batches:
            np.testing.assert_array_equal(batch.features.numpy(), VALUES[[int(id[1:]) for id in batch.ids]])
    assert looked == [10, 10]
    assert store.stats.disk_hits == 20


def test_what_changes_during_an_epoch_shows_once_this_process_has_seen_it(store: FeatureStore) -> None:
    epoch = iter(loader(FeatureDataset(store, KEY), 2))
    next(epoch)
    recipe = next(iter(store.recipes(KEY).values()))
    store.put_many(KEY, ["s3"], VALUES[:1], recipe=recipe, overwrite=True)
    assert next(epoch).features[1].tolist() == VALUES[0].tolist()
    store.delete(KEY, ["s5"])
    with pytest.raises(MissingFeatureError, match="s5"):
        next(epoch)


def test_with_a_memory_tier_a_loader_asks_the_tier(store: FeatureStore) -> None:
    tiered = FeatureStore(store.root, memory_bytes=1 << 20)
    for _ in range(2):
        assert len(list(loader(FeatureDataset(tiered, KEY), 5))) == 2
    assert (tiered.stats.disk_hits, tiered.stats.memory_hits) == (10, 10)


def test_without_a_collate_function_pytorch_makes_ids_and_a_tensor(store: FeatureStore) -> None:
    ids, features = next(iter(DataLoader(FeatureDataset(store, KEY), batch_size=2)))
    assert list(ids) == ["s0", "s1"]
    np.testing.assert_array_equal(features.numpy(), VALUES[:2])


class Labelled(FeatureDataset):
    """What a user may write: an item with its label."""

    def __getitem__(self, index: Any) -> Any:
        item = super().__getitem__(index)
        return item, int(item.id[1:])


def test_what_a_subclass_does_to_an_item_is_not_passed_by(store: FeatureStore) -> None:
    dataset = Labelled(store, KEY)
    for _, numbers in DataLoader(dataset, batch_size=5, shuffle=True):
        assert len(numbers) == 5
    assert [number for _, number in dataset.__getitems__([4, 2])] == [4, 2]
    with pytest.raises(ValuesError, match=r"takes items of a FeatureDataset, \(id, tensor\), not tuple"):
        next(iter(loader(dataset, 2)))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([torch.zeros(8, 4)], r"not a Tensor of torch.float32 \(8, 4\)"),
        ([torch.zeros(2, 4)], r"not a Tensor of torch.float32 \(2, 4\)"),
        ([("a", np.zeros((2, 4)))], r"'a' is a ndarray of float64 \(2, 4\), not a tensor of rows; where a transform"),
        ([("a", {"x": 1})], "'a' is dict, not a tensor of rows"),
        ([("a", torch.zeros(()))], "not a tensor of rows"),
        ([("a", torch.zeros(1, 4), 3)], r"\(id, tensor\), not tuple"),
        ([(3, torch.zeros(1, 4))], r"\(id, tensor\), not tuple"),
        ([("a", torch.zeros(1, 4)), ("b", torch.zeros(1, 5))], r"of \(4,\) torch.float32 \('a'\) and \(5,\) .*'b'"),
        ([("a", torch.zeros(1, 4)), ("b", torch.zeros(1, 4).half())], r"rows of .* and \(4,\) torch.float16 \('b'\)"),
        ([], "no batch can be made of rows of no samples"),
    ],
)
def test_collate_refuses_what_are_no_items_of_one_form(store: FeatureStore, items: Any, message: str) -> None:
    with pytest.raises(ValuesError, match=message):
        FeatureDataset(store, KEY).collate(items)


def test_a_loader_is_of_datasets_of_features(store: FeatureStore) -> None:
    class Other(Dataset[Item]):
        pass

    for dataset in (Other(), Subset(Other(), []), ConcatDataset([FeatureDataset(store, KEY), Subset(Other(), [0])])):
        with pytest.raises(ConfigError, match="loader takes a FeatureDataset, or a Subset or ConcatDataset of such"):
            loader(dataset, 1)


def test_batches_are_on_the_cpu_whatever_the_default_device(store: FeatureStore) -> None:
    before = torch.get_default_device()
    torch.set_default_device("meta")
    try:
        for key in (KEY, RAGGED):
            (batch,) = loader(FeatureDataset(store, key), 10)
            assert batch.lengths.device.type == batch.features.device.type == "cpu"
            assert batch.lengths.tolist()
    finally:
        torch.set_default_device(before)


@pytest.mark.parametrize("name", ["torch", "torch.utils.data"])
def test_without_torch_one_line_says_what_to_install(name: str) -> None:
    """A module that is None in sys.modules cannot be imported: the only part of this that is arranged."""
    code = f"import sys; sys.modules[{name!r}] = None; import featurestore.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    if name == "torch":
        assert "MissingPackageError: torch is not installed; " in last
        assert "pip install 'featurestore[encoders]'" in last
        assert "During handling" not in done.stderr
    else:  # torch is there: what is wrong with it is not to be hidden
        assert "MissingPackageError" not in done.stderr
        assert "torch.utils.data" in last

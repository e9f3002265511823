"""Stores that no store wrote: forged segments whose checksums are right, foreign documents, links and bombs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from forging import Forged
from hostile import Bait, any_of, bent, bent_often, damaged, odd, odd_text, rendered, spoil
from hostile_files import Case, refusing
from oracle import ALL, AXES, KEY, RECIPE, value

from featurestore import Failure, FeatureKey, FeatureStore
from featurestore.storage.reader import crc32c

IDS = ("a", "b", "c", "é/../d")
EXTREMES = (0, 1, 2**31, 2**40, 2**63, 2**64 - 1)


def make_store(root: Path) -> Path:
    """Two keys, one of them ragged with frames of two axes; segments, of which some replace others, and a failure."""
    store = FeatureStore(root)
    for key, ids in ((KEY, IDS), (ALL, IDS[:2])):
        for version, some in enumerate((ids[:-1], ids[-1:], ids[:1]), 1):
            values = [value(id, version, key) for id in some]
            notes = [
                {"sources": [{"path": "x.mp4", "size": 1, "mtime_ns": 2, "sha256": "0"}], "note": {}} for _ in some
            ]
            frames = [np.arange(len(one)) for one in values]
            seconds = [np.arange(len(one)) / 25 for one in values]
            columns: dict[str, Any] = {"frame_indices": frames, "timestamps_s": seconds, "provenance": notes}
            store.put_many(key, some, values, recipe=RECIPE, axes=AXES.get(key), overwrite=True, **columns)
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    feature_set.fail("broken", Failure("media", "no such stream", sources=({"path": "x", "size": 1, "mtime_ns": 2},)))
    return root


# -- forging -----------------------------------------------------------------------------------------------------------


def _header(random: Random, forged: Forged, bait: Bait) -> None:
    """Any value of zarr.json another one."""
    how = random.random()
    if how < 0.5:
        changed = bent_often(random, dict(forged.header), bait)
        forged.document["attributes"]["featurestore"] = changed
    elif how < 0.6:
        forged.document["shape"] = [random.choice((length, *EXTREMES)) for length in forged.document["shape"]]
        if random.random() < 0.5:
            forged.fit(forged.document["shape"])
    elif how < 0.7:
        forged.header["replaces"] = [bait.path(random), odd(random, bait), *os.listdir(forged.path.parent)]
    elif how < 0.8:
        part = random.choice([name for name in ("shard", "rows", "frames") if forged.header[name] is not None])
        forged.header[part]["bytes"] = random.choice((*EXTREMES, -1, None, "1", 1.5))
    elif how < 0.85:
        forged.header["needs"] = random.choice((["masks"], [odd(random, bait)], odd(random, bait)))
    else:
        forged.document = bent_often(random, forged.document, bait)
    forged.seal(_as_bytes)


def _as_bytes(document: Any) -> bytes:
    return rendered(document, ensure_ascii=False, separators=(",", ":"))


def _table(random: Random, forged: Forged, bait: Bait) -> None:
    """Lines that begin where they should not."""
    text = b"".join(forged.lines)
    end = forged.table.nbytes + len(text)
    how = random.random()
    if how < 0.4:
        places = forged.table["line"]
        for _ in range(random.choice((1, 2, 5))):
            places[random.randrange(forged.n)] = random.choice((0, end, end + 1, 2**63, forged.table.nbytes, end - 1))
    elif how < 0.7:
        # Many rows, each of which begins at the start and ends at the end of all the lines.
        n = random.choice((1_000, 20_000))
        _resize(forged, n)
        text = forged.lines[0] + b" " * random.choice((0, 1_000_000))
        begin = forged.table.nbytes
        forged.table["line"] = np.where(np.arange(n) % 2 == 0, begin, begin + len(text))
        forged.table["line_crc"] = np.where(np.arange(n) % 2 == 0, crc32c(text), crc32c(b""))
    else:
        column = random.choice(("hi", "lo", "crc", "line_crc", "frames_crc"))
        forged.table[column][random.randrange(forged.n)] = random.choice((0, 1, 2**32 - 1))
    forged.write_rows(text)


def _resize(forged: Forged, n: int) -> None:
    """So many rows, one frame each where they are ragged."""
    shape = list(forged.document["shape"])
    stacked = forged.document["dimension_names"][0] == "sample"
    forged.table = np.resize(forged.table, n)
    counts = shape[1] if stacked else 1
    forged.table["frame"], forged.table["n_frames"] = np.arange(n) * counts, counts
    forged.fit([n, *shape[1:]])
    if forged.sums is not None:
        forged.sums = np.resize(forged.sums, n * counts)
        forged.write_sums()


def _records(random: Random, forged: Forged, bait: Bait) -> None:
    """Samples whose frames overlap, are not there, or are not theirs."""
    total = int(forged.table["n_frames"].sum())
    how = random.random()
    if how < 0.4:
        # Many samples, each of which has all the frames there are: a little file, and many gigabytes of values.
        n = random.choice((2_000, 40_000))
        _resize(forged, n)
        whole = forged.document["dimension_names"][0] == "frame" or forged.table["n_frames"][0] * n
        forged.table["frame"], forged.table["n_frames"] = 0, n if whole is True else whole
        forged.lines = [b'{"id":"%d"}\n' % number for number in range(n)]
        forged.write_lines()
        return
    for _ in range(random.choice((1, 2))):
        row = random.randrange(forged.n)
        column, most = random.choice((("frame", 2**63), ("n_frames", 2**31)))
        forged.table[column][row] = random.choice((0, 1, total, total + 1, 2**31, most))
    forged.write_rows()


def _sums(random: Random, forged: Forged, bait: Bait) -> None:
    """Checksums of single frames that differ, are too few, or too many."""
    if forged.sums is None:
        forged.header["frames"] = random.choice(({"bytes": 0, "blake2b": "0"}, {"bytes": 48}, odd(random, bait)))
        forged.seal(_as_bytes)
        return
    changed = random.choice(((forged.sums ^ 1), forged.sums[:-1], np.append(forged.sums, 0), forged.sums[:0]))
    if len(changed) == len(forged.sums) or random.random() < 0.5:
        forged.sums = changed.astype("<u4")
        forged.write_sums()
    else:
        (forged.path / "frames").write_bytes(changed.tobytes())


def _lines(random: Random, forged: Forged, bait: Bait) -> None:
    """Lines that are not what the format says, with checksums that are right."""
    for number in range(forged.n):
        if random.random() < 0.6:
            line = json.loads(forged.lines[number])
            forged.lines[number] = random.choice(
                (
                    rendered(bent_often(random, line, bait)) + b"\n",
                    rendered({**line, any_of(random, line): odd(random, bait)}) + b"\n",
                    rendered({**line, "frame_indices": bent(random, line["frame_indices"], bait)}) + b"\n",
                    damaged(random, forged.lines[number]),
                    rendered(odd(random, bait)),
                )
            )
    forged.write_lines()


def _bomb(random: Random, forged: Forged, bait: Bait) -> None:
    """Samples that would need more memory than there is, in a hole of the disk."""
    *lead, last = forged.document["shape"]
    last *= random.choice((2**14, 2**30, 2**32, 2**40))
    forged.fit([*lead, last])
    forged.write_lines()


FORGERIES: tuple[Callable[[Random, Forged, Bait], None], ...] = (
    _header,
    _header,
    _table,
    _records,
    _records,
    _sums,
    _lines,
    _lines,
    _bomb,
)


# -- the cases ---------------------------------------------------------------------------------------------------------


def forged_segment(random: Random, folder: Path, bait: Bait, store: Path) -> Case:
    root = folder / "store"
    shutil.copytree(store, root)
    for segment in sorted(path.parent for path in root.rglob("rows")):
        if random.random() < 0.5:
            random.choice(FORGERIES)(random, Forged(segment), bait)
    return Case(lambda: use(random, root, folder, bait))


def foreign_store(random: Random, folder: Path, bait: Bait, store: Path) -> Case:
    """Files that are damaged, replaced by links and devices, or that other programs put there."""
    root = folder / "store"
    shutil.copytree(store, root)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    for _ in range(random.choice((1, 1, 2, 4))):
        path = random.choice(files)
        how = random.random()
        if not path.is_file():
            continue
        if how < 0.25:
            path.write_bytes(damaged(random, path.read_bytes()))
        elif how < 0.45 and path.suffix == ".json":
            as_it_was = json.loads(store.joinpath(path.relative_to(root)).read_bytes())
            path.write_bytes(rendered(bent_often(random, as_it_was, bait)))
        elif how < 0.65:
            spoil(random, path)
        elif how < 0.8:
            _link(random, path, bait)
        elif how < 0.9:
            _stray(random, path.parent, bait)
        else:
            path.parent.joinpath("zarr.json").write_bytes(_petabytes(random))
    return Case(lambda: use(random, root, folder, bait))


def _link(random: Random, path: Path, bait: Bait) -> None:
    """A file or a folder of the store is somewhere else."""
    target = random.choice((path, path.parent))
    elsewhere = random.choice(("/etc", "/proc/self", "/dev/zero", "..", str(bait.canary), "/", str(path.parents[2])))
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    target.symlink_to(elsewhere)


def _stray(random: Random, folder: Path, bait: Bait) -> None:
    name = odd_text(random, bait).replace("/", "_").replace("\0", "_")[:60] or "x"  # of four bytes each, at most
    place = folder / name
    if place.exists():
        return
    if random.random() < 0.5:
        place.mkdir()
    else:
        place.write_bytes(random.randbytes(10))


def _petabytes(random: Random) -> bytes:
    """A Zarr array of somebody else that claims to be larger than all disks, or a group."""
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}]
    shape = [random.choice((2**50, 2**62, 10**18)), 8, 768]
    array = {
        "zarr_format": 3, "node_type": "array", "shape": shape, "data_type": "float32", "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}}, "attributes": {},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}}, "codecs": codecs,
    }  # fmt: skip
    return rendered(random.choice((array, {"zarr_format": 2}, {"zarr_format": 3, "node_type": "group"}, [], {})))


def failure_record(random: Random, folder: Path, bait: Bait, store: Path) -> Case:
    from featurestore.storage.failures import _checksum

    root = folder / "store"
    shutil.copytree(store, root)
    (path,) = root.joinpath(".fstore").rglob("failed/*.json")
    document = json.loads(path.read_bytes())
    how = random.random()
    if how < 0.6:
        record = bent_often(random, document["record"], bait)
        try:  # a checksum that is right, where the record has one
            document = {"record": record, "crc32c": _checksum(json.loads(rendered(record)))}
        except (ValueError, TypeError, RecursionError, AttributeError):
            document = {"record": record, "crc32c": 0}
        path.write_bytes(rendered(document))
    elif how < 0.8:
        path.write_bytes(rendered(bent_often(random, document, bait)))
    elif how < 0.9:
        path.write_bytes(damaged(random, path.read_bytes()))
    else:
        spoil(random, path)
    if random.random() < 0.2:
        shutil.copy(store.joinpath("data/zarr.json"), path.parent / f"{'0' * 32}.json")

    def read() -> None:
        opened = FeatureStore(root)
        refusing(lambda: opened.failures(KEY))
        refusing(lambda: opened.get(KEY, "broken"))
        refusing(lambda: opened.get_many(KEY, ["a", "broken"]))
        refusing(lambda: [record.is_void() for record in opened.failures(KEY).values()])
        _command(random, root, "ls", "info", "explain", "verify")

    return Case(read)


def use(random: Random, root: Path, folder: Path, bait: Bait) -> None:
    """Everything that reads a store, and something that changes it."""
    store = FeatureStore(root)
    refusing(store.keys)
    for key, ids in ((KEY, IDS), (ALL, IDS[:2])):
        for read in (
            lambda key=key: store.ids(key),
            *(lambda key=key, id=id: store.get(key, id, [0]) for id in ids),
            *(lambda key=key, id=id: store.get(key, id) for id in (*ids, *ids)),  # the second time through the map
            *(lambda key=key, id=id: store.get_features(key, id, slice(0, None, 2)) for id in ids),
            lambda key=key, ids=ids: store.get_many(key, store.available(key, ids)[:2]),  # a ValuesError under ALL
            lambda key=key, ids=ids: store.get_ragged(key, store.available(key, ids)[:2]),
            *(lambda key=key, id=id: store.get_features(key, id) for id in ids),
            lambda key=key: store.recipes(key),
            lambda key=key: store.failures(key),
        ):
            refusing(read)
    _copied_reader(root)
    _command(random, root, "ls", "info", "explain", "verify")
    _change(random, root, folder, bait)


def _copied_reader(root: Path) -> None:
    """The reader on its own raises what the standard library does, and nothing else."""
    from featurestore.storage.reader import open_key

    try:
        reader = open_key(str(root), str(KEY))
        reader.get_many([id for id in IDS if reader.get(id) is not None][:2])
        reader = open_key(str(root), str(ALL))
        reader.get("a", [0])
        reader.get_many([id for id in IDS[:2] if reader.get(id) is not None])
    except (LookupError, OSError, ValueError) as error:
        if isinstance(error, UnicodeError | json.JSONDecodeError):
            raise


def _command(random: Random, root: Path, *names: str) -> None:
    import click

    from featurestore.cli import fstore

    name = random.choice(names)
    key = str(random.choice((KEY, ALL)))
    arguments = {
        "ls": random.choice(([], [key])),
        "info": [key],
        "explain": [key, "--", random.choice(IDS)],
        "verify": ["--full", *random.choice(([], ["--repair"]))],
    }[name]
    json_option = random.choice(([], ["--json"]))
    try:
        fstore.main([name, "--store", str(root), *json_option, *arguments], "fstore", standalone_mode=False)
    except (click.ClickException, click.exceptions.Exit):
        pass


def _change(random: Random, root: Path, folder: Path, bait: Bait) -> None:
    from featurestore.affectgpt.exporting import export_tree
    from featurestore.packs import pack
    from featurestore.quality import check_store

    store = FeatureStore(root)
    key = random.choice((KEY, ALL))
    fresh = random.choice((*IDS, bait.path(random)))
    change: Callable[[], object] = random.choice(
        (
            lambda: check_store(root, full=True, repair=True),
            lambda: store.compact(key),
            lambda: store.delete(key, [random.choice(IDS)]),
            lambda: store.put_many(
                key, [fresh], [value(fresh, 9, key)], recipe=RECIPE, axes=AXES.get(key), overwrite=True
            ),
            lambda: getattr(store.feature_set(key), "gc", lambda _: None)(0),
            lambda: export_tree(store, key, folder / "exported"),
            lambda: pack(store, key, folder / "packed"),
        )
    )
    refusing(change)
    refusing(lambda: FeatureStore(root).ids(key))


def names(random: Random, folder: Path, bait: Bait) -> Case:
    """Sample ids, parts of keys, prefixes of recipes and recipes."""
    from featurestore import Recipe
    from featurestore.affectgpt.exporting import export_tree

    ids = [odd_text(random, bait) if random.random() < 0.9 else odd(random, bait) for _ in range(random.choice((1, 3)))]
    parts = ["mer2023", "frame", "CLIP_VIT_LARGE", "uniform", 4]
    for _ in range(random.choice((0, 1, 2))):
        parts[random.randrange(5)] = random.choice((odd_text(random, bait), odd(random, bait), bait.path(random)))
    recipe = random.choice(
        ({"a": 1}, {"a": odd(random, bait)}, odd(random, bait), _nested(random.choice((50, 100_000))))
    )
    prefix = random.choice((None, odd_text(random, bait), "0" * 6, bait.path(random)))
    text = "/".join(map(str, parts))

    def read() -> None:
        store = FeatureStore(folder / "store")
        refusing(lambda: FeatureKey.parse(text))
        refusing(lambda: FeatureKey.from_legacy(str(parts[0]), f"frame_{parts[2]}_uniform_8frms"))
        refusing(lambda: Recipe(recipe))
        try:
            key = FeatureKey(*parts)
        except ValueError as error:
            if type(error) is ValueError or isinstance(error, UnicodeError):
                raise
            key = KEY
        values = np.ones((len(ids), 4, 2), np.float32)
        refusing(lambda: store.put_many(key, ids, values, recipe=recipe))
        refusing(lambda: store.put_many(key, ids, values, recipe={"a": 1}))
        refusing(lambda: store.put_many(KEY, ["known"], values[:1], recipe={"a": 1}))
        for using in (key, text, KEY):
            refusing(lambda using=using: store.ids(using, fingerprint=prefix))
            refusing(lambda using=using: [store.get(using, id, fingerprint=prefix) for id in ids])
            refusing(lambda using=using: store.get_features(using, ids[0], fingerprint=prefix))
            refusing(lambda using=using: store.get_many(using, ids, fingerprint=prefix))
            refusing(lambda using=using: store.get_ragged(using, ids, fingerprint=prefix))
            refusing(lambda using=using: store.missing(using, ids, fingerprint=prefix))
            refusing(lambda using=using: store.delete(using, ids[:1], fingerprint=prefix))
            refusing(lambda using=using: export_tree(store, FeatureKey.parse(str(using)), folder / "exported"))
        for command in ("ls", "info", "explain"):
            _typed(folder / "store", command, text, ids)

    return Case(read)


def _typed(root: Path, command: str, key: str, ids: list[Any]) -> None:
    import click

    from featurestore.cli import fstore

    if "\0" in key:
        return  # no command line holds one
    after = ["--", *(str(id) for id in ids[:1])] if command == "explain" else []
    try:
        fstore.main([command, "--store", str(root), key, *after], "fstore", standalone_mode=False)
    except (click.ClickException, click.exceptions.Exit):
        pass


def _nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = {"a": value}
    return value

"""Stores that no store wrote: forged segments whose checksums are right, foreign documents, links and bombs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from hostile import Bait, any_of, bent, bent_often, damaged, odd, odd_text, rendered, spoil
from hostile_files import Case, refusing
from oracle import ALL, KEY, RECIPE, value

from featurestore import Failure, FeatureKey, FeatureStore
from featurestore.storage.reader import RECORD, SEAL_SIZE, crc32c, seal_of

IDS = ("a", "b", "c", "é/../d")
BOMB_BYTES = 3 << 30
EXTREMES = (0, 1, 2**31, 2**40, 2**63, 2**64 - 1)


def make_store(root: Path) -> Path:
    """Two keys, several segments, one of them compressed, one that replaces another, and a failure."""
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
            store.put_many(key, some, values, recipe=RECIPE, overwrite=True, **columns)
    store.compact(ALL, codec="zstd")
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    feature_set.fail("broken", Failure("media", "no such stream", sources=({"path": "x", "size": 1, "mtime_ns": 2},)))
    return root


# -- forging -----------------------------------------------------------------------------------------------------------


class Forged:
    """One segment taken apart, changed and put together again with checksums that are right."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.document: Any = json.loads((path / "zarr.json").read_bytes())
        self.n = self.document["shape"][0]
        raw = (path / "rows").read_bytes()
        self.table = np.frombuffer(raw[: self.n * RECORD.itemsize], RECORD).copy()
        ends = [*self.table["line"].tolist()[1:], len(raw)]
        self.lines = [raw[start:end] for start, end in zip(self.table["line"].tolist(), ends, strict=True)]

    @property
    def header(self) -> Any:
        return self.document["attributes"]["featurestore"]

    def write_lines(self) -> None:
        """Lines and their places, as a writer would."""
        sizes = np.array([len(line) for line in self.lines], np.uint64)
        self.table["line"] = self.table.nbytes + np.cumsum(sizes) - sizes
        self.table["line_crc"] = [crc32c(line) for line in self.lines]
        self.write_rows(b"".join(self.lines))

    def write_rows(self, text: bytes) -> None:
        table = self.table.tobytes()
        (self.path / "rows").write_bytes(table + text)
        self.header["rows"] = {
            "bytes": len(table) + len(text),
            "blake2b": hashlib.blake2b(table + text, digest_size=32).hexdigest(),
            "table_blake2b": hashlib.blake2b(table, digest_size=32).hexdigest(),
        }
        self.seal()

    def seal(self) -> None:
        """zarr.json with a seal that is right, whatever it holds."""
        raw = rendered(self.document, ensure_ascii=False, separators=(",", ":"))
        if b'"seal":"' not in raw:
            raw = raw[:-1] + b',"x":{"seal":"' + b"0" * SEAL_SIZE + b'"}}'
        _, seal = seal_of(raw)
        at = raw.rfind(b'"seal":"') + len(b'"seal":"')
        (self.path / "zarr.json").write_bytes(raw[:at] + seal + raw[at + SEAL_SIZE :])


def _header(random: Random, forged: Forged, bait: Bait) -> None:
    """Any value of zarr.json another one."""
    how = random.random()
    if how < 0.5:
        changed = bent_often(random, dict(forged.header), bait)
        forged.document["attributes"]["featurestore"] = changed
    elif how < 0.6:
        forged.document["shape"] = [random.choice((forged.n, *EXTREMES)), random.choice((4, *EXTREMES)),
                                    random.choice((8, *EXTREMES))]  # fmt: skip
    elif how < 0.7:
        forged.header["replaces"] = [bait.path(random), odd(random, bait), *os.listdir(forged.path.parent)]
    elif how < 0.8:
        forged.header[random.choice(("shard", "rows"))]["bytes"] = random.choice((*EXTREMES, -1, None, "1", 1.5))
    else:
        forged.document = bent_often(random, forged.document, bait)
    forged.seal()


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
        forged.n = n
        forged.table = np.resize(forged.table, n)
        text = forged.lines[0] + b" " * random.choice((0, 1_000_000))
        begin = forged.table.nbytes
        forged.table["line"] = np.where(np.arange(n) % 2 == 0, begin, begin + len(text))
        forged.table["line_crc"] = np.where(np.arange(n) % 2 == 0, crc32c(text), crc32c(b""))
        forged.document["shape"][0] = n
        shard = forged.path / "c.0.0.0"
        size = n * (forged.document["shape"][1] * forged.document["shape"][2] * 4 + 4 + 16) + 4
        os.truncate(shard, size)
        forged.header["shard"]["bytes"] = size
    else:
        column = random.choice(("hi", "lo", "crc", "line_crc"))
        forged.table[column][random.randrange(forged.n)] = random.choice((0, 1, 2**32 - 1))
    forged.write_rows(text)


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
    """Rows that would need more memory than there is, in a few bytes or in a hole of the disk."""
    n_frames = forged.document["shape"][1]
    dim = random.choice((2**18, 2**26, 2**28, 2**31, 2**40)) // n_frames
    payload = n_frames * dim * 4
    forged.document["shape"] = [forged.n, n_frames, dim]
    shard = forged.path / "c.0.0.0"
    if random.random() < 0.5:
        size = forged.n * (payload + 4 + 16) + 4
        forged.header["codec"] = None
        try:
            os.truncate(shard, size)  # a hole
        except OSError:
            size = os.stat(shard).st_size
    else:
        # One block of a byte that repeats for ever: RFC 8878, 3.1.1.2.2, each up to 128 KiB.
        frame = b"\x28\xb5\x2f\xfd\xe0" + payload.to_bytes(8, "little")
        count = min(max(1, payload >> 17), 8192)
        block = ((1 << 17) << 3 | 2).to_bytes(3, "little") + b"\0"
        frame += block * (count - 1) + (int.from_bytes(block[:3], "little") | 1).to_bytes(3, "little") + b"\0"
        index = b"".join(
            (number * len(frame)).to_bytes(8, "little") + len(frame).to_bytes(8, "little") for number in range(forged.n)
        )
        shard.write_bytes(frame * forged.n + index + crc32c(index).to_bytes(4, "little"))
        size = os.stat(shard).st_size
        forged.header["codec"] = "zstd"
        forged.table["crc"] = crc32c(frame)
    forged.header["shard"]["bytes"] = size
    forged.write_lines()


FORGERIES: tuple[Callable[[Random, Forged, Bait], None], ...] = (_header, _header, _table, _lines, _lines, _bomb)


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
            *(lambda key=key, id=id: store.get(key, id) for id in (*ids, *ids)),  # the second time through the map
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
    from featurestore.affectgpt.exporting import export_tree, export_zarr
    from featurestore.quality import check_store

    store = FeatureStore(root)
    key = random.choice((KEY, ALL))
    fresh = random.choice((*IDS, bait.path(random)))
    change: Callable[[], object] = random.choice(
        (
            lambda: check_store(root, full=True, repair=True),
            lambda: store.compact(key, codec=random.choice((None, "zstd", "none"))),
            lambda: store.delete(key, [random.choice(IDS)]),
            lambda: store.put_many(key, [fresh], [value(fresh, 9, key)], recipe=RECIPE, overwrite=True),
            lambda: getattr(store.feature_set(key), "gc", lambda _: None)(0),
            lambda: export_tree(store, key, folder / "exported"),
            lambda: export_zarr(store, key, folder / "exported.zarr"),
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

"""Dataset: what one TOML file declares about the names, files and splits of a dataset, and the lookup by any name."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from featurestore.errors import ConfigError, UnknownDatasetError, did_you_mean, near_names
from featurestore.key import check_part
from featurestore.untrusted_io.charset import decode
from featurestore.untrusted_io.files import expand_path, read_untrusted

MAX_BYTES = 256 << 10
MAX_DOTS = 256

LabelKind = Literal["class", "valence", "openset"]
FaceLayout = Literal["flat", "nested"]


@dataclass(frozen=True, slots=True)
class Labels:
    """Where the label of a sample is written."""

    file: str
    """`.npz` (pickled dicts, name -> record), `.csv` or `.xlsx`, relative to the dataset's root"""
    field: str
    """key of the record, or column of the CSV"""
    kind: LabelKind
    """class: a word, or an index into `classes`; valence: a number; openset: a list as text"""
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """Which samples belong to a split: those of some arrays of the label file, or of a CSV column."""

    count: int | None = None
    """how many samples the published split has"""
    arrays: tuple[str, ...] = ()
    file: str | None = None
    column: str = "name"
    character: tuple[int, str] | None = None
    """keep names whose character at this 0-based position is this one (IEMOCAP: the session)"""


@dataclass(frozen=True, slots=True)
class Subtitles:
    """A CSV with one row per sample."""

    file: str
    column: str
    name: str = "name"


@dataclass(frozen=True, slots=True)
class Media:
    """A folder of files named after the samples; the first extension that exists is taken."""

    folder: str
    extensions: tuple[str, ...]
    layout: FaceLayout = "flat"
    """flat: `{name}.npy`; nested: `{name}/{name}.npy`; either is found, the declared one is looked for first"""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Everything the program knows about a dataset.  All paths are relative to its root."""

    name: str
    """the short name used in keys, e.g. `mer2023`"""
    title: str = ""
    """the name of its class in the published scripts, e.g. `MER2023`"""
    aliases: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    """names its data folder has in the published layouts; several datasets may share one"""
    mer_factory: tuple[str, ...] = ()
    """names its folder has under a MER-Factory output directory, compared without case"""
    results: str | None = None
    """suffix of its folder of published results, `results-{suffix}`"""
    nonverbal: str | None = None
    """its key in files of nonverbal clues"""
    labels: Labels | None = None
    splits: Mapping[str, Split] = field(default_factory=dict)
    subtitles: Subtitles | None = None
    video: Media | None = None
    audio: Media | None = None
    face: Media | None = None
    declared_in: Path | None = None
    """the file that the user gave; None for the datasets that come with the package"""

    @property
    def default_split(self) -> str:
        """`test` where there is one, else the first."""
        return "test" if "test" in self.splits else next(iter(self.splits))

    def split(self, name: str | None = None) -> Split:
        """The split of this name, by default `default_split`.  ConfigError lists the ones there are."""
        chosen = self.default_split if name is None else name
        if chosen not in self.splits:
            known = ", ".join((*self.splits, "all"))
            raise ConfigError(f"dataset {self.name} has no split {chosen!r}; it has {known}")
        return self.splits[chosen]

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that means this dataset alone, the canonical one first."""
        every = (self.name, self.title, *self.aliases, self.results, self.nonverbal)
        return tuple(dict.fromkeys(name for name in every if name))


class _Table:
    """A TOML table that is taken apart key by key, so that what remains at the end is a mistake."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, dict):
            raise ConfigError(f"{where} must be a table, not {data!r}")
        self.data, self.where, self.seen = dict(data), where, set[str]()

    def take(self, key: str, kind: type, default: Any = None, *, required: bool = False) -> Any:
        self.seen.add(key)
        if key not in self.data:
            if required:
                raise ConfigError(f"{self.where}: {key!r} is missing")
            return default
        value = self.data.pop(key)
        # bool is an int: `count = true` would silently be 1.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"{self.where}: {key!r} must be a {kind.__name__}, not {value!r}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.take(key, list, [])
        if not all(isinstance(value, str) and value for value in values):
            raise ConfigError(f"{self.where}: {key!r} must be a list of strings, not {values!r}")
        return tuple(values)

    def path(self, key: str, *, required: bool = True) -> str | None:
        text = self.take(key, str, required=required)
        try:
            return None if text is None else str(expand_path(text))
        except ConfigError as error:
            raise ConfigError(f"{self.where}: {key!r} is {error}") from error

    def one_of(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> Any:
        value = self.take(key, str, default, required=default is None)
        if value not in allowed:
            raise ConfigError(f"{self.where}: {key!r} must be one of {', '.join(allowed)}, not {value!r}")
        return value

    def done(self) -> None:
        for key in self.data:
            hint = did_you_mean(key, self.seen, f"known here: {', '.join(sorted(self.seen))}")
            raise ConfigError(f"{self.where}: unknown key {key!r}; {hint}")


def parse_declaration(data: Mapping[str, Any], where: str, declared_in: Path | None = None) -> Dataset:
    """A TOML document -> Dataset.  ConfigError names the file, the table and the key for anything unexpected."""
    top = _Table(dict(data), where)
    name = check_part("dataset name", top.take("name", str, required=True))
    labels = _labels(top, where)
    splits = {key: _split(value, f"{where} [splits.{key}]", labels) for key, value in _tables(top, "splits").items()}
    if not splits or "all" in splits:
        raise ConfigError(f"{where}: at least one [splits.NAME] is needed, and 'all' is taken by the union of all")
    subtitles = None
    if (raw := top.take("subtitles", dict)) is not None:
        table = _Table(raw, f"{where} [subtitles]")
        file, column = str(table.path("file")), table.take("column", str, required=True)
        subtitles = Subtitles(file, column, table.take("name", str, "name"))
        table.done()
    dataset = Dataset(
        name=name,
        title=top.take("title", str, name),
        aliases=top.texts("aliases"),
        folders=top.texts("folders"),
        mer_factory=top.texts("mer_factory"),
        results=top.take("results", str),
        nonverbal=top.take("nonverbal", str),
        labels=labels,
        splits=splits,
        subtitles=subtitles,
        video=_media(top, where, "video"),
        audio=_media(top, where, "audio"),
        face=_media(top, where, "face"),
        declared_in=declared_in,
    )
    top.done()
    return dataset


def _tables(top: _Table, key: str) -> dict[str, Any]:
    tables: dict[str, Any] = top.take(key, dict, {})
    return tables


def _labels(top: _Table, where: str) -> Labels | None:
    if (raw := top.take("labels", dict)) is None:
        return None
    table = _Table(raw, f"{where} [labels]")
    file, field = str(table.path("file")), table.take("field", str, required=True)
    if not file.endswith((".npz", ".csv", ".xlsx")):
        raise ConfigError(f"{table.where}: 'file' must end in .npz, .csv or .xlsx, not {file!r}")
    kind, classes = table.one_of("kind", get_args(LabelKind)), table.texts("classes")
    table.done()
    return Labels(file, field, kind, classes)


def _split(raw: Any, where: str, labels: Labels | None) -> Split:
    table = _Table(raw, where)
    count, arrays, file = table.take("count", int), table.texts("arrays"), table.path("file", required=False)
    column = table.take("column", str, "name")
    character = None
    if (rule := table.take("character", dict)) is not None:
        inner = _Table(rule, f"{where} character")
        position, equals = inner.take("position", int, required=True), inner.take("equals", str, required=True)
        inner.done()
        character = (position, equals)
    table.done()
    if bool(arrays) == bool(file):
        raise ConfigError(f"{where}: give either 'arrays' (of the label .npz) or 'file' (a CSV with names)")
    if arrays and (labels is None or not labels.file.endswith(".npz")):
        raise ConfigError(f"{where}: 'arrays' needs [labels] with an .npz file")
    return Split(count, arrays, file, column, character)


def _media(top: _Table, where: str, modality: str) -> Media | None:
    if (raw := top.take(modality, dict)) is None:
        return None
    table = _Table(raw, f"{where} [{modality}]")
    folder, extensions = str(table.path("folder")), table.texts("extensions")
    layout: FaceLayout = table.one_of("layout", get_args(FaceLayout), "flat") if modality == "face" else "flat"
    table.done()
    if not extensions or not all(extension.startswith(".") for extension in extensions):
        raise ConfigError(f"{table.where}: 'extensions' must be a list like ['.mp4'], not {list(extensions)}")
    return Media(folder, extensions, layout)


def read_declaration(path: str | Path) -> Dataset:
    """The dataset that a TOML file of the user's own declares.  ConfigError where it cannot be read."""
    path = Path(path)
    try:
        text = decode(read_untrusted(path, MAX_BYTES), path.name)
        # What tomllib needs for a key of many parts grows with the square of their number.
        if max(line.count(".") for line in text.split("\n")) > MAX_DOTS:
            raise ConfigError(f"dataset declaration {path} has a line with more than {MAX_DOTS} dots")
        data = tomllib.loads(text)
    # ValueError: not UTF-8, not TOML, or a date that is none.
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"dataset declaration {path} cannot be read: {why}") from error
    except RecursionError as error:
        raise ConfigError(f"dataset declaration {path} cannot be read: it is nested too deeply") from error
    return parse_declaration(data, str(path), path)


@functools.cache
def declared() -> Mapping[str, Dataset]:
    """The datasets that come with the package, by canonical name, sorted."""
    folder = Path(__file__).parent
    found = [
        parse_declaration(tomllib.loads(path.read_text(encoding="utf-8")), path.name)
        for path in sorted(folder.glob("*.toml"))
    ]
    return {dataset.name: dataset for dataset in sorted(found, key=lambda dataset: dataset.name)}


@functools.cache
def _index() -> Mapping[str, str]:
    """Every name without case -> canonical name.  A data folder counts where it belongs to one dataset only."""
    index: dict[str, str] = {}
    for dataset in declared().values():
        for name in dataset.names:
            if index.setdefault(name.casefold(), dataset.name) != dataset.name:
                raise ConfigError(f"{name!r} is declared for both {index[name.casefold()]} and {dataset.name}")
    owners: dict[str, set[str]] = {}
    for dataset in declared().values():
        for folder in (*dataset.folders, *dataset.mer_factory):
            owners.setdefault(folder.casefold(), set()).add(dataset.name)
    for folder, names in owners.items():
        if len(names) == 1:
            index.setdefault(folder, *names)
    return index


def dataset_names() -> list[str]:
    """Canonical names of the datasets that come with the package, sorted."""
    return list(declared())


def unibench_names() -> list[str]:
    """Canonical names of the nine test sets of MER-UniBench: those with a labelled test split."""
    return [name for name, dataset in declared().items() if "test" in dataset.splits and dataset.labels is not None]


def nearest_name(text: str) -> str | None:
    """The name of a known dataset that a misspelt one probably means."""
    near = near_names(text.casefold(), _index())
    return near[0] if near else None


def resolve_dataset(name: str | Path) -> Dataset:
    """A canonical name, an alias in any case, or the path of a TOML file -> Dataset.

    >>> resolve_dataset("IEMOCAPFour").name
    'iemocap'

    Raises UnknownDatasetError, which lists the names, and ConfigError for a file that is not a declaration.
    """
    text = str(name)
    if text.endswith(".toml"):
        return read_declaration(expand_path(text))
    canonical = _index().get(text.casefold())
    if canonical is None:
        hint = f"did you mean {close!r}? " if (close := nearest_name(text)) else ""
        raise UnknownDatasetError(
            f"dataset {text!r} is not known; {hint}known: {', '.join(dataset_names())}; "
            "one of your own is the path of a .toml file like those, or a manifest"
        )
    return declared()[canonical]


def as_json(dataset: Dataset) -> dict[str, Any]:
    """A declaration as plain JSON types, with every name that means the dataset."""
    data = dataclasses.asdict(dataset)
    data["declared_in"] = None if dataset.declared_in is None else str(dataset.declared_in)
    return data | {"names": list(dataset.names)}

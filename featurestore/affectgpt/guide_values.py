"""Values of the guide's YAML files while they are judged: what each key says, and which contradict each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featurestore.affectgpt.guide_keys import KEYS, PER_DATASET, USED
from featurestore.datasets import Dataset, resolve_dataset
from featurestore.errors import ConfigError, UnknownDatasetError
from featurestore.untrusted_io.files import expand_path


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the file and what becomes of it."""

    key: str
    value: Any
    status: str
    """used | ignored | contradictory | unknown (a value that names no encoder or sampler)"""
    note: str = ""


@dataclass(slots=True)
class GuideValues:
    """The flat settings of a file while they are judged."""

    source: Path
    values: dict[tuple[str, str, str], Any]
    ignored: dict[tuple[str, str, str], str] = field(default_factory=dict)
    """keys that have no effect beside the others, and why"""
    wrong: dict[tuple[str, str, str], str] = field(default_factory=dict)
    unknown: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def get(
        self, name: str, key: str, kind: type, sections: tuple[str, ...] = ("datasets", "inference", "model")
    ) -> Any:
        """The first section that gives a key decides; the others must say the same."""
        given = self.places(name, key, sections)
        if not given:
            return None
        first = self.values[given[0]]
        if not isinstance(first, kind) or (isinstance(first, bool) and kind is not bool):
            raise ConfigError(f"{self.source}: {dotted(given[0])} must be a {kind.__name__}, not {first!r}")
        for where in given[1:]:
            if _same(self.values[where], first, name) is False:
                self.wrong[where] = f"{dotted(given[0])} says {first!r}"
        return first

    def places(self, name: str, key: str, sections: tuple[str, ...]) -> list[tuple[str, str, str]]:
        """Where the file gives a key that concerns this dataset."""
        every = [(section, name if section in PER_DATASET else "", key) for section in sections]
        return [where for where in every if self.values.get(where) is not None]

    def path(self, name: str, key: str, sections: tuple[str, ...] = ("datasets", "inference", "model")) -> Path | None:
        """The same for a path."""
        text = self.get(name, key, str, sections)
        return self.as_path(text, self.places(name, key, sections)[0]) if text else None

    def as_path(self, text: str, where: tuple[str, str, str]) -> Path:
        try:
            return expand_path(text)
        except ConfigError as error:
            raise ConfigError(f"{self.source}: {dotted(where)} is {error}") from error

    def setting(self, where: tuple[str, str, str]) -> Setting:
        """What becomes of one key, once all are judged."""
        section, _, key = where
        value, use = self.values.get(where), KEYS[section][key]
        if where in self.unknown:  # before what it contradicts: there it was meant to be the same
            return Setting(dotted(where), value, "unknown", self.unknown[where])
        if where in self.wrong:
            return Setting(dotted(where), value, "contradictory", self.wrong[where])
        if value is None:
            return Setting(dotted(where), value, "ignored", "a placeholder")
        if where in self.ignored:
            return Setting(dotted(where), value, "ignored", self.ignored[where])
        return Setting(dotted(where), value, "used" if use == USED else "ignored", "" if use == USED else use)


def dotted(where: tuple[str, str, str]) -> str:
    return ".".join(part for part in where if part)


def without_dataset(path: Path, dataset: Dataset) -> Path:
    names = {name.casefold() for name in dataset.names}
    return path.parent if path.name.casefold() in names else path


def _same(one: Any, other: Any, dataset: str) -> bool:
    if isinstance(one, str) and isinstance(other, str) and dataset:
        # ./preextracted_features and ./preextracted_features/mer2023 are one place.
        try:
            known = resolve_dataset(dataset)
        except UnknownDatasetError:
            return one == other
        return without_dataset(Path(one), known) == without_dataset(Path(other), known)
    return bool(one == other) and type(one) is type(other)

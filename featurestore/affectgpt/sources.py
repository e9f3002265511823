"""What is known about the samples of a tree besides the tree: their ids, and the media they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from featurestore.affectgpt.importing import Known
from featurestore.affectgpt.sound import Sound, hear
from featurestore.affectgpt.tree import FeatureFolder
from featurestore.datasets import load_dataset
from featurestore.errors import ConfigError, SampleError
from featurestore.sample import Sample, read_manifest


class Sources:
    """The samples of the datasets in a tree, each read once.

    root      folder with the files of the datasets, as `load_dataset` takes it; a declaration of the user's own has
              its files beside it
    manifest  instead of it, for a tree of one dataset
    """

    def __init__(self, root: Path | None = None, manifest: Path | None = None, mer_factory: Path | None = None) -> None:
        self.root, self.manifest, self.mer_factory = root, manifest, mer_factory
        self._heard: dict[tuple[str, str], Sound | None] = {}
        self._read: dict[str, tuple[Mapping[str, Sample], set[str]]] = {}

    def samples(self, folder: FeatureFolder) -> Mapping[str, Sample] | None:
        """The split that a folder of this dataset should hold; None where nothing is known about it.

        Raises ManifestError, and ConfigError for a manifest beside features of several datasets.
        """
        found = self._of(folder)
        return None if found is None else found[0]

    def known(self, folder: FeatureFolder) -> Known | None:
        """What the audit needs to know about a folder's samples."""
        found = self._of(folder)
        return None if found is None else Known(found[0].keys(), found[1], self.frames, self.sound)

    def sound(self, folder: FeatureFolder, id: str) -> Sound | None:
        """What a sample's wav holds, heard once for all folders; None where it has none that can be read."""
        place = folder.key.dataset, id
        if place not in self._heard:
            sample = (self.samples(folder) or {}).get(id)
            self._heard[place] = hear(sample.audio) if sample is not None and sample.audio is not None else None
        return self._heard[place]

    def frames(self, folder: FeatureFolder, id: str) -> int | None:
        """Frames of a sample's media: of the face file for faces, else of the video; None where that is not known."""
        from featurestore.media import count_faces, index_video  # PyAV, which an audit without media does not need

        sample = (self.samples(folder) or {}).get(id)
        try:
            if folder.key.modality == "face":
                return count_faces(sample.face).total if sample and sample.face else None
            return index_video(sample.video).total if sample and sample.video else None
        except SampleError:
            return None  # media that cannot be read decide nothing; `extract` reports them

    def _of(self, folder: FeatureFolder) -> tuple[Mapping[str, Sample], set[str]] | None:
        """(samples of the split, ids of all splits)"""
        name = folder.key.dataset
        if name not in self._read:
            if self.manifest is not None:
                if self._read:
                    raise ConfigError(f"{self.manifest} is about one dataset, but the tree holds {name} too")
                samples = read_manifest(self.manifest)
                self._read[name] = samples, set(samples)
            elif folder.dataset is not None and (self.root is not None or folder.dataset.declared_in is not None):
                samples = load_dataset(folder.dataset, self.root, mer_factory=self.mer_factory)
                self._read[name] = samples, set(load_dataset(folder.dataset, self.root, "all"))
        return self._read.get(name)

"""Audit of one set: values that can be imported and say that something went wrong when they were made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.affectgpt.intake import Batch
from featurestore.affectgpt.means import Means, digest
from featurestore.affectgpt.model_folders import UTTERANCE
from featurestore.affectgpt.sound import Sound
from featurestore.affectgpt.tree import FeatureFolder
from featurestore.quality.findings import Findings

PROBES = 64  # rows of each set that are compared with those of others
LAYERS = 4.0
_PIECE_ROWS = 499  # of 10 s of sound
_SHIFTED = 0.5  # share of the wrong means that are another sample's, from which on the order is to blame


class Layers:
    """A few rows of each set, to see whether one is another times four: the sum of four layers against their mean."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self._seen: list[tuple[FeatureFolder, dict[str, NDArray[Any]]]] = []

    def compare(self, folder: FeatureFolder, probes: dict[str, NDArray[Any]]) -> None:
        for other, rows in self._seen:
            if _kind(other) != _kind(folder):
                continue
            for sums, means, low, high in ((folder, other, rows, probes), (other, folder, probes, rows)):
                both = [id for id in low if id in high and low[id].shape == high[id].shape and low[id].any()]
                if both and all((low[id] * low[id].dtype.type(LAYERS) == high[id]).all() for id in both):
                    self.findings.add(
                        "layers",
                        sums.name,
                        f"exactly four times {means.name} in each of {len(both)} rows that were compared: one is the "
                        "sum of four layers, the other their mean",
                        advice="MERTools sums, AffectGPT takes the mean: keep the one that your model was trained on",
                    )
        self._seen.append((folder, probes))


def _kind(folder: FeatureFolder) -> tuple[str, ...]:
    """Sets are compared within a data set, a modality, and a way of taking frames."""
    return (folder.key.dataset, folder.key.modality, str(folder.key.n_frames))


class SetAudit:
    """Looks at every sample of one folder; `finish` reports what needs all of them."""

    def __init__(
        self,
        folder: FeatureFolder,
        findings: Findings,
        means: Means,
        layers: Layers,
        frames_of: Callable[[str], int | None],
        sound_of: Callable[[str], Sound | None],
    ) -> None:
        self.folder, self.findings, self.layers = folder, findings, layers
        self.frames_of, self.sound_of = frames_of, sound_of
        self.means = means.of(folder)
        self._digests: dict[str, bytes] = {}
        self._probes: dict[str, NDArray[Any]] = {}
        self._padded: dict[str, float | None] = {}
        self._quiet: dict[str, float] = {}

    def see(self, batch: Batch) -> None:
        """One batch of `read_batches`."""
        values = batch.values
        if isinstance(values, np.ndarray) and self.folder.key.sampling == UTTERANCE:
            flat = values.reshape(len(values), -1)
            filled: NDArray[np.bool_] = np.asarray(flat.any(axis=1))
            self._digests.update(
                (id, digest(row)) for id, row, full in zip(batch.ids, flat, filled, strict=True) if full
            )
            for position in np.flatnonzero(~filled):
                self._zero(batch.ids[position], batch, 1, 1)
            for id, row in zip(batch.ids[: PROBES - len(self._probes)], flat, strict=False):
                self._probes[id] = row.copy()
        else:
            for id, array in batch.rows().items():
                self._frames(id, array, batch)
        if self.folder.key.modality == "audio":
            for id in batch.ids:
                self._sound(id)

    def _frames(self, id: str, array: NDArray[Any], batch: Batch) -> None:
        rows = array.reshape(len(array), -1)
        filled = rows.any(axis=1)
        if not filled.all():
            self._zero(id, batch, int((~filled).sum()), len(rows))
        if filled.any():
            self._digests[id] = digest(array)
        if len(self._probes) < PROBES:
            self._probes[id] = array.copy()
        self._count(id, len(rows))
        if len(rows) > 1 and filled.any():
            self._repeats(id, rows)

    def _zero(self, id: str, batch: Batch, count: int, rows: int) -> None:
        dtype = np.dtype(batch.facts.get(id, {}).get("file_dtype", batch.dtype.str))
        if self.folder.key.modality == "text" and dtype == np.float64 and count == rows:
            what = (
                "zeros in float64: the text was empty, blank, or a word that pandas reads as no value (NA, None, null)"
            )
            advice = "read the subtitles with keep_default_na=False, and make those that say something again"
            self._add("empty_text", what, id, advice=advice)
            return
        few = "" if count == rows else f"{count} of {rows} "
        if self.folder.model is not None and self.folder.model.level == "tokens" and count == rows:
            what = "zeros: a missing file, or an input that was switched off; nobody can tell the two apart"
        else:
            what = f"{few}rows of zeros, as scripts store for media they could not read"
        self._add("zero", what, id, advice="make them again, or take the samples out of the lists that are trained on")

    def _count(self, id: str, rows: int) -> None:
        model, sampling = self.folder.model, self.folder.key.sampling
        if model is not None and model.rows is not None and rows != model.rows:
            what = f"{rows} frames, where {model.encoder} makes {model.rows}: another script, or another version of it"
            self._add("rows", what, id, advice="make them again, or import them as what they are: --as KEY")
        if sampling == "cut10s":
            sound = self.sound_of(id)
            if sound is not None and sound.rows != rows:
                what = "not as many frames as their sound gives: it was cut, resampled or replaced since"
                self._add("rows", what, id, advice="make them again from the sound that is there now")
            elif sound is None and rows % _PIECE_ROWS == 0 and rows >= 2 * _PIECE_ROWS:
                self._padded[id] = None
            if rows == 1:
                what = "one frame only: less than 45 ms of sound"
                self._add("one_frame", what, id, advice="listen to them: a clip that was cut wrongly is so short")
        elif sampling == "every" and self.folder.key.modality == "face":
            frames = self.frames_of(id)
            if frames is not None and frames != rows:
                what = "not as many frames as their file of faces has: made of other faces"
                self._add("rows", what, id, advice="make them again from the faces that are there now")

    def _repeats(self, id: str, rows: NDArray[Any]) -> None:
        sampling, half = self.folder.key.sampling, len(rows) // 2
        if sampling in ("uniform-16x2", "uniform-64") and (rows[-1] == rows[-2]).all():
            wanted = 16 if sampling == "uniform-16x2" else 64
            what = f"the last rows are equal: the clip has fewer than {wanted} frames, and its last one was repeated"
            self._add("last_frames", what, id, advice="the mean counts that frame more than once; keep it in mind")
        elif sampling == "every4-2x16" and (rows[:half] == rows[half:]).all():
            what = "both halves are equal: the clip has at most 64 frames, and the two windows are the same"
            self._add("last_frames", what, id, advice="the second window adds nothing; keep it in mind")
        elif sampling == "every" and self.folder.key.modality == "face" and (rows == rows[0]).all():
            what = "all frames are equal: black faces, or one picture for all"
            self._add("identical", what, id, advice="look at the file of faces, and make it again")

    def _sound(self, id: str) -> None:
        sound = self.sound_of(id)
        if sound is None:
            return
        if sound.silent:
            what = "their sound is silence, whose features look like any other"
            self._add("silence", what, id, advice="leave them out, or look for the sound: it may be on another channel")
        model = self.folder.model
        if model is not None and "cut10s" in (model.mean_of, self.folder.key.sampling) and sound.padding:
            self._padded[id] = sound.padding
        elif model is not None and model.level == "tokens":
            self._quiet[id] = max(0.0, 1 - sound.samples / (30 * 16_000))

    def finish(self) -> None:
        """Report what concerns several samples together."""
        if self._padded:
            what, advice = "sound of over 10 s: zeros behind its end are averaged in", "make them again without padding"
            shares = [share for share in self._padded.values() if share is not None]
            what += f", {min(shares):.1%} to {max(shares):.1%} of what went in" if shares else ""
            self._add("padding", what, *self._padded, advice=advice + ("" if shares else "; the wavs tell how much"))
        quiet = [id for id, share in self._quiet.items() if share > 0]
        if quiet:
            most = max(self._quiet.values())
            what = f"tokens of 30 s for clips that are shorter: up to {most:.0%} of them are of silence"
            self._add("silence", what, *quiet, advice="give the model the tokens of the first d/30 only, or a mask")
        self._duplicates()
        self._wrong_means()
        self.layers.compare(self.folder, self._probes)

    def _duplicates(self) -> None:
        groups: dict[bytes, list[str]] = {}
        for id, each in self._digests.items():
            groups.setdefault(each, []).append(id)
        for ids in groups.values():
            if len(ids) > 1:
                advice = "black faces, silence or copied media do that: look at one of them"
                self._add("duplicate", f"the same values under {len(ids)} ids", *ids, advice=advice)

    def _wrong_means(self) -> None:
        if not self.means:
            return
        wrong = [id for id, each in self._digests.items() if id in self.means and self.means[id] != each]
        owners: Mapping[bytes, str] = {each: id for id, each in self.means.items()}
        moved = [id for id in wrong if owners.get(self._digests[id], id) != id]
        others = [id for id in wrong if id not in set(moved)]
        if moved:
            pairs = ", ".join(f"{id} has {owners[self._digests[id]]}'s" for id in moved[:2])
            if len(moved) > 2 and len(moved) >= _SHIFTED * len(self._digests):
                what = f"the means of other samples' frames, in another order ({pairs})"
                self._add(
                    "order", what, *moved, advice="names and values were put together by position: make them again"
                )
            else:
                what = f"the mean of another sample's frames ({pairs})"
                self._add("another_id", what, *moved, advice="a file that was copied or renamed: make these again")
        if others:
            what = "not the mean of their frames: the two were made by different runs, versions or devices"
            self._add(
                "mean", what, *others, advice="find out which is right; `numpy.mean(frames, axis=0)` is the other"
            )

    def _add(self, kind: str, what: str, *ids: str, advice: str = "") -> None:
        self.findings.add(kind, self.folder.name, what, *ids, advice=advice)

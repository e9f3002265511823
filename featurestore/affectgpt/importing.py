"""Import a tree of feature folders into a store, bit for bit, and audit it on the way."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.affectgpt.content import ContentAudit
from featurestore.affectgpt.id_audit import IdAudit
from featurestore.affectgpt.intake import Batch, Intake, open_folder, read_batches
from featurestore.affectgpt.means import Means
from featurestore.affectgpt.model_folders import UTTERANCE
from featurestore.affectgpt.origins import beside, recipe_for, recipe_of
from featurestore.affectgpt.set_audit import Layers, SetAudit
from featurestore.affectgpt.sound import Sound
from featurestore.affectgpt.tree import FeatureFolder, scan_tree
from featurestore.errors import ExistsError, ManifestError
from featurestore.key import FeatureKey
from featurestore.provenance import legible
from featurestore.quality.findings import Finding, Findings
from featurestore.recipe import Recipe
from featurestore.store import FeatureStore

SUSPECT = ("zero", "empty_text", "identical", "duplicate", "silence", "padding", "another_id", "order", "layers")
WRITERS = 2  # batches that are stored at a time
# Kinds of findings whose rows are not imported; the rest is stored as it is and only reported.
REFUSED = {"unknown_dataset", "unknown_folder", "two_folders", "bad_id", "unreadable", "shape", "dtype", "nonfinite"}


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about a dataset's samples besides the tree, for the audit."""

    expected: Collection[str]
    """ids of the split that the tree should hold"""
    allowed: Collection[str]
    """ids of all splits"""
    frames_of: Callable[[FeatureFolder, str], int | None] = lambda folder, id: None
    sound_of: Callable[[FeatureFolder, str], Sound | None] = lambda folder, id: None


@dataclass(slots=True)
class FolderReport:
    """What became of one feature folder."""

    folder: str
    key: str
    recipe: str
    """fingerprint of the recipe its rows are stored under"""
    files: int
    expected: int | None
    """samples of the published or given split; None where neither is known"""
    origin: str = ""
    """as the recipe has it: that of an earlier import of the same rows, where there is one"""
    stored: int = 0
    would_store: int = 0
    """what `stored` would be, where nothing is stored"""
    present: int = 0
    """stored with the same bits before"""
    refused: int = 0
    means: int | None = None
    """utterances that are the mean of their frames to the bit; None where no folder of frames is beside"""
    derived: int = 0
    """of them not stored, because they can be made of the frames"""
    suspect: int | None = None
    """samples with zeros, equal rows or values of another sample; None where nobody looked (no audit)"""

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class ImportReport:
    """What `import_tree` did and found.  `findings` is empty for a tree with nothing wrong in it."""

    tree: str
    origin: str
    folders: list[FolderReport] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "tree": self.tree,
            "origin": self.origin,
            "folders": [folder.as_json() for folder in self.folders],
            "findings": [
                {"kind": each.kind, "folder": each.where, "message": each.message, "ids": each.ids}
                for each in self.findings
            ],
        }


def import_tree(
    root: str | Path,
    store: FeatureStore | None,
    *,
    dataset: str | None = None,
    origin: str | None = None,
    only: tuple[str, ...] = (),
    audit: bool = False,
    dry_run: bool = False,
    key: FeatureKey | None = None,
    skip_means: bool = False,
    known: Callable[[FeatureFolder], Known | None] = lambda folder: None,
    progress: Callable[[str, int, int], None] = lambda folder, done, total: None,
) -> ImportReport:
    """Store every row of a tree that can be stored, under a recipe that says it was imported.

    root     a tree, one dataset's folder in it, or one feature folder (see `scan_tree`, also for dataset and only)
    store    where to; None only looks at the tree
    origin   what the recipe calls the tree; by default that under which the same rows are stored already, else the
             last two components of its path
    audit    look for everything that is suspicious too: counts, ids, zeros, repeated rows, duplicates
    dry_run  store nothing, and say what would become of each sample beside what is stored
    key      what the folder or file `root` is, whatever its name
    skip_means  do not store folders of utterances that are all the mean of the frames in a folder beside
    known    what is known about the samples of a folder's dataset

    Running it again stores nothing twice.  Raises LegacyTreeError where the tree cannot be recognised at all, and
    StoreError for the disk; everything else that is wrong is in the report, and all the rest is stored.
    """
    findings = Findings()
    tree = scan_tree(root, findings, dataset, only, key)
    tree.origin = legible(origin or tree.origin)
    report = ImportReport(str(root), tree.origin)
    means = Means(tree.folders)
    audits = Audits(findings, known, means) if audit else None
    # Frames first: an utterance is compared with their mean.
    folders = sorted(tree.folders, key=lambda folder: folder.key.sampling == UTTERANCE)
    with _Writer(store, findings, dry_run) as writer:
        for folder in folders:
            intake = open_folder(folder, findings)
            recipe = recipe_for(intake, tree.origin)
            if origin is None:  # who names one means it
                recipe = recipe_of(store, intake, tree.origin)
            published = folder.dataset.split().count if folder.dataset else None
            row = FolderReport(folder.name, str(folder.key), recipe.fingerprint, len(intake.ids), published)
            row.origin = str(recipe.data["origin"])
            report.folders.append(row)
            facts = _known(folder, known, findings if audit else Findings())
            if facts is not None:
                row.expected = len(facts.expected)
            derived = skip_means and _all_means(intake, means)
            content = audits.of(folder, facts) if audits is not None else None
            for batch in read_batches(intake, findings):
                means.see_frames(folder, batch)
                if means.of(folder):
                    row.means = (row.means or 0) + means.equal(folder, batch)
                if content is not None:
                    content.see(batch)
                if derived:
                    row.derived += len(batch.ids)
                else:
                    own = recipe if batch.dtype == intake.dtype else beside(recipe, str(batch.dtype))
                    writer.put(folder, batch, own, row)
                progress(folder.name, len(intake.taken), len(intake.ids))
            if content is not None and audits is not None:
                content.finish()
                _coverage(intake, row, findings, facts)
                audits.ids.see(folder, intake.ids, facts.expected if facts is not None else None)
    if audits is not None:
        audits.ids.finish()
    for row in report.folders:
        row.refused = findings.count(row.folder, *REFUSED, "exists")
        if audit:
            suspect = [each for each in findings if each.where == row.folder and each.kind in SUSPECT]
            row.suspect = len({id for each in suspect for id in each.ids})
    report.folders.sort(key=lambda row: [folder.name for folder in tree.folders].index(row.folder))
    report.findings = list(findings)
    return report


def _all_means(intake: Intake, means: Means) -> bool:
    """Whether a folder of utterances is nothing but the means of the frames beside it."""
    of = means.of(intake.folder)
    if not of or set(of) != set(intake.ids):
        return False
    quiet = dataclasses.replace(intake, taken=[])
    plain = [
        (means.equal(intake.folder, batch), len(batch.ids), bool(batch.facts))
        for batch in read_batches(quiet, Findings())
    ]
    equal, seen = sum(each[0] for each in plain), sum(each[1] for each in plain)
    return equal == seen == len(intake.ids) and not any(each[2] for each in plain)


class Audits:
    """What looks at the content of the folders of one tree, each by its layout, and at all of them together."""

    def __init__(self, findings: Findings, known: Callable[[FeatureFolder], Known | None], means: Means) -> None:
        self.findings, self.means = findings, means
        self.ids = IdAudit(findings)
        self._layers = Layers(findings)

    def of(self, folder: FeatureFolder, facts: Known | None) -> ContentAudit | SetAudit:
        frames = _frames_of(folder, facts)
        if folder.strict:
            return ContentAudit(folder, self.findings, frames)

        def sound(id: str) -> Sound | None:
            return facts.sound_of(folder, id) if facts is not None else None

        return SetAudit(folder, self.findings, self.means, self._layers, frames, sound)


def _known(folder: FeatureFolder, known: Callable[[FeatureFolder], Known | None], findings: Findings) -> Known | None:
    try:
        return known(folder)
    except ManifestError as error:
        findings.add("source", folder.name, f"ids were not checked: {error}")
        return None


def _frames_of(folder: FeatureFolder, known: Known | None) -> Callable[[str], int | None]:
    return lambda id: known.frames_of(folder, id) if known is not None else None


class _Writer:
    """Stores batches while the next ones are read: reading is many small system calls, storing is hashing and fsync."""

    def __init__(self, store: FeatureStore | None, findings: Findings, dry_run: bool) -> None:
        self.store, self.findings, self.dry_run = store, findings, dry_run
        self._pool = ThreadPoolExecutor(WRITERS)
        self._pending: deque[tuple[Future[int], FeatureFolder, Batch, Recipe, FolderReport]] = deque()

    def put(self, folder: FeatureFolder, batch: Batch, recipe: Recipe, report: FolderReport) -> None:
        if self.store is None or self.dry_run:
            present, fresh = self._look(folder, batch, recipe)
            report.present += present
            report.would_store += fresh
            return
        while len(self._pending) >= WRITERS:
            self._collect()
        future = self._pool.submit(self._store, folder, batch, recipe)
        self._pending.append((future, folder, batch, recipe, report))

    def _store(self, folder: FeatureFolder, batch: Batch, recipe: Recipe) -> int:
        assert self.store is not None
        return self.store.put_many(
            folder.key,
            batch.ids,
            batch.values,
            recipe=recipe,
            provenance=batch.provenance,  # type: ignore[arg-type]
        )

    def _collect(self) -> None:
        future, folder, batch, recipe, report = self._pending.popleft()
        try:
            fresh = future.result()
        except ExistsError:
            # What it has beside rows that are stored with other values, which stay as they are.
            assert self.store is not None
            batch = batch.without(self._changed(self.store, folder, batch.rows(), recipe.fingerprint)[1])
            fresh = self._store(folder, batch, recipe) if batch.ids else 0
        report.stored += fresh
        report.present += len(batch.ids) - fresh

    def _look(self, folder: FeatureFolder, batch: Batch, recipe: Recipe) -> tuple[int, int]:
        """(how many of a batch are stored, how many would be)"""
        if self.store is None or recipe.fingerprint not in self.store.recipes(folder.key):
            return 0, len(batch.ids)
        rows = batch.rows()
        there, changed = self._changed(self.store, folder, rows, recipe.fingerprint)
        return len(there) - len(changed), len(rows) - len(there)

    def _changed(
        self, store: FeatureStore, folder: FeatureFolder, rows: Mapping[str, NDArray[np.generic]], fingerprint: str
    ) -> tuple[list[str], list[str]]:
        """(ids that are stored, those with other values): the latter are a finding, and stay as they are."""
        there = store.available(folder.key, rows, fingerprint=fingerprint)
        held = store.get_ragged(folder.key, there, fingerprint=fingerprint)
        changed = [id for id, stored in zip(there, held, strict=True) if stored.tobytes() != rows[id].tobytes()]
        if changed:
            owner = {stored.tobytes(): id for id, stored in zip(there, held, strict=True) if stored.any()}
            moved = [id for id in changed if owner.get(rows[id].tobytes(), id) != id]
            if moved:
                what = "values that are stored for another id: names and values were put together in another order"
                advice = "find out which is right; files that are written by position need the list of names beside"
                self.findings.add("order", folder.name, what, *moved, advice=advice)
            message = "stored with other values under this origin, and left so"
            self.findings.add("exists", folder.name, message, *changed, advice="give another tree another `origin=`")
        return there, changed

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            while self._pending and kind is None:
                self._collect()
        finally:
            self._pool.shutdown(cancel_futures=True)


def _coverage(intake: Intake, report: FolderReport, findings: Findings, known: Known | None) -> None:
    """Files against the ids that should be there, or against the published count where only that is known."""
    name, ids = intake.folder.name, set(intake.ids)
    dim, right = intake.dim, intake.folder.known_dim
    if right is not None and dim and dim != right:
        findings.add("dim", name, f"rows of {dim} values; those of {intake.folder.key.encoder} have {right}")
    if known is not None:
        if missing := sorted(set(known.expected) - ids):
            findings.add("missing_id", name, "samples of the split without a file", *missing)
        if unknown := sorted(ids - set(known.allowed)):
            findings.add("unknown_id", name, "files of samples that the dataset does not have", *unknown)
    elif report.expected is not None and len(ids) != report.expected:
        findings.add("count", name, f"{len(ids)} files; the split has {report.expected} samples")

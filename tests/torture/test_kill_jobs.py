"""kill -9 of extractions, of their decode workers, and of imports: what was told is there, and the next run goes on."""

from __future__ import annotations

import collections
import functools
import os
import random
import select
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoder_factories import NAMES
from figures import Figures
from media_factories import write_clip
from mutants import commits_file_by_file, mutant
from texts import KEY, encoded, make, texts_of, write_texts, wrong
from workers import Worker

from featurestore import Extractor, FeatureKey, FeatureStore, register_encoder
from featurestore.affectgpt import importing, intake
from featurestore.compute import extraction
from featurestore.fill import Fill
from featurestore.sample import Sample
from featurestore.storage.claims import Deferring

UNIT = 8  # instead of 64, so that a short job has several
PER_KILL = (UNIT + 4) * 3  # texts: of a unit, and of what goes through the encoder after it


class Jobs:
    """Extractions of one dataset, two at a time, each killed after some milliseconds; new stores as they get full."""

    def __init__(self, folder: Path, samples: dict[str, Sample]) -> None:
        self.folder, self.samples = folder, samples
        self.stores = 0
        self.told: set[str] = set()  # samples that the jobs of this store said were stored
        self.kills = self.again = 0
        self.found: list[str] = []
        self.root = self.log = folder
        self._new_store()

    def _new_store(self) -> None:
        self.stores += 1
        self.root, self.log = self.folder / f"store{self.stores}", self.folder / f"log{self.stores}"
        self.told = set()

    def start(self) -> tuple[Worker, int, Path, float]:
        read_end, write_end = os.pipe()
        worker = Worker(functools.partial(self._work, write_end))
        os.close(write_end)
        return worker, read_end, self.root, time.monotonic()

    def _work(self, pipe: int) -> None:
        release = Deferring.release

        def settled(claim: Deferring, id: str) -> None:  # what an extraction does once a sample is stored
            os.write(pipe, f"{id}\n".encode())
            release(claim, id)

        Deferring.release = settled  # type: ignore[method-assign]
        make(self.root, self.samples, self.log)

    def end(self, worker: Worker, pipe: int, root: Path, started: float, after_s: float) -> None:
        """Kill it so long after its first sample, or after its start where the machine is fast."""
        select.select([pipe], [], [], 10)  # a loaded machine may need longer to start it than it is to live
        time.sleep(max(0.001, started + after_s - time.monotonic()))
        self.kills += worker.kill()
        with os.fdopen(pipe) as said:
            told = said.read().split()
        if root == self.root:
            self.told.update(told)
            self._check()

    def _check(self) -> None:
        store = FeatureStore(self.root)
        stored = store.available(KEY, self.samples)
        self.found += [f"{id} was said to be stored" for id in sorted(self.told.difference(stored))]
        self.found += [f"{id} has other values" for id in wrong(self.root, stored)]
        feature_set = store.feature_set(KEY)
        self.found += feature_set.reader.problems.values() if feature_set is not None else ()
        if len(stored) == len(self.samples):
            self.finish()

    def finish(self) -> None:
        """The next run, which nobody kills, ends the job."""
        report = make(self.root, self.samples, self.log)
        store = FeatureStore(self.root)
        if not report.ok or store.missing(KEY, self.samples) or wrong(self.root, self.samples):
            self.found.append(f"the last run of {self.root.name} did not end the job: {report}")
        times = collections.Counter(encoded(self.log))
        self.again += sum(times.values()) - len({text for id in self.samples for text in texts_of(id)})
        self._new_store()


def kill_extractions(folder: Path, kills: int) -> Jobs:
    folder.mkdir()
    jobs, random_ = Jobs(folder, write_texts(folder / "texts", 120)), random.Random(0)
    running = [jobs.start()]
    while jobs.kills < kills and not jobs.found:
        running.append(jobs.start())
        jobs.end(*running.pop(0), random_.uniform(0.01, 0.12))
    jobs.end(*running.pop(), 0)
    jobs.finish()
    return jobs


@pytest.fixture
def _small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.fill.UNIT", UNIT)


@pytest.mark.usefixtures("_small_units")
@pytest.mark.timeout(0)
def test_killed_extractions_lose_nothing_that_they_told_and_cost_a_unit_each(
    fast_disk: Path, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    jobs = kill_extractions(fast_disk / "extractions", rounds(60, 1_000))
    allowed = jobs.kills * PER_KILL
    figures.record(
        "extractions killed",
        jobs.kills,
        "kills",
        {"lost or wrong": len(jobs.found), "more than a unit per kill": max(0, jobs.again - allowed)},
        {"texts encoded again": jobs.again},
    )
    assert jobs.found == []
    assert jobs.again <= allowed


EXTRACT_MUTANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "tells before it stores": lambda: mutant(
        Fill.commit,
        "ready = dict(self._ready)\n",
        "ready = dict(self._ready)\n        for id in ready:\n            self.claim.release(id)\n",
    ),
    "commits file by file, zarr.json first": lambda: commits_file_by_file(document_last=False),
}


@pytest.mark.usefixtures("_small_units")
@pytest.mark.parametrize("name", EXTRACT_MUTANTS)
def test_an_extraction_that_a_kill_undoes_is_caught(name: str, fast_disk: Path, figures: Figures) -> None:
    with EXTRACT_MUTANTS[name]():
        jobs = kill_extractions(fast_disk / name.replace(" ", "-"), 1_000)
    assert jobs.found
    figures.caught("extractions killed", name)


# ---- import ----

FRAMES = "frame_CLIP_VIT_LARGE_emotion_peak_8frms"
FRAMES_KEY = FeatureKey("mer2023", "frame", "CLIP_VIT_LARGE", "emotion_peak", 8)


def kill_imports(folder: Path, kills: int) -> tuple[int, list[str]]:
    """(kills, what was lost or wrong).  One import at a time, killed after some milliseconds, begun again."""
    tree = folder / "tree" / "mer2023" / FRAMES
    tree.mkdir(parents=True)
    values = np.random.default_rng(0).standard_normal((120, 8, 16), dtype=np.float32)
    ids = [f"sample_{number:08d}" for number in range(len(values))]
    for id, one in zip(ids, values, strict=True):
        np.save(tree / f"{id}.npy", one)
    truth = dict(zip(ids, values, strict=True))
    random_, done, stores, before = random.Random(0), 0, 0, 0
    found: list[str] = []
    root = folder / "store0"
    while done < kills and not found:
        worker = Worker(functools.partial(importing.import_tree, folder / "tree", FeatureStore(root), origin="old"))
        time.sleep(random_.uniform(0.005, 0.06))
        done += worker.kill()
        found += lost(root, truth, before)
        before = len(FeatureStore(root).ids(FRAMES_KEY))
        if before == len(ids):
            (row,) = importing.import_tree(folder / "tree", FeatureStore(root), origin="old").folders
            if (row.stored, row.present, row.refused) != (0, len(ids), 0):
                found.append(f"the next import says {row}")
            stores, before = stores + 1, 0
            root = folder / f"store{stores}"
    (row,) = importing.import_tree(folder / "tree", FeatureStore(root), origin="old").folders
    if row.stored + row.present != len(ids) or lost(root, truth, len(ids)):
        found.append(f"the last import says {row}")
    return done, found


def lost(root: Path, truth: dict[str, Any], before: int) -> list[str]:
    """Rows that were there and are not, have other bits, or are there twice; damage."""
    store = FeatureStore(root)
    ids = store.available(FRAMES_KEY, truth)
    found = [f"{before} rows were stored, {len(ids)} are"] if len(ids) < before else []
    found += [f"{id} has other bits" for id in ids if not np.array_equal(store.get(FRAMES_KEY, id), truth[id])]
    feature_set = store.feature_set(FRAMES_KEY)
    if feature_set is not None:
        found += feature_set.reader.problems.values()
        rows = sum(segment.n for segment in feature_set.reader.segments)
        found += [f"{rows} rows for {len(ids)} ids"] if rows != len(ids) else []
    return found


@pytest.fixture
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "BATCH_BYTES", 10 * 8 * 16 * 4)


@pytest.mark.usefixtures("_small_batches")
@pytest.mark.timeout(0)
def test_killed_imports_lose_nothing_and_store_nothing_twice(
    fast_disk: Path, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    kills, found = kill_imports(fast_disk / "imports", rounds(60, 1_000))
    figures.record("imports killed", kills, "kills", {"lost or wrong": len(found)})
    assert found == []


@pytest.mark.usefixtures("_small_batches")
def test_an_import_that_a_kill_leaves_half_done_is_caught(fast_disk: Path, figures: Figures) -> None:
    with commits_file_by_file(document_last=False):
        _, found = kill_imports(fast_disk / "in-place", 200)
    assert found
    figures.caught("imports killed", "commits file by file, zarr.json first")


# ---- decode workers ----

register_encoder("MeanColour", NAMES["MeanColour"])
CLIPS_KEY = FeatureKey("demo", "frame", "MeanColour", "uniform", 4)


@pytest.fixture(scope="module")
def clips(fast_disk: Path) -> dict[str, Sample]:
    folder = fast_disk / "clips"
    folder.mkdir()
    ids = [f"clip{number}" for number in range(12)]
    return {id: Sample(id, video=write_clip(folder / f"{id}.mp4", 12 + number)) for number, id in enumerate(ids)}


def make_clips(root: Path, samples: dict[str, Sample]) -> extraction.ExtractionReport:
    with Extractor({"demo": samples}, workers=2, batch_size=4) as extractor:
        return extraction.extract(FeatureStore(root, compute=extractor), CLIPS_KEY, list(samples))


def children(pid: int) -> list[int]:
    """Processes that this one started and that run a program, not the tracker of shared memory."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                parent = Path(entry.path, "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
                command = Path(entry.path, "cmdline").read_bytes()
            except OSError:
                continue
            if int(parent) == pid and b"spawn_main" in command:
                found.append(int(entry.name))
    return found


def killed_beside(root: Path, samples: dict[str, Sample], pick: Callable[[list[int]], int], wait_s: float) -> Any:
    """(kills, what the extraction returned, what it raised) while its decode workers are killed one by one."""
    worker, kills = Worker(functools.partial(make_clips, root, samples)), 0
    until = time.monotonic() + 60
    while kills < 3 and time.monotonic() < until and not worker.ended():
        workers = children(worker.pid)
        if len(workers) == 2:
            time.sleep(wait_s)
            try:
                os.kill(pick(workers), signal.SIGKILL)
                kills += 1
            except ProcessLookupError:
                continue
        time.sleep(0.02)
    return kills, *worker.outcome()


def test_killed_decode_workers_cost_at_most_the_samples_that_they_had(
    fast_disk: Path, clips: dict[str, Sample], rounds: Callable[[int, int], int], figures: Figures
) -> None:
    sound = fast_disk / "sound"
    make_clips(sound, clips)
    random_, kills, lost_ones, found = random.Random(0), 0, 0, []
    for number in range(rounds(3, 60)):
        root = fast_disk / f"workers{number}"
        killed, report, error = killed_beside(root, clips, random_.choice, random_.uniform(0, 0.3))
        kills += killed
        # One that is killed while it has nothing to do ends the pool: the run says so, and ends.
        if error and "WorkerPoolError" not in error:
            found.append(error)
        if report is not None:
            lost_ones += len(report.failed)
            found += [f.message for f in report.failed.values() if f.deterministic or "SIGKILL" not in f.message]
        if report is not None and len(report.failed) > killed:
            found.append(f"{killed} kills cost {len(report.failed)} samples")
        again = make_clips(root, clips)
        store = FeatureStore(root)
        ids = list(clips)
        if not again.ok or not np.array_equal(
            store.get_many(CLIPS_KEY, ids), FeatureStore(sound).get_many(CLIPS_KEY, ids)
        ):
            found.append(f"the next run did not end the job: {again}")
        if store.failures(CLIPS_KEY):
            found.append("a record was kept of what a kill did")
    beside = {"samples that the next run made": lost_ones}
    figures.record("decode workers killed", kills, "kills", {"lost or wrong": len(found)}, beside)
    assert kills > 0
    assert found == []


def test_a_killed_extraction_leaves_no_process_behind(
    fast_disk: Path, clips: dict[str, Sample], rounds: Callable[[int, int], int], figures: Figures
) -> None:
    random_, left = random.Random(0), []
    runs = rounds(3, 60)
    for number in range(runs):
        worker = Worker(functools.partial(make_clips, fast_disk / f"alone{number}", clips))
        until = time.monotonic() + 60
        while len(children(worker.pid)) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(random_.uniform(0, 0.5))
        workers = children(worker.pid)
        worker.kill()
        until = time.monotonic() + 20
        while (alive := [pid for pid in workers if runs_still(pid)]) and time.monotonic() < until:
            time.sleep(0.02)
        left += alive
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
    figures.record("extractions killed: decode workers left behind", runs, "kills", {"left": len(left)})
    assert left == []


def runs_still(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

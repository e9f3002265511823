"""Extractions beside each other and beside reads on demand share the work; without locks they double it, no more."""

from __future__ import annotations

import collections
import errno
import fcntl
import functools
import os
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import pytest
from figures import Figures
from mutants import mutant
from test_disks import BERT, LAB
from texts import KEY, encoded, make, texts_of, write_texts, wrong
from workers import Worker, run_all

from featurestore import Extractor, FeatureStore
from featurestore.sample import Sample
from featurestore.storage.claims import UNIT, Deferring, Waiting
from featurestore.storage.locks import BUCKETS

SAMPLES = 300
DAY_S = 86_400


@pytest.fixture(scope="module")
def samples(fast_disk: Path) -> dict[str, Sample]:
    return write_texts(fast_disk / "shared-texts", SAMPLES)


def ask(root: Path, samples: dict[str, Sample], log: Path, seed: int) -> None:
    """Every sample on demand, some at a time, in an order of its own."""
    os.environ["ENCODE_LOG"] = str(log)
    ids, random_ = list(samples), random.Random(seed)
    random_.shuffle(ids)
    with Extractor({"talk": samples}, workers=1, batch_size=4) as extractor:
        store = FeatureStore(root, compute=extractor)
        while ids:
            some = [ids.pop() for _ in range(min(len(ids), random_.choice((1, 1, 6))))]
            assert len(store.get_ragged(KEY, some)) == len(some)


def off_by(seconds: float, job: Callable[[], object]) -> object:
    """The job by a clock that is off."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)
    return job()


def all_at_once(root: Path, samples: dict[str, Sample], log: Path, hours_off: tuple[float, ...] = (0,)) -> None:
    """Four extractions, one after the other begun, and four processes that ask."""
    jobs: list[Callable[[], object]] = [functools.partial(ask, root, samples, log, seed) for seed in range(4)]
    for number in range(4):
        jobs.append(functools.partial(late, 0.3 * number / 4, functools.partial(make, root, samples, log)))
    run_all([functools.partial(off_by, 3600 * hours_off[n % len(hours_off)], job) for n, job in enumerate(jobs)])


def late(seconds: float, job: Callable[[], object]) -> object:
    time.sleep(seconds)
    return job()


def twice(log: Path) -> int:
    """How many texts were encoded more than once, each time counted."""
    return sum(count - 1 for count in collections.Counter(encoded(log)).values())


def leave_locks(root: Path, samples: dict[str, Sample]) -> None:
    """Lock files of a process that was killed while it held them, and of others, months ago."""
    os.environ["ENCODE_LOG"] = os.devnull
    with Extractor({"talk": samples}, workers=1) as extractor:
        feature_set = FeatureStore(root, compute=extractor).feature_set(KEY)
    assert feature_set is not None

    def hold() -> None:
        # No more than a writer holds at once: each is an open file, of which some machines allow 256.
        with feature_set.locks.hold(list(samples)[:UNIT]), feature_set.locks.recipe():
            (root / "held").touch()
            time.sleep(60)

    root.mkdir()
    worker = Worker(hold)
    while not (root / "held").exists():
        assert not worker.ended(), worker.outcome()
        time.sleep(0.01)
    worker.kill()
    for name in (*(f"{bucket:04d}" for bucket in range(BUCKETS)), "recipe"):
        path = feature_set.locks.folder / f"{name}.lock"
        path.write_text("4711 on another host\n")
        os.utime(path, (0, 0))


@pytest.mark.parametrize("state", ["as usual", "clocks a day apart", "stale locks"])
def test_each_sample_is_computed_once(
    state: str, fast_disk: Path, samples: dict[str, Sample], rounds: Callable[[int, int], int], figures: Figures
) -> None:
    again, tried, found = 0, 0, []
    for number in range(rounds(1, 20)):
        root, log = fast_disk / f"{state} {number}", fast_disk / f"{state} {number}.log"
        if state == "stale locks":
            leave_locks(root, samples)
        started = time.monotonic()
        all_at_once(root, samples, log, (0, 24, -24) if state == "clocks a day apart" else (0,))
        assert time.monotonic() - started < 60  # nobody waited for somebody who is gone
        found += wrong(root, samples) + FeatureStore(root).missing(KEY, samples)
        again += twice(log)
        tried += len(encoded(log))
    bad = {"computed twice": again, "lost or wrong": len(found)}
    figures.record(f"4 extractions beside 4 processes that ask, {state}", tried, "texts", bad)
    assert again == 0
    assert found == []


MUTANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "extract takes what others hold": lambda: mutant(Deferring._claim, "if lock is None:", "if False:"),
    "a miss takes no lock": lambda: mutant(
        Waiting.units, "self.feature_set.locks.hold(unit) if self.locked else nullcontext()", "nullcontext()"
    ),
    "a miss does not look again": lambda: mutant(Waiting.units, "self.feature_set.reader.refresh(force=True)", "pass"),
    "extract does not look again": lambda: mutant(
        Deferring._stored_meanwhile, "if id not in self.feature_set.reader:", "if True:"
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_work_that_is_not_shared_is_caught(
    name: str, fast_disk: Path, samples: dict[str, Sample], figures: Figures
) -> None:
    def lost(number: int) -> bool:
        log = fast_disk / f"{name} {number}.log"
        all_at_once(fast_disk / f"{name} {number}", samples, log)
        return twice(log) > 0

    with MUTANTS[name]():
        assert any(lost(number) for number in range(5))  # a loaded machine may win a race once
    figures.caught("4 extractions beside 4 processes that ask, as usual", name)


@pytest.mark.parametrize("reason", ["flock does nothing", "no locks here", "a lock directory of another user"])
def test_without_locks_every_extraction_ends_well(
    reason: str,
    fast_disk: Path,
    samples: dict[str, Sample],
    monkeypatch: pytest.MonkeyPatch,
    figures: Figures,
) -> None:
    """At its end extract merges and removes, for which it must have a lock: it does without, and says so."""
    samples = dict(list(samples.items())[:80])
    root, log = fast_disk / reason, fast_disk / f"{reason}.log"
    user: Callable[[Callable[[], object]], object] = lambda job: job()  # noqa: E731
    if reason == "flock does nothing":
        monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    elif reason == "no locks here":
        monkeypatch.setattr(fcntl, "flock", mock.Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    else:
        user = prepared_for_another_user(root, log, fast_disk, samples)
    jobs: list[Callable[[], object]] = [functools.partial(make, root, samples, log) for _ in range(3)]
    jobs.append(functools.partial(ask, root, samples, log, 0))
    reports = run_all([functools.partial(user, job) for job in jobs])
    bad = [id for id in samples if id in wrong(root, samples)] + FeatureStore(root).missing(KEY, samples)
    figures.record(f"extractions without locks: {reason}", len(encoded(log)), "texts", {"lost or wrong": len(bad)})
    assert bad == []
    assert all(report.ok for report in reports[:3])
    assert set(encoded(log)) == {text for id in samples for text in texts_of(id)}


def prepared_for_another_user(
    root: Path, log: Path, fast_disk: Path, samples: dict[str, Sample]
) -> Callable[[Callable[[], object]], object]:
    """A store of a group, whose lock directory only its owner may write; the jobs run as somebody else of the group."""
    if os.getuid() != 0:
        pytest.skip("only root can be two users")
    os.environ["ENCODE_LOG"] = os.devnull
    first = dict(list(samples.items())[:1])
    before = os.umask(0o022)  # a group that shares a store lets its members read
    try:
        make(root, first, Path(os.devnull))
    finally:
        os.umask(before)
    log.write_text("".join(f"{text}\n" for id in first for text in texts_of(id)), encoding="utf-8")
    for folder, _, files in os.walk(root):
        for path in (folder, *(f"{folder}/{name}" for name in files)):
            os.chown(path, 0, LAB)
        os.chmod(folder, 0o2775)
    feature_set = FeatureStore(root).feature_set(KEY)
    assert feature_set is not None
    feature_set.locks.folder.chmod(0o755)
    for lock in feature_set.locks.folder.iterdir():
        lock.chmod(0o600)
    # What the other user reads and appends to, whatever umask this runs under.
    log.chmod(0o666)
    fast_disk.chmod(0o755)
    for sample in samples.values():
        assert sample.au_json is not None
        sample.au_json.parent.chmod(0o755)
        sample.au_json.chmod(0o644)

    def as_bert(job: Callable[[], object]) -> object:
        os.setgroups([LAB])
        os.setgid(LAB)
        os.setuid(BERT)
        return job()

    return as_bert

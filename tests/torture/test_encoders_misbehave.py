"""Encoders that hang, crash, hand out one buffer or come with other weights, and media that change afterwards."""

from __future__ import annotations

import functools
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoders_odd import row_of
from figures import Figures
from mutants import mutant
from texts import KEY, encoded, make, texts_of, write_texts, wrong
from workers import Worker

from featurestore import Extractor, FeatureStore, encoders
from featurestore.compute import batching, extraction
from featurestore.errors import AmbiguousRecipeError
from featurestore.fill import Fill
from featurestore.quality import check_store
from featurestore.sample import Sample

COUNT = 60
AT = 45  # the sample where it happens
UNIT = 8


@pytest.fixture(scope="module")
def samples(fast_disk: Path) -> dict[str, Sample]:
    return write_texts(fast_disk / "odd-texts", COUNT)


@pytest.fixture(autouse=True)
def _small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.fill.UNIT", UNIT)


def text_at(samples: dict[str, Sample]) -> str:
    return texts_of(list(samples)[AT])[0]


def misbehaving(what: str, root: Path, samples: dict[str, Sample], log: Path) -> Worker:
    """An extraction whose encoder does this at one sample, in a process of its own."""

    def job() -> Any:
        import faulthandler  # prints what is meant to happen

        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ["MISBEHAVE"] = f"{what}@{text_at(samples)}"
        return make(root, samples, log)

    return Worker(job)


def reached(log: Path, text: str) -> None:
    until = time.monotonic() + 60
    while text not in encoded(log):
        assert time.monotonic() < until
        time.sleep(0.005)


def kept(root: Path, samples: dict[str, Sample]) -> int:
    """How many are stored; none is wrong, and the next run ends the job without waiting for anybody."""
    stored = len(FeatureStore(root).available(KEY, samples))
    started = time.monotonic()
    report = make(root, samples, Path(os.devnull))
    assert time.monotonic() - started < 60
    assert report.ok
    assert report.stored_before == stored
    assert wrong(root, samples) == FeatureStore(root).missing(KEY, samples) == []
    return stored


def after_a_crash(root: Path, samples: dict[str, Sample]) -> int:
    worker = misbehaving("crash", root, samples, root.with_suffix(".log"))
    result, _ = worker.outcome()
    assert result is None
    assert worker.status == -signal.SIGSEGV
    return kept(root, samples)


def after_ctrl_c(root: Path, samples: dict[str, Sample]) -> int:
    log = root.with_suffix(".log")
    worker = misbehaving("hang", root, samples, log)
    reached(log, text_at(samples))
    time.sleep(0.1)
    os.kill(worker.pid, signal.SIGINT)
    until = time.monotonic() + 20
    while not worker.ended():
        if time.monotonic() > until:
            worker.kill()
            raise AssertionError("Ctrl-C ends no hanging encoder")
        time.sleep(0.01)
    _, error = worker.outcome()
    assert error.rstrip().endswith("KeyboardInterrupt")
    return kept(root, samples)


def test_an_encoder_that_crashes_the_process_costs_what_was_not_committed(
    fast_disk: Path, samples: dict[str, Sample], figures: Figures
) -> None:
    stored = after_a_crash(fast_disk / "crash", samples)
    figures.record("an encoder that crashes", 1, "crashes", {"units lost": max(0, (AT - 2 * UNIT - stored) // UNIT)})
    assert stored > AT - 2 * UNIT


def test_ctrl_c_ends_an_encoder_that_hangs_and_keeps_all_that_was_ready(
    fast_disk: Path, samples: dict[str, Sample], figures: Figures
) -> None:
    stored = after_ctrl_c(fast_disk / "hang", samples)
    # Up to four samples were with the encoder.
    figures.record("an encoder that hangs, and Ctrl-C", 1, "hangs", {"lost": max(0, AT - 4 - stored)})
    assert stored >= AT - 4


def test_an_extraction_that_keeps_less_is_caught(
    fast_disk: Path, samples: dict[str, Sample], figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mutant(Fill.run, "self.commit()", "pass"):
        monkeypatch.setattr("featurestore.fill.UNIT", 50)
        assert after_ctrl_c(fast_disk / "hang, mutant", samples) < AT - 4
    figures.caught("an encoder that hangs, and Ctrl-C", "keeps whole units only")
    with mutant(Fill._accept, "if len(self._ready) >= UNIT:", "if False:"):
        assert after_a_crash(fast_disk / "crash, mutant", samples) <= AT - 2 * UNIT
    figures.caught("an encoder that crashes", "commits at the end")


def ask_and_hang(root: Path, samples: dict[str, Sample], log: Path) -> list[str]:
    """On demand: the process that was interrupted asks again; what it got."""
    os.environ["ENCODE_LOG"], os.environ["MISBEHAVE"] = str(log), f"hang@{text_at(samples)}"
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ids = list(samples)[AT - 3 : AT + 1]
    with Extractor({"talk": samples}, workers=1, batch_size=1) as extractor:
        store = FeatureStore(root, compute=extractor)
        try:
            store.get_ragged(KEY, ids)
        except KeyboardInterrupt:
            stored = FeatureStore(root).available(KEY, ids)
        del os.environ["MISBEHAVE"]
        store.get_ragged(KEY, ids)
    return stored


def test_ctrl_c_of_a_read_on_demand_gives_its_locks_back(fast_disk: Path, samples: dict[str, Sample]) -> None:
    root, log = fast_disk / "asked", fast_disk / "asked.log"
    worker = Worker(functools.partial(ask_and_hang, root, samples, log))
    reached(log, text_at(samples))
    time.sleep(0.1)
    os.kill(worker.pid, signal.SIGINT)
    assert worker.result() == list(samples)[AT - 3 : AT]
    assert wrong(root, samples) == []


class OneBuffer:
    """As `Texts`, but it hands out the same array at every call."""

    modality, version, dim = "au", 1, 8
    buffer = np.zeros((64, 8), np.float32)

    def __init__(self, weights: str | None, device: str | None) -> None: ...

    def config(self) -> dict[str, Any]:
        return {"made": "of texts"}

    def encode(self, texts: list[str]) -> Any:
        self.buffer[: len(texts)] = [row_of(text) for text in texts]
        return self.buffer[: len(texts)]


def wrong_with_one_buffer(root: Path, samples: dict[str, Sample], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("encoders_odd.Texts", OneBuffer)
    report = make(root, samples, Path(os.devnull))
    assert report.ok
    return wrong(root, samples)


def test_an_encoder_that_hands_out_one_buffer(
    fast_disk: Path, samples: dict[str, Sample], monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    assert wrong_with_one_buffer(fast_disk / "buffer", samples, monkeypatch) == []
    with mutant(batching.Batch._together, ".copy()", ""):
        assert wrong_with_one_buffer(fast_disk / "buffer, mutant", samples, monkeypatch)
    figures.caught("an encoder that hands out one buffer", "keeps the encoder's own array")


def mixed(folder: Path, samples: dict[str, Sample]) -> list[str]:
    """Samples made with other weights under one name, half of them each: whose values are not their recipe's."""
    folder.mkdir()
    weights, root, ids = folder / "weights.bin", folder / "store", list(samples)
    halves = {"one": ids[: COUNT // 2], "two": ids[COUNT // 2 :]}
    recipes = {}
    for content, half in halves.items():
        weights.write_text(content)
        report = make(root, {id: samples[id] for id in half}, Path(os.devnull), weights=str(weights))
        assert report.computed == len(half)
        recipes[content] = report.recipe
    store, found = FeatureStore(root), []
    for content, recipe in recipes.items():
        for id in store.available(KEY, ids, fingerprint=recipe):
            expected = np.stack([row_of(text, content) for text in texts_of(id)])
            found += [] if np.array_equal(store.get(KEY, id, fingerprint=recipe), expected) else [id]
    if len(set(recipes.values())) == 2:
        with pytest.raises(AmbiguousRecipeError):
            store.get(KEY, ids[0])
    return found


def test_other_weights_under_one_name_are_another_recipe(
    fast_disk: Path, samples: dict[str, Sample], monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    assert mixed(fast_disk / "weights", samples) == []
    monkeypatch.setattr(encoders, "weights_identity", lambda encoder, weights: {"name": Path(weights).name})
    assert mixed(fast_disk / "weights, mutant", samples)
    figures.caught("other weights under one name", "weights are told by their name")


def stale(folder: Path) -> tuple[list[str], list[str]]:
    """A file changes after its sample was stored: who is stale by verify, and whose values are not made again."""
    samples, root = write_texts(folder, 12), folder / "store"
    make(root, samples, Path(os.devnull))
    changed, touched = list(samples)[3:5]
    path = samples[changed].au_json
    assert path is not None
    before = path.stat()
    path.write_text(path.read_text().replace(f"{changed} 0", f"{changed} 9"))  # of the same size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    os.utime(samples[touched].au_json or path)
    found = [id for f in check_store(root, sources={"talk": samples}).findings if f.kind == "stale" for id in f.ids]
    report = make(root, samples, Path(os.devnull))
    assert report.stale == [changed][: len(report.stale)]
    values = FeatureStore(root).get(KEY, changed)
    return found, [] if np.array_equal(values[0], row_of(f"{changed} 9")) else [changed]


def test_media_that_changed_since_are_told_by_verify_and_made_again(fast_disk: Path, figures: Figures) -> None:
    found, not_made_again = stale(fast_disk / "changed")
    assert len(found) == 1
    assert not_made_again == []
    with mutant(extraction.verdicts, "for line in feature_set.lines()", "for line in ()"):
        assert stale(fast_disk / "changed, mutant")[1]
    figures.caught("media that changed since", "extract does not look at the media")

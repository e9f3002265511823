"""Records of samples that cannot be made."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from featurestore.errors import MediaError, MediaTimeoutError, StoreError
from featurestore.features import Failure
from featurestore.storage.failures import FailureRecord, Failures, _checksum

RECIPE = "0123456789abcdef"


@pytest.fixture
def failures(tmp_path: Path) -> Failures:
    return Failures(tmp_path / "housekeeping" / "failed", RECIPE)


def test_a_record_is_read_back_as_it_was_added(failures: Failures) -> None:
    sources = [{"path": "/videos/é.mp4", "size": 3, "mtime_ns": 5, "sha256": "ab"}]
    record = failures.add("-x/../é", Failure("media", "é.mp4 is truncated", sources=sources))
    assert failures.get("-x/../é") == record
    assert failures.all() == {"-x/../é": record}
    assert (record.id, record.reason, record.message) == ("-x/../é", "media", "é.mp4 is truncated")
    assert (record.attempts, record.recipe, record.sources) == (1, RECIPE, sources)
    assert record.time.endswith("Z")
    assert failures.get("other") is None


def test_nothing_is_touched_before_the_first_record(failures: Failures, tmp_path: Path) -> None:
    assert failures.get("a") is None
    assert failures.all() == {}
    assert failures.clear(["a"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_attempts_are_counted_and_the_last_message_stays(failures: Failures) -> None:
    failures.add("a", Failure("media", "first"))
    record = failures.add("a", Failure("encoding", "second"))
    assert (record.attempts, record.reason, record.message) == (2, "encoding", "second")
    assert len(list(failures.folder.iterdir())) == 1


def test_records_are_listed_by_id(failures: Failures) -> None:
    for id in ("b", "é", "a", "B"):
        failures.add(id, Failure("media", id))
    assert list(failures.all()) == ["B", "a", "b", "é"]


def test_clearing_counts_what_was_there(failures: Failures) -> None:
    for id in ("a", "b", "c"):
        failures.add(id, Failure("media", id))
    assert failures.clear(["a", "c", "x"]) == 2
    assert list(failures.all()) == ["b"]


def test_any_flipped_bit_makes_a_record_none_at_all(failures: Failures) -> None:
    """A record that cannot be read counts as none: the sample is tried again."""
    failures.add("a", Failure("media", "truncated"))
    (path,) = failures.folder.iterdir()
    raw = path.read_bytes()
    whole = failures.get("a")
    for at in range(len(raw)):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :])
        assert failures.get("a") in (None, whole)
    for at in range(len(raw)):
        path.write_bytes(raw[:at])
        assert failures.get("a") is None
        assert failures.all() == {}


def test_a_record_under_another_samples_name_is_not_believed(failures: Failures) -> None:
    failures.add("a", Failure("media", "x"))
    (path,) = failures.folder.iterdir()
    failures.add("b", Failure("media", "y"))
    (other,) = set(failures.folder.iterdir()) - {path}
    os.replace(path, other)
    assert failures.get("b") is None


def test_a_record_of_another_recipe_is_not_believed(failures: Failures) -> None:
    failures.add("a", Failure("media", "x"))
    assert Failures(failures.folder, "fedcba9876543210").get("a") is None


def test_a_record_of_a_later_version_with_more_in_it_counts_as_none(failures: Failures) -> None:
    failures.add("a", Failure("media", "x"))
    (path,) = failures.folder.iterdir()
    document = json.loads(path.read_bytes())
    document["record"]["severity"] = 3
    path.write_text(json.dumps(document))
    assert failures.get("a") is None


def test_a_record_is_void_when_a_source_changed_and_only_then(tmp_path: Path) -> None:
    video, audio = tmp_path / "a.mp4", tmp_path / "a.wav"
    for path in (video, audio):
        path.write_bytes(b"1234")
    sources = [
        {"path": str(path), "size": 4, "mtime_ns": path.stat().st_mtime_ns, "sha256": ""} for path in (video, audio)
    ]
    record = FailureRecord("a", "media", "x", 1, RECIPE, "", sources)
    assert not record.is_void()
    video.unlink()
    assert not record.is_void()  # gone: no reason to think that it works now
    audio.write_bytes(b"12345")
    assert record.is_void()
    os.truncate(audio, 4)
    os.utime(audio, ns=(1, 1))  # the same size, another time
    assert record.is_void()
    assert not FailureRecord("a", "media", "x", 1, RECIPE, "").is_void()
    assert not FailureRecord("a", "media", "x", 1, RECIPE, "", [{"url": "somebody else's kind of source"}]).is_void()


def test_a_record_that_cannot_be_written_is_an_error_that_says_what_it_was_about(tmp_path: Path) -> None:
    (tmp_path / "failed").write_text("a file where the directory should be")
    with pytest.raises(StoreError, match=r"the failure of sample 'a' \(truncated\) cannot be recorded: File exists"):
        Failures(tmp_path / "failed", RECIPE).add("a", Failure("media", "truncated"))


def test_a_failure_takes_its_reason_from_the_error() -> None:
    source = {"path": "a.mp4", "size": 1, "mtime_ns": 2}
    assert Failure.of(MediaError("no stream"), [source]) == Failure("media", "no stream", True, (source,))
    assert Failure.of(MediaTimeoutError("slow")) == Failure("timeout", "slow", False)


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", ["a"]), ("id", None), ("attempts", "1"), ("sources", [3]), ("sources", [{"path": 3}]), ("message", {})],
)
def test_a_record_with_fields_of_other_types_counts_as_none(failures: Failures, field: str, value: object) -> None:
    """Its checksum is right: it was forged."""
    failures.add("a", Failure("media", "cut off"))
    (path,) = failures.folder.iterdir()
    record = {**json.loads(path.read_bytes())["record"], field: value}
    path.write_text(json.dumps({"record": record, "crc32c": _checksum(record)}))
    assert failures.all() == {}
    assert failures.get("a") is None
    with pytest.raises(ValueError, match="of another type"):
        failures.read(path)


def test_a_record_that_is_nested_too_deeply_or_no_file_counts_as_none(failures: Failures) -> None:
    failures.add("a", Failure("media", "cut off"))
    (path,) = failures.folder.iterdir()
    path.write_text("[" * 100_000)
    assert failures.get("a") is None
    path.unlink()
    os.mkfifo(path)
    assert failures.all() == {}

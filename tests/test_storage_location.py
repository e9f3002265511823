"""The folder that a store is: URLs are none, and a path that was mistyped is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli_factories import KEY, make_store, run

from featurestore import FeatureStore
from featurestore.errors import ConfigError
from featurestore.storage.location import local, missing


@pytest.mark.parametrize("url", ["s3://bucket/lab", "gs://b/x", "hdfs://host:9000/x", "http://host/x", "s3:/b/lab"])
def test_a_url_is_no_folder(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = "is a URL, and a store is a folder of this machine: mount or copy what is behind it, and give the path"
    for root in (url, Path(url)):
        with pytest.raises(ConfigError, match=said) as caught:
            FeatureStore(root)
        assert "://" in str(caught.value)
    for words in (["extract", KEY], ["ls"], ["verify"], ["rm", KEY, "--yes"]):
        assert said in run(*words, "--store", url, exit_code=2).output.replace("\n", " ")
    assert os.listdir(tmp_path) == []


def test_a_file_url_is_told_its_path() -> None:
    with pytest.raises(ConfigError, match=r"give the path, /data/lab$"):
        local("file:///data/lab")


@pytest.mark.parametrize("name", ["a:b", "./s3:/x", "C", "c:/windows", "2024-01-01T10:00"])
def test_names_with_a_colon_are_folders(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert local(name) == tmp_path / os.path.normpath(name)


READING = [
    ["ls"], ["info", KEY], ["verify"], ["explain", KEY, "x"], ["rm", KEY], ["compact", KEY], ["gc"],
    ["export", "--layout", "affectgpt", "out"], ["retry", KEY, "--manifest", __file__],
]  # fmt: skip


@pytest.mark.parametrize("words", READING)
def test_a_command_that_reads_names_the_store_that_is_beside_a_mistyped_one(words: list[str], tmp_path: Path) -> None:
    root = make_store(tmp_path)
    before = sorted(os.listdir(tmp_path))
    typed = root.with_name("my featurse")
    said = run(*words, "--store", typed, exit_code=2).output
    assert f"there is no store {typed}; did you mean '{root.name}'?" in said
    assert sorted(os.listdir(tmp_path)) == before


def test_where_nothing_is_called_alike_nothing_is_offered(tmp_path: Path) -> None:
    make_store(tmp_path)
    assert missing(tmp_path / "zzz") == f"there is no store {tmp_path / 'zzz'}"
    assert missing(tmp_path / "no" / "folder") == f"there is no store {tmp_path / 'no' / 'folder'}"


def test_export_does_not_take_a_stored_key_for_the_folder_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = make_store(tmp_path)
    said = run("export", KEY, KEY, "--layout", "affectgpt", "--store", root, exit_code=2).stderr
    assert "is a key that is stored; name the folder to write into" in said
    assert not (tmp_path / "mer2023").exists()

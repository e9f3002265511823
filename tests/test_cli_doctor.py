"""fstore doctor: what works is told from what does not, and each broken promise by its name."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import types
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from cli_factories import run

from featurestore.cli import environment, filesystem
from featurestore.cli.checkup import Check

FINE = {"location", "space", "rename", "fsync", "exclusive creation", "flock", "map", "mtime", "case", "hard links"}


def location(store: Path) -> dict[str, Check]:
    return {check.name: check for check in filesystem.check_location(store)}


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without importing torch."""
    monkeypatch.setattr(environment, "_run", lambda program: (True, "1.0"))


@pytest.mark.usefixtures("light")
def test_a_sound_machine_has_no_problem(tmp_path: Path) -> None:
    text = run("doctor", "--store", tmp_path / "store").stdout
    assert text.endswith("0 problems.\n")
    assert "ok       flock" in text
    document = json.loads(run("doctor", "--store", tmp_path / "store", "--json").stdout)
    assert document["problems"] == 0
    assert {check["name"] for check in document["checks"]} >= FINE | {
        "python",
        "core",
        "cache",
        "hub",
        "CLIP_VIT_LARGE",
    }
    assert all(check.keys() == {"name", "state", "what", "advice"} for check in document["checks"])


def test_the_probes_leave_nothing_behind_and_do_not_make_the_store(tmp_path: Path) -> None:
    found = location(tmp_path / "not there yet" / "store")
    assert found.keys() == FINE
    assert list(tmp_path.iterdir()) == []


def broken(*arguments: Any, **more: Any) -> Any:
    raise OSError(errno.EINVAL, "Invalid argument")


def replacing_rename(old: Path, new: Path) -> None:
    subprocess.run(["rm", "-rf", str(new)], check=True)
    os.replace(old, new)


def forgetful_open(path: Any, flags: int, *more: Any, **named: Any) -> int:
    return OPEN(path, flags & ~os.O_EXCL, *more, **named)


def copying_rename(old: Path, new: Path) -> None:
    """As where folders are but a prefix of the names of objects: each file goes on its own."""
    if new.exists():
        raise OSError(errno.ENOTEMPTY, "Directory not empty")
    new.mkdir()
    for path in old.iterdir():
        path.replace(new / path.name)
        time.sleep(0.002)
    old.rmdir()


def keeping_rename(old: Path, new: Path) -> None:
    if new.exists():
        raise OSError(errno.EEXIST, "File exists")
    shutil.copytree(old, new.with_name("aside"))
    os.replace(new.with_name("aside"), new)


OPEN = os.open


@pytest.mark.parametrize(
    ("name", "function", "mutant", "what"),
    [
        ("rename", "rename", replacing_rename, "a rename replaced a folder that was there"),
        ("rename", "rename", broken, "Invalid argument (EINVAL)"),
        ("rename", "rename", copying_rename, "a folder of 32 files was seen with ... while it was renamed"),
        ("rename", "rename", keeping_rename, "a renamed folder is not where it should be"),
        ("fsync", "fsync", broken, "Invalid argument (EINVAL)"),
        ("exclusive creation", "open", forgetful_open, "a file that was there was created again"),
        ("map", "pread", lambda fd, size, offset: bytes(size), "a file has other bytes than were written"),
    ],
)
def test_a_file_system_that_breaks_a_promise_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, function: str, mutant: Any, what: str
) -> None:
    monkeypatch.setattr(filesystem.os, function, mutant)
    found = location(tmp_path)
    assert found[name].state == "problem"
    assert re.fullmatch(re.escape(what).replace(re.escape("..."), "[0-9]+"), found[name].what)
    assert "do not keep a store here" in found[name].advice
    others = {check.name for check in found.values() if check.state == "problem"} - {name}
    assert others == set(), "a promise that holds is blamed"


class StaleMap:
    """A map that shows what the file held before."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __enter__(self) -> bytes:
        return bytes(10)

    def __exit__(self, *_: object) -> None:
        pass


def test_a_map_that_shows_something_else_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem.mmap, "mmap", StaleMap)
    check = location(tmp_path)["map"]
    assert (check.state, check.what) == ("problem", "a map of a file shows other bytes than a read of it")
    assert "do not keep a store here" in check.advice


@pytest.mark.parametrize(
    ("name", "place", "function", "what", "advice"),
    [
        ("map", "mmap", "mmap", "not possible: Invalid argument", "read with pread"),
        ("hard links", "os", "link", "not possible: Invalid argument", "a store needs none"),
    ],
)
def test_what_a_store_can_do_without_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str, function: str, what: str, advice: str
) -> None:
    monkeypatch.setattr(getattr(filesystem, place), function, broken)
    check = location(tmp_path)[name]
    assert (check.state, check.what) == ("note", what)
    assert advice in check.advice


def test_a_rename_whose_answer_is_lost_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(old: Path, new: Path) -> None:
        RENAME(old, new)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(filesystem.os, "rename", rename)
    check = location(tmp_path)["rename"]
    assert (check.state, check.what) == ("note", "done, but reported as failed: Input/output error")
    assert "a commit looks again" in check.advice


RENAME = os.rename


def test_an_fsync_that_does_nothing_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem.os, "fsync", lambda file: None)
    check = location(tmp_path)["fsync"]
    assert check.state == "note"
    assert "faster than any disk" in check.what
    assert "a power cut could cost acknowledged samples" in check.advice


def test_locks_that_do_not_lock_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda file, operation: None)  # as Lustre mounted with neither flock option
    check = location(tmp_path)["flock"]
    assert (check.state, check.what) == ("problem", "two processes held one lock")
    assert "run compact, rm and gc from one process at a time" in check.advice


def test_locks_that_cannot_be_had_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")  # as NFS version 3 without a lock service

    monkeypatch.setattr(fcntl, "flock", flock)
    check = location(tmp_path)["flock"]
    assert (check.state, check.what) == ("problem", "No locks available (ENOLCK)")


@pytest.mark.usefixtures("light")
def test_a_promise_that_does_not_hold_is_on_the_screen_and_in_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda file, operation: None)
    text = run("doctor", "--store", tmp_path, exit_code=1).stdout
    assert "problem  flock                two processes held one lock; processes may compute the same sample" in text
    assert text.endswith("1 problem.\n")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_called_full_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def write(path: Path, data: bytes) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_bytes", write)
    found = location(tmp_path)
    assert found.keys() == {"location", "space", "writable"}
    assert (found["writable"].state, found["writable"].what) == ("problem", f"{tmp_path}: {os.strerror(code)}")
    assert "features can be read here, but misses cannot be kept: free some space" in found["writable"].advice
    assert list(tmp_path.iterdir()) == []


def test_few_files_left_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = os.statvfs(tmp_path)
    monkeypatch.setattr(
        filesystem.os, "statvfs", lambda path: types.SimpleNamespace(f_files=10**6, f_favail=100, f_bavail=now.f_bavail)
    )
    monkeypatch.setattr(filesystem.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1 << 40))
    check = location(tmp_path)["space"]
    assert check.state == "problem"
    assert "only 100 files more" in check.what


def test_a_house_on_another_file_system_is_a_problem(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is but one file system to write to")
    (tmp_path / "data").mkdir()
    with tempfile.TemporaryDirectory(dir=memory) as housekeeping:
        (tmp_path / ".fstore").symlink_to(housekeeping)
        check = location(tmp_path)["one file system"]
    assert check.state == "problem"
    assert "a commit cannot rename" in check.advice


def test_times_of_folders_that_are_coarse_are_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Path.mkdir

    def mkdir(path: Path, *arguments: Any, **named: Any) -> None:
        make(path, *arguments, **named)
        os.utime(path.parent, (int(time.time()), int(time.time())))

    monkeypatch.setattr(filesystem, "SKEW_S", 2.0)
    monkeypatch.setattr(Path, "mkdir", mkdir)
    for _ in range(2):  # a second may end between two entries
        check = location(tmp_path)["mtime"]
        if check.state == "note":
            break
    assert (check.state, check.advice) == ("note", "new samples of others may show 2 s late")


def test_names_that_differ_only_in_case_are_a_note_where_they_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: there(path.with_name(path.name.lower())))
    check = location(tmp_path)["case"]
    assert (check.state, check.what) == ("note", "names that differ only in case are one")


def test_a_clock_that_is_wrong_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = filesystem.time.time
    monkeypatch.setattr(filesystem.time, "time", lambda: now() + 60)
    check = location(tmp_path)["mtime"]
    assert check.state == "problem"
    assert check.what == "the clock of the file system is 60.0 s behind"


@pytest.mark.parametrize(
    ("kind", "state", "said"),
    [("nfs4", "note", "a network file system"), ("tmpfs", "note", "memory"), ("ext4", "ok", "is on ext4")],
)
def test_the_kind_of_file_system_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, state: str, said: str
) -> None:
    monkeypatch.setattr(filesystem, "mount_of", lambda path: (kind, "/x"))
    check = location(tmp_path)["location"]
    assert check.state == state
    assert said in check.what


def test_the_mount_is_the_one_that_the_path_is_on(tmp_path: Path) -> None:
    kind, mount = filesystem.mount_of(tmp_path)
    assert str(tmp_path).startswith(mount)
    assert filesystem.mount_of(Path("/proc"))[0] == "proc"
    assert kind != "proc"


def test_a_place_that_cannot_be_written_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    check = location(Path("/proc"))["writable"]
    assert check.state == "note"
    assert "misses cannot be kept" in check.advice


def test_little_space_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "LOW_SPACE", 1 << 60)
    assert location(tmp_path)["space"].state == "note"


def versions_without(*missing: str) -> Any:
    def version(package: str) -> str:
        if package in missing:
            raise metadata.PackageNotFoundError(package)
        return "1.0"

    return version


def test_missing_packages_are_a_problem_only_in_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "version", versions_without("zarr", "torch", "av"))
    found = {check.name: check for check in environment.check_packages()}
    assert (found["core"].state, found["core"].what) == ("problem", "not installed: zarr")
    assert (found["encoders"].state, found["encoders"].what) == ("note", "not installed: torch, av")
    assert "featurestore[encoders]" in found["encoders"].advice


def test_a_torchaudio_that_cannot_be_imported_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "version", versions_without())
    monkeypatch.setattr(environment, "TORCHAUDIO", "raise OSError('libc10_cuda.so is missing')")
    for name in ("TORCH", "PYAV", "CV2"):
        monkeypatch.setattr(environment, name, "print('fine')")
    found = {check.name: check for check in environment.check_imports()}
    assert found["torch"].what == "fine"
    assert found["torchaudio"].state == "problem"
    assert found["torchaudio"].what == "cannot be imported: OSError: libc10_cuda.so is missing"
    assert "pip uninstall torchaudio" in found["torchaudio"].advice


def test_a_package_that_crashes_does_not_take_doctor_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "version", versions_without("torchaudio", "av", "opencv-python-headless"))
    monkeypatch.setattr(environment, "TORCH", "import os; os.abort()")
    (check,) = environment.check_imports()
    assert (check.state, check.what) == ("problem", "cannot be imported: exit code -6")
    monkeypatch.setattr(environment, "TORCH", "import time; time.sleep(9)")
    monkeypatch.setattr(environment, "IMPORT_S", 0.2)
    (check,) = environment.check_imports()
    assert check.what == "cannot be imported: no answer within 0.2 s"


def test_the_programs_that_look_at_packages_run(tmp_path: Path) -> None:
    pytest.importorskip("av")
    fine, said = environment._run(environment.PYAV)
    assert fine
    assert "with FFmpeg" in said
    assert "without" not in said


def test_a_cache_that_cannot_be_written_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    found = {check.name: check for check in environment.check_caches()}
    assert found["cache"].state == "problem"
    assert "HF_ENDPOINT=https://mirror.example" in found["hub"].what


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    found = {check.name: check for check in environment.check_caches()}
    assert (found["cache"].state, found["cache"].what) == ("problem", "this user has no home directory")


def test_weights_are_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = {check.name: check for check in environment.check_weights()}
    assert found["CLIP_VIT_LARGE"].what == "weights are not here"
    assert "hf download openai/clip-vit-large-patch14" in found["CLIP_VIT_LARGE"].advice


def test_a_dataset_is_surveyed(tmp_path: Path) -> None:
    declaration = tmp_path / "mine.toml"
    declaration.write_text(
        'name = "mine"\n[splits.test]\ncount = 3\nfile = "names.csv"\n'
        '[video]\nfolder = "video"\nextensions = [".mp4"]\n'
    )
    (tmp_path / "names.csv").write_text("name\na\nb\n")
    (tmp_path / "video").mkdir()
    (tmp_path / "video" / "a.mp4").write_bytes(b"")
    result = run("doctor", "--dataset", declaration, "--root", tmp_path, exit_code=1)
    assert "mine, split test, in " in result.stdout
    assert "2 samples listed of 3 that the published split has" in result.stdout
    assert "video: 1 missing in " in result.stdout
    document = json.loads(run("doctor", "--dataset", declaration, "--root", tmp_path, "--json", exit_code=1).stdout)
    assert document["parts"]["video"]["first_missing"] == ["b"]
    (tmp_path / "video" / "b.mp4").write_bytes(b"")
    (tmp_path / "names.csv").write_text("name\na\nb\n")
    declaration.write_text(declaration.read_text().replace("count = 3", "count = 2"))
    run("doctor", "--dataset", declaration, "--root", tmp_path)
    declaration.write_text(declaration.read_text() + '[splits.test2]\nfile = "none.csv"\n')
    (tmp_path / "none.csv").write_text("name\n")
    result = run("doctor", "--dataset", declaration, "--root", tmp_path, "--split", "test2", exit_code=1)
    assert "split test2 lists no samples" in result.stdout


def test_the_files_that_a_manifest_names_are_looked_for(tmp_path: Path) -> None:
    rows = "".join(f"s{number},{number}.mp4,{number}.wav\n" for number in range(8))
    manifest = tmp_path / "samples.csv"
    manifest.write_text(f"id,video,audio\n{rows}none,,\n")
    for number in range(8):
        (tmp_path / f"{number}.mp4").write_bytes(b"frames" if number != 3 else b"")
    (tmp_path / "0.wav").write_bytes(b"sound")
    text = run("doctor", "--manifest", manifest, exit_code=1).stdout
    assert text.splitlines()[:4] == [
        f"{manifest}: 9 samples listed",
        "COLUMN  NAMED  FOUND  MISSING",
        "video       8      7        1",
        "audio       8      1        7",
    ]
    assert f"video: 1 of 8 are missing or empty: s3: {tmp_path / '3.mp4'}\n" in text
    assert text.endswith(f"s5: {tmp_path / '5.wav'}, ...\n")
    document = json.loads(run("doctor", "--manifest", manifest, "--json", exit_code=1).stdout)
    assert document["columns"]["video"]["absent"] == {"s3": str(tmp_path / "3.mp4")}
    assert document["columns"]["audio"]["missing"] == len(document["columns"]["audio"]["absent"]) == 7
    manifest.write_text("id,video\ns0,0.mp4\n")
    assert run("doctor", "--manifest", manifest).stdout.endswith("video       1      1        0\n")
    manifest.write_text("id,subtitle\ns0,yes\n")
    assert "names no files" in run("doctor", "--manifest", manifest, exit_code=1).stdout
    for more in (["--mer-factory", tmp_path], ["--dataset", "mer2023"]):
        run("doctor", "--manifest", manifest, *more, exit_code=2)
    assert "name it with --dataset" in run("doctor", "--root", tmp_path, exit_code=2).stderr


def test_doctor_does_not_import_torch_itself() -> None:
    code = "import sys; from featurestore.cli import doctor, environment, filesystem; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

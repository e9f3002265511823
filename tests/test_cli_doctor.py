"""fstore doctor: what works is told from what does not, and each broken promise by its name."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from cli_made import run

from featurestore.cli import environment, filesystem
from featurestore.cli.checkup import Check

FINE = {"location", "space", "rename", "fsync", "exclusive creation", "flock", "mtime", "case", "hard links"}


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


OPEN = os.open


@pytest.mark.parametrize(
    ("name", "function", "mutant", "what"),
    [
        ("rename", "rename", replacing_rename, "a rename replaced a folder that was there"),
        ("rename", "rename", broken, "Invalid argument (EINVAL)"),
        ("fsync", "fsync", broken, "Invalid argument (EINVAL)"),
        ("exclusive creation", "open", forgetful_open, "a file that was there was created again"),
    ],
)
def test_a_file_system_that_breaks_a_promise_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, function: str, mutant: Any, what: str
) -> None:
    monkeypatch.setattr(filesystem.os, function, mutant)
    found = location(tmp_path)
    assert (found[name].state, found[name].what) == ("problem", what)
    assert "do not keep a store here" in found[name].advice


def test_locks_that_do_not_lock_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda file, operation: None)  # as Lustre mounted without -o flock
    assert location(tmp_path)["flock"].state == "problem"


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


def test_a_manifest_is_not_for_doctor(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("id\na\n")
    assert "checked by verify" in run("doctor", "--manifest", tmp_path / "m.csv", exit_code=2).stderr


def test_doctor_does_not_import_torch_itself() -> None:
    code = "import sys; from featurestore.cli import doctor, environment, filesystem; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

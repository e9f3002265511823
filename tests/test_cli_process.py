"""fstore and affect-infer as processes: streams that are closed, full or narrow, and signals, cost no work."""

from __future__ import annotations

import json
import locale
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_factories import KEY as STORED_KEY
from cli_factories import make_store, program
from encoder_factories import NAMES
from media_factories import write_clip

from featurestore import FeatureStore, register_encoder

for name, target in NAMES.items():
    register_encoder(name, target)
BIN = Path(sys.executable).parent
KEY = "my/frame/MeanColour/uniform/4"
SAID = "Error: standard output cannot be written: "


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips, and one that is not there; ids that few encodings have."""
    folder = tmp_path_factory.mktemp("clips")
    clip = write_clip(folder / "clip.mp4", 6)
    rows = f"样本,{clip}\n😀é,{clip}\n坏,{folder / 'gone.mp4'}\n"
    (folder / "samples.csv").write_text(f"id,video\n{rows}", encoding="utf-8")
    return folder / "samples.csv"


def shell(folder: Path, words: str, how: str, **more: str) -> tuple[int, str]:
    """`fstore WORDS` with redirections -> (exit code, what was said)."""
    command = " ".join(f"'{part}'" for part in program(folder))
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} {words} {how}"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **more},
        check=False,
    )
    return done.returncode, done.stdout.decode(more.get("PYTHONIOENCODING", locale.getpreferredencoding(False)))


LISTED = {
    "latin-1": ["\\U0001f600é", "\\u6837\\u672c"],
    "koi8-r": ["\\U0001f600\\xe9", "\\u6837\\u672c"],
    "utf-8": ["😀é", "样本"],
}


@pytest.mark.parametrize("encoding", LISTED)
def test_what_an_encoding_lacks_is_escaped_and_nothing_is_lost(tmp_path: Path, manifest: Path, encoding: str) -> None:
    line = f"--manifest '{manifest}'"
    code, said = shell(tmp_path, f"extract {KEY} {line} --workers 1", "", PYTHONIOENCODING=encoding)
    assert code == 1
    assert "3 samples: 2 computed, 0 stored before, 1 failed." in said
    code, said = shell(tmp_path, f"ls {KEY}", "", PYTHONIOENCODING=encoding)
    assert code == 0
    assert sorted(said.splitlines()) == sorted(LISTED[encoding])
    more = (f"verify {KEY} {line}", f"explain {KEY} 样本", f"rm {KEY} --yes 样本") if encoding == "latin-1" else ()
    for words in more:
        code, said = shell(tmp_path, words, "", PYTHONIOENCODING=encoding)
        assert "Traceback" not in said
        assert code == words.startswith("verify")


@pytest.mark.parametrize("encoding", ["latin-1", "cp437"])
def test_json_stays_json_in_every_encoding(tmp_path: Path, manifest: Path, encoding: str) -> None:
    words = f"extract {KEY} --manifest '{manifest}' --workers 1 --json"
    code, said = shell(tmp_path, words, "2>&-", PYTHONIOENCODING=encoding)
    assert code == 1
    assert json.loads(said)["computed"] == 2
    assert list(json.loads(said)["failed"]) == ["坏"]
    code, said = shell(tmp_path, f"ls {KEY} --json", "", PYTHONIOENCODING=encoding)
    assert sorted(json.loads(said)) == sorted(["样本", "😀é"])


@pytest.mark.parametrize("how", ["2>/dev/full", "<&- >&- 2>&-", "2>&1 >/dev/null | true"])
def test_work_is_done_where_nothing_can_be_told(tmp_path: Path, manifest: Path, how: str) -> None:
    words = f"extract {KEY} --manifest '{manifest}' --workers 1"
    code, _ = shell(tmp_path, words, how)
    assert code == 1  # one sample failed
    assert len(FeatureStore(tmp_path / "features").ids(KEY)) == 2


@pytest.mark.parametrize(
    ("how", "why"), [(">&-", "it is closed"), (">/dev/full", "No space left on device"), ("2>&1 >/dev/full", "No")]
)
def test_an_answer_that_cannot_be_written_is_an_error_after_the_work(
    tmp_path: Path, manifest: Path, how: str, why: str
) -> None:
    words = f"extract {KEY} --manifest '{manifest}' --workers 1 -- 样本"
    code, said = shell(tmp_path, words, how)
    assert code == 1
    assert said.splitlines()[-1].startswith(SAID + why)
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    assert FeatureStore(tmp_path / "features").ids(KEY) == ["样本"]


@pytest.mark.parametrize("name", ["fstore", "affect-infer"])
@pytest.mark.parametrize("words", ["--help", "--version"])
def test_help_that_cannot_be_written_is_an_error_in_both_programs(name: str, words: str) -> None:
    for how, code, line in ((">/dev/full", 1, SAID), (">&-", 1, SAID), (">&- 2>&-", 1, ""), ("2>&- >/dev/null", 0, "")):
        run = ["bash", "-c", f"'{BIN / name}' {words} {how}"]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert done.stderr.startswith(line)
        assert len(done.stderr.splitlines()) == bool(line)


def test_nobody_is_asked_where_standard_input_is_closed(tmp_path: Path) -> None:
    root = make_store(tmp_path)
    code, said = shell(tmp_path, f"rm {STORED_KEY} --store '{root}'", "<&-")
    assert code == 2
    assert "nobody is there to ask: pass --yes" in said


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """Else the messages of a library would be written into it."""
    code = "from featurestore.cli.streams import prepare_streams; prepare_streams()\n"
    code += "import os; file = os.open('data', os.O_CREAT | os.O_WRONLY); os.write(2, b'oops'); assert file > 2"
    line = f"'{sys.executable}' -c \"{code}\" <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", line], cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "data").read_bytes() == b""


def test_a_working_folder_that_is_gone_is_named(tmp_path: Path, manifest: Path) -> None:
    words = f"extract {KEY} --manifest '{manifest}' --workers 1 --store"
    for store in (f"'{tmp_path / 'store'}'", "features"):
        (tmp_path / "gone").mkdir()
        command = " ".join(f"'{part}'" for part in program(tmp_path))
        line = f"cd gone && rmdir ../gone && {command} {words} {store}"
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "the working folder of this " in done.stderr.splitlines()[-1]
        assert "is not there any more: `cd` to one that is" in done.stderr.splitlines()[-1]
    root = make_store(tmp_path)  # what needs no working folder works
    (tmp_path / "gone").mkdir()
    line = f"cd gone && rmdir ../gone && '{BIN / 'fstore'}' ls --store '{root}'"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert STORED_KEY in done.stdout


# ---- signals ----


def begun(folder: Path, clip: Path, hang_up: str = "") -> tuple[subprocess.Popen[str], str]:
    """An extraction in the middle of 80 samples, and its key."""
    rows = "".join(f"{number},{clip}\n" for number in range(80))
    (folder / "many.csv").write_text("id,video\n" + rows)
    (folder / "log").touch()
    key = "my/frame/Sleepy/uniform/4"
    words = ["extract", key, "--manifest", "many.csv", "--store", "store", "--batch-size", "4", "--workers", "2"]
    command = [*program(folder), *words]
    child = subprocess.Popen(
        ["nohup", *command] if hang_up == "ignored" else command,
        cwd=folder,
        env={**os.environ, "ENCODE_LOG": str(folder / "log")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while len((folder / "log").read_text().splitlines()) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    return child, key


def of_group(group: int) -> list[int]:
    """The processes of a group that still run."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                state, _, member = Path(entry.path, "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(member) == group and state != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("to", ["one", "all"])
@pytest.mark.parametrize(("number", "word"), [(signal.SIGTERM, "Terminated"), (signal.SIGHUP, "Hung up")])
def test_a_signal_to_end_is_ctrl_c(tmp_path: Path, manifest: Path, number: signal.Signals, word: str, to: str) -> None:
    """`kill` reaches one process; `scancel`, and a terminal that is closed, every process of the job, and repeat it."""
    child, key = begun(tmp_path, manifest.parent / "clip.mp4")
    for _ in range(2):
        os.kill(child.pid, number) if to == "one" else os.killpg(child.pid, number)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 128 + number, said
    kept = FeatureStore(tmp_path / "store").ids(key)
    assert 4 <= len(kept) < 80
    told = f"{len(kept)} of 80 samples of {key} are stored, the same command goes on from there"
    assert said.endswith(f"{word}; what was committed stays: {told}.\n")
    for wrong in ("Traceback", "resource_tracker", "leaked", "Exception ignored"):
        assert wrong not in said
    deadline = time.monotonic() + 20
    while of_group(child.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert of_group(child.pid) == []
    assert "nothing wrong" in shell(tmp_path, f"verify {key} --store store", "")[1]


def test_under_nohup_a_terminal_that_is_closed_ends_nothing(tmp_path: Path, manifest: Path) -> None:
    child, key = begun(tmp_path, manifest.parent / "clip.mp4", "ignored")
    os.killpg(child.pid, signal.SIGHUP)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 0, said
    assert len(FeatureStore(tmp_path / "store").ids(key)) == 80


@pytest.mark.parametrize("line", ["--help", "ls --help", "ls", "ls mer2023/video/X/uniform/8", "lss"])
def test_python_m_featurestore_is_fstore(tmp_path: Path, line: str) -> None:
    found, expected = (
        subprocess.run([*words, *line.split()], cwd=tmp_path, capture_output=True, text=True, check=False)
        for words in ([sys.executable, "-m", "featurestore"], [str(BIN / "fstore")])
    )
    assert (found.returncode, found.stdout, found.stderr) == (expected.returncode, expected.stdout, expected.stderr)

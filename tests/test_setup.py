"""scripts/setup.sh finds a Python that runs, or prints the one line to run; and does its work once."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Answers the questions setup.sh asks of a Python; `-m venv` makes one whose pip only notes how it was called.
PYTHON = """#!/bin/sh
case "$*" in
*version_info*) echo {version} ;;
*ensurepip*) exit {ensurepip} ;;
*--version*) echo Python {version} ;;
*venv*) mkdir -p .venv/bin && cat > .venv/bin/python <<'END' && chmod +x .venv/bin/python ;;
#!/bin/sh
case "$*" in *"pip install"*)
    mkdir -p .venv/lib/python3.11/site-packages
    pwd > .venv/lib/python3.11/site-packages/_editable_impl_featurestore.pth
    echo "$PIP_CONSTRAINT:$*" >> pip.log; exit {pip} ;;
esac
END
esac
"""


class Checkout:
    """A copy of what setup.sh needs, and a PATH that holds only the tools put there."""

    def __init__(self, root: Path) -> None:
        self.root, self.bin = root / "a checkout é", root / "bin"
        (self.root / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copy(ROOT / "scripts" / "setup.sh", self.root / "scripts")
        for name in ("constraints.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root)
        for tool in ("sh", "dirname", "cat", "cksum", "df", "awk", "rm", "mkdir", "chmod"):
            self.tool(tool, f'#!/bin/sh\nexec {shutil.which(tool)} "$@"\n')

    def tool(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def python(self, name: str, version: str, ensurepip: int = 0, pip: int = 0) -> None:
        self.tool(name, PYTHON.format(version=version, ensurepip=ensurepip, pip=pip))

    def setup(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(self.root / "scripts" / "setup.sh")],
            env={"PATH": str(self.bin), "TMPDIR": str(self.root), "PIP_CONSTRAINT": "/etc/lab-wide-caps.txt"},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def pip_calls(self) -> list[str]:
        log = self.root / "pip.log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_newest_python_that_runs_is_taken_and_used_once(checkout: Checkout) -> None:
    checkout.tool("python3.13", "#!/bin/sh\necho 'pyenv: python3.13: command not found' >&2\nexit 127\n")
    checkout.python("python3.12", "3.12")
    checkout.python("python3.11", "3.11")
    done = checkout.setup()
    assert done.returncode == 0, done.stderr
    assert "Making .venv with Python 3.12." in done.stderr
    [call] = checkout.pip_calls
    # The empty first part: a constraint from outside is switched off.
    assert call.startswith(":-m pip install")
    assert "--constraint constraints.txt --editable .[all,dev]" in call

    again = checkout.setup()
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert len(checkout.pip_calls) == 1


@pytest.mark.parametrize("changed", ["constraints.txt", "pyproject.toml"])
def test_another_pin_is_installed_into_the_same_venv(checkout: Checkout, changed: str) -> None:
    checkout.python("python3.11", "3.11")
    checkout.setup()
    with (checkout.root / changed).open("a") as file:
        file.write("# another line\n")
    done = checkout.setup()
    assert done.returncode == 0
    assert "Making .venv" not in done.stderr
    assert len(checkout.pip_calls) == 2


def test_the_checkout_is_found_without_its_name(checkout: Checkout) -> None:
    """Python 3.11 does not start in the C locale where a list of paths has a letter that is not ASCII."""
    checkout.python("python3.11", "3.11")
    checkout.setup()
    (path,) = checkout.root.glob(".venv/lib/python3.11/site-packages/*.pth")
    assert (path.parent / path.read_text().strip()).resolve() == checkout.root.resolve()
    assert path.read_text().isascii()
    assert checkout.root.name not in path.read_text()


def test_a_venv_whose_python_is_gone_is_made_again(checkout: Checkout) -> None:
    checkout.python("python3.11", "3.11")
    checkout.setup()
    (checkout.root / ".venv" / "bin" / "python").unlink()
    assert "Making .venv with Python 3.11." in checkout.setup().stderr


def test_a_failed_install_is_not_taken_for_done(checkout: Checkout) -> None:
    checkout.python("python3.11", "3.11", pip=1)
    for calls in (1, 2):
        done = checkout.setup()
        assert done.returncode == 1
        assert "pip failed, see above" in done.stderr
        assert len(checkout.pip_calls) == calls


@pytest.mark.parametrize(
    ("manager", "line"),
    [
        ("apt-get", "sudo apt-get install -y python3.12 python3.12-venv"),
        ("dnf", "sudo dnf install -y python3.12"),
        ("brew", "brew install python@3.12"),
        ("none", "install Python 3.12 with its venv module, then make again"),
    ],
)
def test_a_python_without_venv_is_told_how_to_get_it(checkout: Checkout, manager: str, line: str) -> None:
    if manager != "none":
        checkout.tool(manager, "#!/bin/sh\nexit 1\n")
    checkout.python("python3.12", "3.12", ensurepip=1)
    done = checkout.setup()
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["Python 3.12 is here, but without venv support. Run:", f"    {line}"]


def test_no_python_that_is_new_enough(checkout: Checkout) -> None:
    checkout.python("python3", "3.9")
    checkout.tool("apt-get", "#!/bin/sh\nexit 1\n")
    done = checkout.setup()
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "No Python 3.11, 3.12 or 3.13 that runs was found. Run:",
        "    sudo apt-get install -y python3.11 python3.11-venv",
    ]


def test_too_small_a_disk_is_told_before_anything_is_made(checkout: Checkout) -> None:
    checkout.python("python3.11", "3.11")
    checkout.tool("df", "#!/bin/sh\necho head\necho '/dev/x 100 50 3145728 50% /'\n")
    done = checkout.setup()
    assert done.returncode == 1
    assert f"3 GB are free in {checkout.root}; the set-up needs 10." in done.stderr
    assert not (checkout.root / ".venv").exists()

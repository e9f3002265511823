"""What may be loaded when: importing costs nothing, --help loads click, a hit loads numpy."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featurestore import FeatureKey, FeatureStore

KEY = "mer2023/frame/CLIP_VIT_LARGE/uniform/8"
REPORT = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"


def python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(code: str, *arguments: str) -> set[str]:
    """Packages outside the standard library that `code` loads, beyond those of bare Python."""
    names = [set(json.loads(python(text + REPORT, *arguments).splitlines()[-1])) for text in (code, "")]
    roots = {name.partition(".")[0] for name in names[0] - names[1]}
    return {name for name in roots - set(sys.stdlib_module_names) if not name.startswith("_")}


def test_importing_the_package_loads_nothing_else() -> None:
    assert loaded_by("import featurestore") == {"featurestore"}
    assert loaded_by("import affect_infer") == {"affect_infer"}


def test_importing_the_package_loads_two_of_its_modules() -> None:
    """Not the errors, say, which need dataclasses and with them half of the standard library."""
    own = [name for name in json.loads(python("import featurestore" + REPORT)) if name.startswith("featurestore")]
    assert own == ["featurestore", "featurestore.version"]


def test_a_key_and_an_error_load_nothing_else() -> None:
    assert loaded_by("from featurestore import FeatureKey, MissingFeatureError, Recipe") == {"featurestore"}


def program(module: str, *arguments: str) -> str:
    """Code that runs a program and stays to report."""
    return f"""
import sys
sys.argv = {["program", *arguments]!r}
from {module} import main
try:
    main()
except SystemExit as done:
    assert not done.code
"""


@pytest.mark.parametrize("module", ["featurestore.cli", "affect_infer.cli"])
def test_help_loads_only_click(module: str) -> None:
    packages = loaded_by(program(module, "--help"))
    assert "click" in packages
    assert packages <= {"click", "featurestore", "affect_infer"}


def test_ls_loads_no_more_than_a_hit(stored: Path) -> None:
    packages = loaded_by(program("featurestore.cli", "ls", "--store", str(stored)))
    assert packages <= {"click", "featurestore", "numpy", "google_crc32c"}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    root = tmp_path / "features"
    values = np.arange(2 * 8 * 4, dtype=np.float32).reshape(2, 8, 4)
    FeatureStore(root).put_many(FeatureKey.parse(KEY), ["a", "b"], values, recipe={"made": "here"})
    return root


HIT = f"""
import sys
from featurestore import FeatureKey, FeatureStore
store = FeatureStore(sys.argv[1])
assert store.get(FeatureKey.parse({KEY!r}), "a").shape == (8, 4)
assert store.get_many(FeatureKey.parse({KEY!r}), ["b", "a"]).shape == (2, 8, 4)
"""


def test_a_first_hit_loads_neither_zarr_nor_torch(stored: Path) -> None:
    packages = loaded_by(HIT, str(stored))
    assert packages <= {"featurestore", "numpy", "google_crc32c", "filelock"}


def test_a_hit_with_a_compute_attached_does_not_load_torch(stored: Path) -> None:
    code = f"""
import sys
from featurestore import Extractor, FeatureKey, FeatureStore, Sample
key = FeatureKey.parse({KEY!r})
compute = Extractor({{"mer2023": {{"a": Sample("a")}}}}, weights={{"CLIP_VIT_LARGE": "random:0"}})
store = FeatureStore(sys.argv[1], compute=compute)
assert store.get(key, "a", fingerprint=next(iter(store.recipes(key)))).shape == (8, 4)
"""
    assert not loaded_by(code, str(stored)) & {"torch", "open_clip", "transformers", "zarr", "av", "cv2"}


@pytest.mark.serial
def test_importing_the_package_costs_next_to_nothing(cpu_seconds: Callable[..., float]) -> None:
    """Next to a library of which it has no part, over a Python that does nothing: a ratio holds on any processor."""
    bare = cpu_seconds(sys.executable, "-c", "")
    library = cpu_seconds(sys.executable, "-c", "import zarr") - bare
    assert cpu_seconds(sys.executable, "-c", "import featurestore") - bare < 0.12 * library

"""Names of encoders: registering, entry points of other packages, unknown names and missing packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_factories import REVISION, in_hub_cache

from featurestore import Extractor, FeatureKey, Sample, encoders
from featurestore.encoders import (
    ENCODERS,
    encoder_names,
    load_encoder,
    register_encoder,
    weights_identity,
    weights_origin,
)
from featurestore.errors import (
    ConfigError,
    InvalidNameError,
    MissingPackageError,
    UnknownEncoderError,
    WeightsNotFoundError,
)


class MeanColour:
    """An encoder as another package would write it: no torch, two arguments."""

    modality = "frame"
    version = 1
    dim = 3
    size = (8, 8)

    def __init__(self, weights: str | None, device: str | None) -> None:
        self.path = weights
        self.device = device

    def config(self) -> dict[str, Any]:
        return {"mean": "colour"}

    def encode(self, batch: Any) -> Any:
        return batch.mean(axis=(1, 2), dtype=np.float32)


class InAnyDtype(MeanColour):
    def __init__(self, weights: str | None, device: str | None, compute_dtype: str = "float32") -> None:
        super().__init__(weights, device)
        self.compute_dtype = compute_dtype


NotAClass = "a text"


class TakesNothing:
    pass


@pytest.fixture(autouse=True)
def _registry_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder_names()
    registry = dict(encoders._registry)
    monkeypatch.setattr(encoders, "_registry", registry)


def python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_encoder_of_ones_own_is_loaded_by_name() -> None:
    register_encoder("MEAN_COLOUR", f"{__name__}:MeanColour")
    assert "MEAN_COLOUR" in encoder_names()
    encoder = load_encoder("MEAN_COLOUR", device="cuda:1")
    assert (encoder.dim, encoder.size, encoder.device) == (3, (8, 8), "cuda:1")  # type: ignore[attr-defined]
    assert encoder.encode(np.full((2, 8, 8, 3), 7, np.uint8)).tolist() == [[7, 7, 7], [7, 7, 7]]


def test_registering_imports_nothing() -> None:
    python("""
import sys
from featurestore.encoders import register_encoder, encoder_names
register_encoder("X", "no_such_package.at_all:Class")
assert "X" in encoder_names()
assert not {"numpy", "torch", "no_such_package"} & set(sys.modules)
""")


def test_the_same_registration_twice_is_one() -> None:
    register_encoder("MINE", "mine:Mine")
    register_encoder("MINE", "mine:Mine")
    assert encoder_names().count("MINE") == 1


@pytest.mark.parametrize("name", ["MINE", "CLIP_VIT_LARGE"])
def test_a_taken_name_cannot_become_another_class(name: str) -> None:
    register_encoder("MINE", "mine:Mine")
    with pytest.raises(InvalidNameError, match=rf"'{name}' is \S+ already and cannot become yours:Yours"):
        register_encoder(name, "yours:Yours")


@pytest.mark.parametrize("target", ["", "module", ":Class", "module:"])
def test_a_target_is_module_and_class(target: str) -> None:
    with pytest.raises(InvalidNameError, match="must be 'module:Class'"):
        register_encoder("MINE", target)


class Outer:
    class Inner(MeanColour):
        pass


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        (MeanColour, f"must be 'module:Class', as text: '{__name__}:MeanColour'"),
        (Outer.Inner, "move Outer.Inner to the top level of a module, and name it as text, 'my_module:Inner'"),
        (MeanColour(None, None), "must be 'module:Class'"),
        (None, "must be 'module:Class'"),
        (3, "must be 'module:Class'"),
    ],
)
def test_a_class_in_the_place_of_its_name_is_told_how_it_is_written(target: Any, hint: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        register_encoder("MINE", target)
    assert hint in str(caught.value)
    assert "MINE" not in encoder_names()


@pytest.mark.parametrize("name", ["", "A/B", "mean colour", "ä", "..", 3, None])
def test_a_name_that_no_key_can_have_is_refused(name: Any) -> None:
    with pytest.raises(InvalidNameError, match=r"encoder .* must be 1 to 80 characters"):
        register_encoder(name, "mine:Mine")


BREACHES: dict[str, tuple[dict[str, Any], str]] = {
    "no modality": ({"modality": None}, "`modality` is None, which must be frame, audio or au"),
    "unknown modality": ({"modality": "face"}, "`modality` is 'face', which must be frame, audio or au"),
    "no version": ({"version": ...}, "it has no `version`, which must be a whole number"),
    "a version of text": ({"version": "1.0"}, "`version` is '1.0', which must be a whole number"),
    "a version that is a truth": ({"version": True}, "`version` is True, which must be a whole number"),
    "no dim": ({"dim": 0}, "`dim` is 0, which must be a whole number above 0"),
    "a dim of numpy": ({"dim": np.float64(3)}, "`dim` is np.float64(3.0), which must be a whole number above 0"),
    "no size": ({"size": ...}, "it has no `size`, which must be (height, width) in pixels"),
    "one number for a size": ({"size": 8}, "`size` is 8, which must be (height, width) in pixels"),
    "a size of nothing": ({"size": (8, 0)}, "`size` is (8, 0), which must be (height, width) in pixels"),
    "a config that is no JSON": ({"config": lambda self: {"a": {1}}}, "config() is not JSON: Object of type set"),
    "a config with NaN": ({"config": lambda self: {"a": np.nan}}, "config() is not JSON: Out of range float"),
    "a config that is a list": ({"config": lambda self: [1]}, "config() is [1], not a dict"),
    "no config": ({"config": {"a": 1}}, "`config` is {'a': 1}, which must be a method"),
    "no encode": ({"encode": ...}, "it has no `encode`, which must be a method"),
}


def breaching(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> Extractor:
    """An extractor with an encoder that is `MeanColour` but for some parts; `...` is none."""
    parts = {name: value for name, value in vars(MeanColour).items() if not name.startswith("__")} | changes
    own = type("Own", (), {name: value for name, value in parts.items() if value is not ...})
    own.__init__ = MeanColour.__init__  # type: ignore[misc]
    monkeypatch.setattr(sys.modules[__name__], "Own", own, raising=False)
    register_encoder("OWN", f"{__name__}:Own")
    return Extractor({"d": {"a": Sample("a", video=Path("nowhere.mp4"))}})


@pytest.mark.parametrize("kind", BREACHES)
def test_an_encoder_that_breaks_the_protocol_is_told_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changes, message = BREACHES[kind]
    with pytest.raises(ConfigError) as caught:
        breaching(monkeypatch, changes).recipe(FeatureKey.parse("d/frame/OWN/uniform/2"))
    assert str(caught.value).startswith(f"encoder 'OWN' ({__name__}:Own): {message}")
    assert str(caught.value).endswith("see docs/add_an_encoder.md")


WRONG_FORMS: dict[str, tuple[Any, str]] = {
    "another dim": (lambda self, batch: np.zeros((len(batch), 2), np.float32), "made (2, 2) float32, not (2, 3)"),
    "a mean over rows": (lambda self, batch: np.zeros((1, 3), np.float32), "made (1, 3) float32, not (2, 3)"),
    "float64": (lambda self, batch: np.zeros((len(batch), 3)), "made (2, 3) float64, not (2, 3) float16 or float32"),
    "a list": (lambda self, batch: [[0.0] * 3] * len(batch), "made list , not (2, 3)"),
    "nothing": (lambda self, batch: None, "made NoneType , not (2, 3)"),
}


@pytest.mark.parametrize("kind", WRONG_FORMS)
def test_a_wrong_dim_is_told_before_anything_is_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, message = WRONG_FORMS[kind]
    with breaching(monkeypatch, {"encode": encode}) as compute:
        with pytest.raises(ConfigError) as caught:
            list(compute(FeatureKey.parse("d/frame/OWN/uniform/2"), ["a"]))
        assert compute._pool is None
    assert str(caught.value).startswith(f"encoder 'OWN' ({__name__}:Own): encode() of 2 inputs {message}")


def test_what_is_made_up_to_try_an_encoder_may_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise has no face in it; what of a sample is refused is that sample's failure."""

    def picky(self: Any, batch: Any) -> Any:
        raise RuntimeError("no face in it")

    with breaching(monkeypatch, {"encode": picky}) as compute:
        ((id, failure),) = compute(FeatureKey.parse("d/frame/OWN/uniform/2"), ["a"])
    assert (id, failure.reason) == ("a", "media")


@pytest.mark.parametrize("target", ["NotAClass", "TakesNothing"])
def test_what_cannot_be_called_as_a_class_is_refused(target: str) -> None:
    register_encoder("MINE", f"{__name__}:{target}")
    with pytest.raises(ConfigError, match=r"'MINE' is .* must be a class that is called as Class\(weights, device\)"):
        load_encoder("MINE")


def test_the_public_view_cannot_be_written() -> None:
    assert ENCODERS["CLIP_VIT_LARGE"] == "featurestore.encoders.clip:ClipVitLarge"
    with pytest.raises(TypeError):
        ENCODERS["MINE"] = "mine:Mine"  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("clip_vit_large", "did you mean 'CLIP_VIT_LARGE'"),
        ("HUBERT", "did you mean 'HUBERT_LARGE'"),
        ("ViT-B32.none", "did you mean 'ViT-B-32.none'"),
        ("vit-s-32.none", "did you mean 'ViT-S-32.none'"),
        ("xyz", "no encoder is called 'xyz'; Known: "),
        ("xyz", "CLIP_TEXT, CLIP_VIT_LARGE, "),  # among those that other files may have registered
        ("", "no encoder is called ''; Known"),
        ("ViT-B-32.", "ARCH.TAG"),
        ("CLIP_VIT_LARGE.HUBERT_LARGE", "Known: "),
    ],
)
def test_an_unknown_name_lists_what_is_known(name: str, hint: str) -> None:
    with pytest.raises(UnknownEncoderError) as caught:
        load_encoder(name)
    assert hint in str(caught.value)


def test_an_unknown_tag_lists_those_of_the_architecture() -> None:
    with pytest.raises(UnknownEncoderError, match=r"no weights 'laion2b' for ViT-B-32; did you mean .*laion2b_e16"):
        load_encoder("ViT-B-32.laion2b").config()


def test_an_encoder_whose_package_is_not_installed() -> None:
    register_encoder("MINE", "no_such_package.at_all:Class")
    with pytest.raises(MissingPackageError, match=r"'MINE' is no_such_package.at_all:Class, which cannot be imported"):
        load_encoder("MINE")


def test_an_encoder_whose_class_does_not_exist() -> None:
    register_encoder("MINE", f"{__name__}:Nowhere")
    with pytest.raises(UnknownEncoderError, match="has no Nowhere"):
        load_encoder("MINE")


@pytest.mark.parametrize(
    ("package", "name"), [("torch", "CLIP_VIT_LARGE"), ("open_clip", "ViT-S-32.none"), ("transformers", "DINO2_LARGE")]
)
def test_a_missing_package_names_the_extra(package: str, name: str) -> None:
    """A module that is None in sys.modules cannot be imported: the only part of this that is arranged."""
    python(f"""
import sys
sys.modules[{package!r}] = None
import numpy as np
from featurestore.encoders import load_encoder
from featurestore.errors import MissingPackageError
try:
    load_encoder({name!r}, "random:0").encode(np.zeros((1, 224, 224, 3), np.uint8))
except MissingPackageError as error:
    assert "pip install 'featurestore[encoders]'" in str(error), error
else:
    raise AssertionError("no error")
""")


# -- entry points ----------------------------------------------------------------------------------------------------


def installed(folder: Path, line: str) -> str:
    """A package with an encoder, laid down as pip does; returns the PYTHONPATH that finds it."""
    info = folder / "colours-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: colours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[featurestore.encoders]\n{line}\n")
    (folder / "colours.py").write_text(
        "class Grey:\n    modality, version, dim, size = 'frame', 1, 1, (4, 4)\n"
        "    def __init__(self, weights, device): pass\n"
    )
    return os.pathsep.join([str(folder), *sys.path])


def test_an_installed_package_brings_its_encoder(tmp_path: Path) -> None:
    python(
        """
import sys
from featurestore.encoders import ENCODERS, encoder_names, load_encoder
assert "GREY" in encoder_names() and ENCODERS["GREY"] == "colours:Grey"
assert "colours" not in sys.modules
assert load_encoder("GREY").dim == 1
""",
        PYTHONPATH=installed(tmp_path / "site", "GREY = colours:Grey"),
    )


def test_an_installed_package_cannot_take_a_name(tmp_path: Path) -> None:
    python(
        """
from featurestore.encoders import load_encoder
from featurestore.errors import InvalidNameError
try:
    load_encoder("CLIP_TEXT")
except InvalidNameError as error:
    assert "cannot become colours:Grey" in str(error), error
else:
    raise AssertionError("no error")
""",
        PYTHONPATH=installed(tmp_path / "site", "CLIP_TEXT = colours:Grey"),
    )


# -- weights of encoders from other packages -------------------------------------------------------------------------


@pytest.fixture
def mine() -> str:
    register_encoder("MINE", f"{__name__}:MeanColour")
    return "MINE"


def test_others_get_a_dtype_only_if_they_take_one(mine: str) -> None:
    with pytest.raises(ConfigError, match="'MINE' has no parameter compute_dtype, so it cannot compute in bfloat16"):
        load_encoder(mine, compute_dtype="bfloat16")
    register_encoder("ANY", f"{__name__}:InAnyDtype")
    assert load_encoder("ANY", compute_dtype="bfloat16").compute_dtype == "bfloat16"  # type: ignore[attr-defined]


def test_others_get_the_path_of_a_hub_id(mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "weights.bin").write_bytes(b"1")
    snapshot = in_hub_cache(tmp_path / "made", tmp_path / "hub", "me/mine")
    for spec in ("me/mine", "me/mine@main", f"me/mine@{REVISION}"):
        assert load_encoder(mine, spec).path == str(snapshot)  # type: ignore[attr-defined]
    with pytest.raises(WeightsNotFoundError, match="hf download me/other"):
        load_encoder(mine, "me/other")
    assert load_encoder(mine, "random:3").path == "random:3"  # type: ignore[attr-defined]
    assert load_encoder(mine).path is None  # type: ignore[attr-defined]


def test_others_are_known_by_the_bytes_of_their_files(mine: str, tmp_path: Path) -> None:
    def identity(folder: Path) -> dict[str, Any]:
        return weights_identity(load_encoder(mine, folder), folder)

    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "a.bin").write_bytes(b"a")
        (folder / "b.bin").write_bytes(b"b")
    (two / ".git").mkdir()
    (two / ".git" / "HEAD").write_text("not part of the weights")
    assert identity(one) == identity(two)
    assert weights_origin(load_encoder(mine, one), one) == {"path": str(one)}
    (two / "b.bin").write_bytes(b"c")
    assert identity(one) != identity(two)
    (two / "b.bin").rename(two / "c.bin")
    first = identity(two)
    (two / "c.bin").rename(two / "d.bin")
    assert identity(two) != first
    (two / "d.bin").unlink()
    assert identity(two) not in (identity(one), first)
    assert weights_identity(load_encoder(mine, one / "b.bin"), one / "b.bin")["digest"]
    assert weights_identity(load_encoder(mine)) == {"spec": None}
    assert weights_identity(load_encoder(mine, "random:1"), "random:1") == {"spec": "random:1"}

"""Speed that must not be lost unnoticed: ratios between things timed in turns, with wide margins, never seconds.

`benchmarks/` has the real figures; here a change that makes something several times slower fails.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featurestore import Extractor, FeatureKey, FeatureStore, Sample, encoders, register_encoder
from featurestore.compute.extraction import extract

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.serial
KEY = FeatureKey("guard", "frame", "CLIP_VIT_LARGE", "uniform", 8)
N = 300
FASTER_THAN_FILES = 5.0  # hits against np.load; the benchmarks have two to three times that
BESIDE_DECODING = 1.5  # an extract with an encoder that costs nothing against decoding alone


@pytest.fixture
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    encoders.encoder_names()  # reads entry points, which stay
    monkeypatch.setattr(encoders, "_registry", dict(encoders._registry))


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Callable[[int], Any], Callable[[int], Any]]:
    """(read from a store, read from a file per sample) of the same rows."""
    values = np.random.default_rng(0).standard_normal((N, 8, 768), dtype=np.float32)
    ids = [f"sample_{i:08d}" for i in range(N)]
    store = FeatureStore(tmp_path / "features")
    store.put_many(KEY, ids, values, recipe={"guard": 1})
    files = [str(tmp_path / f"{id}.npy") for id in ids]
    for file, row in zip(files, values, strict=True):
        np.save(file, row)
    return lambda i: store.get(KEY, ids[i]), lambda i: np.load(files[i])


def times_faster(one: Callable[[int], Any], other: Callable[[int], Any]) -> float:
    """How many times faster `one` reads all samples than `other`: least of seven turns each."""
    from harness import interleaved

    def all_of(read: Callable[[int], Any]) -> None:
        for i in range(N):
            read(i)

    taken = interleaved({"one": lambda: all_of(one), "other": lambda: all_of(other)}, 7)
    return min(taken["other"]) / min(taken["one"])


@pytest.mark.usefixtures("_benchmarks")
def test_a_hit_is_several_times_faster_than_a_file_per_sample(stored: Any) -> None:
    hit, load = stored
    assert times_faster(hit, load) >= FASTER_THAN_FILES


@pytest.mark.usefixtures("_benchmarks")
def test_a_hit_that_opens_a_file_fails_the_guard(stored: Any) -> None:
    hit, load = stored
    assert times_faster(lambda i: (load(i), hit(i))[1], load) < FASTER_THAN_FILES


@pytest.fixture
def fusion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, list[str], str]]:
    """(a feature reader in the place of MERTools', names, their folder) of vectors that are in files too."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "reader_package"))
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "stand_ins"))
    from featurestore_reader.mertools import FeatureReader

    names, folder = [f"sample_{number:08d}" for number in range(2000)], tmp_path / "wavlm-base-UTT"
    values = np.random.default_rng(0).standard_normal((len(names), 1, 768), dtype=np.float32)
    folder.mkdir()
    for name, row in zip(names, values, strict=True):
        np.save(folder / f"{name}.npy", row[0])
    FeatureStore(tmp_path / "features").put_many("mer2026/audio/wavlm-base/utterance/1", names, values, recipe={"x": 1})
    yield lambda: FeatureReader(str(tmp_path / "features"), "mer2026"), names, str(folder)
    for name in [name for name in sys.modules if name.split(".")[0] in ("featurestore_reader", "toolkit")]:
        del sys.modules[name]


def times_faster_than_a_pool(read: Callable[[], Any], names: list[str], folder: str) -> float:
    from harness import interleaved
    from toolkit.utils.read_data import func_read_multiprocess

    taken = interleaved({"ours": read, "theirs": lambda: func_read_multiprocess(folder, names)}, 3)
    return min(taken["theirs"]) / min(taken["ours"])


@pytest.mark.usefixtures("_benchmarks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # theirs is a pool
def test_a_fusion_runs_features_load_several_times_faster_than_by_a_pool(fusion: Any) -> None:
    reader, names, folder = fusion
    assert times_faster_than_a_pool(lambda: reader()(folder, names), names, folder) >= FASTER_THAN_FILES


@pytest.mark.usefixtures("_benchmarks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_reader_that_opens_a_file_a_sample_fails_the_guard(fusion: Any) -> None:
    reader, names, folder = fusion

    def slow() -> None:
        reader()(folder, names)
        for name in names:
            np.load(f"{folder}/{name}.npy")

    assert times_faster_than_a_pool(slow, names, folder) < FASTER_THAN_FILES


def slowdown(folder: Path, encoder: str) -> float:
    """How many times longer an extract takes than decoding alone on the same number of workers."""
    from clips import decode, write_clips
    from harness import interleaved

    from featurestore.media import DecodePool

    paths = write_clips(folder / "clips", 12, 1.0, different=1)
    source = {path.stem: Sample(path.stem, video=path) for path in paths}
    register_encoder(encoder, f"encoders:{encoder}")
    key = FeatureKey("guard", "frame", encoder, "uniform", 8)
    number = iter(range(100))
    with DecodePool(2) as pool, Extractor({"guard": source}, workers=2) as extractor:

        def decode_only() -> None:
            for job in [pool.submit(decode, path) for path in paths]:
                job.result()

        def whole() -> None:
            store = FeatureStore(folder / f"store{next(number)}", compute=extractor)
            assert extract(store, key, list(source)).computed == len(paths)

        decode_only()
        whole()  # the workers are warm now
        taken = interleaved({"decode": decode_only, "extract": whole}, 3)
    return min(taken["extract"]) / min(taken["decode"])


@pytest.mark.usefixtures("_benchmarks")
def test_an_extract_takes_little_longer_than_decoding(tmp_path: Path) -> None:
    pytest.importorskip("av")
    assert slowdown(tmp_path, "Free") <= BESIDE_DECODING


@pytest.mark.usefixtures("_benchmarks")
def test_an_encoder_that_holds_up_the_decoders_fails_the_guard(tmp_path: Path) -> None:
    pytest.importorskip("av")
    assert slowdown(tmp_path, "Slow") > BESIDE_DECODING


def test_a_hit_does_not_import_torch(tmp_path: Path) -> None:
    FeatureStore(tmp_path).put_many(KEY, ["one"], np.ones((1, 8, 768), np.float32), recipe={"guard": 1})
    program = (
        "import sys; from featurestore import FeatureStore; "
        f"FeatureStore({str(tmp_path)!r}).get({str(KEY)!r}, 'one'); "
        "sys.exit(' '.join(sorted({'torch', 'zarr', 'av', 'cv2', 'open_clip'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

"""A run over a store that cannot be written: mounted read-only, where this process alone sees it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from conftest import EVERYWHERE, guide_settings

from affect_infer.model.affect_model import Answer, Request
from affect_infer.model.generate import Sampling
from affect_infer.results import read_results
from affect_infer.run.hybrid import run
from featurestore import FeatureStore

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "torture"))
from mounts import make_read_only, mount_memory, own_mounts

KEY = "mer2023/frame/QUICK_PIXELS/emotion_peak/8"


class Calm:
    batch_size_limit: int | None = None

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[Answer]:
        return [Answer(f"{float(request.features['frame'].sum()):.6f}", 1) for request in requests]


def main(demo: str, full: str, room: str, llm: str, checkpoint: str) -> None:
    own_mounts()
    mount_memory(Path(room), "size=64m")
    store = Path(room) / "features"
    shutil.copytree(full, store)
    FeatureStore(store).delete(KEY, ["sample_00000002", "sample_00000007"])
    make_read_only(Path(room))
    settings = guide_settings(
        Path(demo), (Path(llm), Path(checkpoint)), policies=EVERYWHERE, store=store, values={"output": Path(demo) / "r"}
    )
    report = run(settings, load=lambda settings, plans: (Calm(), []), progress=False)
    lines = read_results(report.files[0])[1]
    found = {id: (line["inputs"]["frame"]["answer"], line["answer"]) for id, line in lines.items()}
    sys.stdout.write(json.dumps({"report": report.as_dict(), "text": report.text(), "frames": found}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

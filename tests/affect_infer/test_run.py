"""The loop over the demo dataset: real media, real store, a tiny model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affect_infer.model.affect_model import Answer, Request
from affect_infer.model.generate import Sampling
from affect_infer.results import read_results
from affect_infer.run.hybrid import run
from affect_infer.run.report import RunReport
from affect_infer.settings.settings import Settings
from featurestore import FeatureStore
from featurestore.cli.hints import message_of
from featurestore.demo import CLIPS
from featurestore.errors import ConfigError, InputError, MissingFeatureError, WeightsNotFoundError

IDS = [clip.id for clip in CLIPS]
FRAME = "mer2023/frame/QUICK_PIXELS/emotion_peak/8"
Guide = Callable[..., Settings]


def quiet(settings: Settings, **options: Any) -> RunReport:
    return run(settings, progress=False, **options)


def lines_of(report: RunReport) -> dict[str, dict[str, Any]]:
    return read_results(report.files[0])[1]


def answers_of(report: RunReport) -> dict[str, str]:
    return {id: line["answer"] for id, line in lines_of(report).items() if "answer" in line}


def test_the_guides_run(guide: Guide, demo: Path) -> None:
    told: list[str] = []
    report = quiet(guide(), tell=told.append)
    assert report.answered == 12
    assert list(lines_of(report)) == IDS
    assert {name: dict(counts) for name, counts in report.counts.items()} == {
        "frame": {"computed": 12},
        "face": {"live": 12},
        "audio": {"live": 12},
        "au": {"live": 12},
    }
    assert FeatureStore(demo / "features").ids(FRAME) == IDS
    banner = next(line for line in told if line.startswith("Hybrid inference"))
    assert "frame sampling   emotion_peak, 8 frames" in banner
    assert "frame: pre-extracted, 0 of 12 stored, 12 to compute; a miss is computed with the same recipe" in banner
    assert "face:  live (QUICK_PIXELS); computed for this run" in banner


def test_a_line_says_where_each_input_came_from(guide: Guide, demo: Path) -> None:
    report = quiet(guide(generation={"greedy": False, "seed": 3}))
    line = lines_of(report)["sample_00000001"]
    assert line["inputs"]["frame"]["answer"] == "computed"
    assert line["inputs"]["frame"]["note"] == {"peak": 40, "peak_source": "au_info"}
    assert line["inputs"]["frame"]["frame_indices"] == [0, 23, 38, 39, 40, 41, 42, 51]
    assert line["inputs"]["frame"]["recipe"] in FeatureStore(demo / "features").recipes(FRAME)
    assert line["inputs"]["au"]["note"]["field"] == "fine_grained_descriptions.summary_description"
    assert line["seed"] == 3
    assert set(line["ms"]) == {"frame", "face", "audio", "au", "generate"}


def test_running_again_goes_on_and_changes_nothing(stored: Guide) -> None:
    first = quiet(stored())
    before = Path(first.files[0]).read_bytes()
    loaded: list[int] = []
    again = quiet(stored(), load=lambda settings, plans: loaded.append(1))
    assert (again.answered, again.resumed) == (0, 12)
    assert Path(again.files[0]).read_bytes() == before
    assert not loaded, "nothing is left to answer, so no model is needed"


def test_what_is_answered_is_not_said_to_be_computed(guide: Guide) -> None:
    quiet(guide())
    told: list[str] = []
    quiet(guide(policies={"face": "store"}), tell=told.append)
    (banner,) = [line for line in told if line.startswith("Hybrid inference")]
    assert "face:  pre-extracted, 0 of 12 stored; 0 to compute: all answered" in banner
    assert "and kept" not in banner


def test_half_a_file_is_completed_and_a_torn_line_is_answered_anew(stored: Guide) -> None:
    whole = quiet(stored())
    path = Path(whole.files[0])
    complete = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(complete[:6]) + complete[6][:40])
    again = quiet(stored())
    assert (again.answered, again.resumed) == (7, 5)
    assert list(lines_of(again)) == IDS
    assert [json.loads(line)["answer"] for line in path.read_bytes().splitlines()[1:]] == [
        json.loads(line)["answer"] for line in complete[1:]
    ]


def test_other_settings_do_not_join_the_same_file(stored: Guide) -> None:
    quiet(stored())
    with pytest.raises(ConfigError, match=r"answers of other settings \(question: .* another --output"):
        quiet(stored(values={"question": "Why?"}))


def test_stored_and_live_inputs_give_the_same_answers(guide: Guide, demo: Path, stored: Guide, tmp_path: Path) -> None:
    live = quiet(guide(policies={"frame": "live"}))
    everywhere = quiet(stored())
    only = quiet(
        stored(policies=dict.fromkeys(("frame", "face", "audio", "au"), "store_only"), values={"output": tmp_path})
    )
    assert answers_of(live) == answers_of(everywhere) == answers_of(only)
    assert {counts["live"] for counts in live.counts.values()} == {12}
    assert {counts["disk"] for counts in everywhere.counts.values()} == {12}
    assert (everywhere.hit_rate, live.hit_rate) == (1.0, None)


def test_batches_and_one_by_one_give_the_same_answers(stored: Guide, tmp_path: Path) -> None:
    five = quiet(stored())
    one = quiet(stored(values={"batch_size": 1, "output": tmp_path / "one"}))
    assert answers_of(five) == answers_of(one)


def test_sampled_answers_do_not_depend_on_an_interruption(stored: Guide, tmp_path: Path) -> None:
    drawn = {"greedy": False, "seed": 1}
    whole = answers_of(quiet(stored(generation=drawn)))
    part = quiet(stored(generation=drawn, values={"output": tmp_path / "part"}))
    path = Path(part.files[0])
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    assert answers_of(quiet(stored(generation=drawn, values={"output": tmp_path / "part"}))) == whole


def test_the_npz_is_what_existing_evaluation_reads(stored: Guide) -> None:
    report = quiet(stored())
    path = Path(report.files[0]).with_suffix(".npz")
    assert path.parts[-3] == "results-mer2023"
    loaded = np.load(path, allow_pickle=True)["name2reason"].tolist()
    assert loaded == answers_of(report)
    assert list(loaded) == IDS


def damaged(demo: Path) -> None:
    data = demo / "mer2023-dataset-process"
    wav = data / "audio" / "sample_00000002.wav"
    wav.write_bytes(wav.read_bytes()[:-1000])
    np.save(data / "openface_face" / "sample_00000003.npy", np.zeros((0, 112, 112, 3), np.uint8))
    (demo / "MER-Factory/output/MER2023/sample_00000004/sample_00000004_au_analysis.json").write_text("{}")
    (data / "audio" / "sample_00000005.wav").unlink()


def test_all_problems_are_told_at_once_before_a_model_is_loaded(guide: Guide, demo: Path) -> None:
    damaged(demo)
    with pytest.raises(InputError) as caught:
        quiet(guide(), load=lambda settings, plans: pytest.fail("the model was loaded"))
    text = str(caught.value)
    assert "4 of 12 samples of mer2023 lack an input" in text
    assert "sample_00000002.wav is cut off" in text
    assert "sample_00000003.npy holds no faces" in text
    assert "sample_00000004_au_analysis.json has no descriptions" in text
    assert "sample_00000005.wav does not exist; extract the audio" in text
    assert "--on-missing skip" in text


def test_skipping_is_counted_and_recorded(guide: Guide, demo: Path) -> None:
    damaged(demo)
    report = quiet(guide(values={"on_missing": "skip"}))
    assert report.answered == 8
    assert sorted(report.skipped) == [f"mer2023/sample_0000000{n}" for n in (2, 3, 4, 5)]
    assert "is cut off" in lines_of(report)["sample_00000002"]["skipped"]["audio"]
    again = quiet(guide(values={"on_missing": "skip"}))
    assert (again.answered, again.resumed) == (0, 8)
    assert len(Path(again.files[0]).read_bytes().splitlines()) == 1 + 12


def test_a_skipped_sample_is_answered_once_it_is_mended(guide: Guide, demo: Path) -> None:
    damaged(demo)
    quiet(guide(values={"on_missing": "skip"}))
    good = demo / "mer2023-dataset-process/audio/sample_00000001.wav"
    (demo / "mer2023-dataset-process/audio/sample_00000005.wav").write_bytes(good.read_bytes())
    again = quiet(guide(values={"on_missing": "skip"}))
    assert (again.answered, again.resumed) == (1, 8)
    assert "answer" in lines_of(again)["sample_00000005"]


def test_masking_leaves_the_sentence_out_and_says_so(guide: Guide, demo: Path) -> None:
    damaged(demo)
    report = quiet(guide(values={"on_missing": "mask"}))
    assert report.answered == 12
    assert not report.skipped
    line = lines_of(report)["sample_00000003"]
    assert "holds no faces" in line["masked"]["face"]
    assert "face" not in line["inputs"]
    assert report.counts["audio"] == {"live": 10, "masked": 2}
    whole = answers_of(quiet(guide(policies={"face": "off"}, values={"output": demo / "off", "on_missing": "mask"})))
    assert whole["sample_00000003"] == line["answer"]


def test_a_policy_of_off_is_a_mask_for_every_sample(stored: Guide) -> None:
    report = quiet(stored(policies={"face": "off"}))
    assert lines_of(report)["sample_00000001"]["masked"] == {"face": "policy off"}
    assert report.counts["face"] == {"masked": 12}


def test_au_as_text(guide: Guide) -> None:
    from affect_infer.run.hybrid import make_extractor, make_request
    from affect_infer.run.plan import make_plan

    settings = guide(au="text")
    with make_extractor(settings) as extractor:
        plan = make_plan(settings.tasks[0], settings, extractor)
        (inputs,) = plan.supply(IDS[:1]).prepare(IDS[:1], {})
        prompt = make_request(plan, inputs, ()).prompt
    assert (
        "<Nonverbal>The person shows happiness with a wide smile and raised cheeks.</Nonverbal>. The subtitle" in prompt
    )
    assert "<AUHere>" not in prompt
    assert quiet(settings).counts["au"] == {"live": 12}


def test_missing_weights_are_asked_for_as_this_command_takes_them(guide: Guide) -> None:
    places = ("model", "datasets.mer2023")
    settings = guide(options=[f"{place}.visual_encoder=ViT-S-32.none" for place in places])
    with pytest.raises(
        WeightsNotFoundError, match=r"--weights ViT-S-32\.none=DIR, or --weights ViT-S-32\.none=random:0"
    ):
        quiet(settings)


def test_store_only_without_rows_says_how_to_make_them(guide: Guide) -> None:
    with pytest.raises(MissingFeatureError, match=rf"nothing is stored under {FRAME}.*store_only; run ") as no:
        quiet(guide(policies={"frame": "store_only"}))
    assert f"run `fstore extract {FRAME} --store " in message_of(no.value)


def test_store_only_with_a_miss_is_a_problem_of_that_sample(stored: Guide, full_store: Path, tmp_path: Path) -> None:
    shutil.copytree(full_store, tmp_path / "features")
    FeatureStore(tmp_path / "features").delete(FRAME, IDS[2:4])
    settings = stored(policies={"frame": "store_only"})
    settings = replace(settings, tasks=(replace(settings.tasks[0], store=tmp_path / "features"),))
    with pytest.raises(InputError, match=rf"frame: 2\n    sample '{IDS[2]}' is not stored under {FRAME}@"):
        quiet(settings)


def test_skip_encoders_with_misses_says_what_to_change(guide: Guide, stored: Guide) -> None:
    skipping = ["model.skip_encoders=True"]
    with pytest.raises(ConfigError, match="skip_encoders is True, but audio, face, au of mer2023 are live"):
        guide(options=skipping)
    policies = dict.fromkeys(("frame", "face", "audio", "au"), "store")
    with pytest.raises(ConfigError, match="skip_encoders is True, but 12 samples of mer2023 are not stored"):
        quiet(guide(options=skipping, policies=policies))
    assert quiet(stored(options=skipping)).answered == 12


def test_frame_counts_that_disagree_end_with_one_message(guide: Guide, demo: Path) -> None:
    for id in IDS[:3]:
        path = demo / f"MER-Factory/output/MER2023/{id}/{id}_au_analysis.json"
        document = json.loads(path.read_text())
        document["au_info"]["total_frames"] -= 5
        document["au_info"]["peak_frames"][0]["frames_after_peak"] -= 5
        path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"3 of 12 samples: .*index_space"):
        quiet(guide())


def test_two_runs_do_not_write_one_file(stored: Guide) -> None:
    from affect_infer.results import Results
    from affect_infer.run.hybrid import identity, make_extractor, result_path
    from affect_infer.run.plan import make_plan

    settings = stored()
    with make_extractor(settings) as extractor:
        plan = make_plan(settings.tasks[0], settings, extractor)
        with (
            Results(result_path(settings, plan), identity(settings, plan)),
            pytest.raises(ConfigError, match="another run is writing"),
        ):
            quiet(settings)


class FailsAt:
    """A stub that breaks off at its n-th batch."""

    batch_size_limit: int | None = None

    def __init__(self, batch: int) -> None:
        self.left = batch

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[Answer]:
        self.left -= 1
        if not self.left:
            raise InputError("sample alone does not fit")
        return [Answer("calm", 1) for _ in requests]


def test_what_was_answered_before_an_error_stays(stored: Guide) -> None:
    with pytest.raises(InputError, match="does not fit"):
        quiet(stored(), load=lambda settings, plans: (FailsAt(2), []))
    report = quiet(stored(), load=lambda settings, plans: (FailsAt(9), []))
    assert (report.answered, report.resumed) == (7, 5)
    assert list(answers_of(report)) == IDS


def test_the_report_is_text_and_json(guide: Guide) -> None:
    report = quiet(guide())
    text = report.text()
    assert "12 samples answered, 0 answered before, 0 skipped" in text
    assert "store hit rate: 0.0%" in text
    assert "language model: " in text
    data = json.loads(json.dumps(report.as_dict()))
    assert data["inputs"]["frame"] == {"computed": 12}
    assert 0 < data["language_model_share"] < 1
    assert set(data["ms"]) == {"frame", "face", "audio", "au", "generate"}

"""Write the demo dataset: the folders of MER2023, what MER-Factory makes of them, a manifest and the guide's YAML."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from featurestore.demo.recording import intensity, pictures, require_packages, write_movie, write_wav
from featurestore.demo.script import CLIPS, EMOTIONS, FPS, Clip
from featurestore.object_npz import write_object_npz

DATA, OUTPUT = "mer2023-dataset-process", "MER-Factory/output"

AU_NAMES = {
    "AU01": "Inner brow raiser", "AU02": "Outer brow raiser", "AU04": "Brow lowerer", "AU05": "Upper lid raiser",
    "AU06": "Cheek raiser", "AU07": "Lid tightener", "AU09": "Nose wrinkler", "AU10": "Upper lip raiser",
    "AU12": "Lip corner puller (smile)", "AU14": "Dimpler", "AU15": "Lip corner depressor", "AU17": "Chin raiser",
    "AU20": "Lip stretcher", "AU23": "Lip tightener", "AU25": "Lips part", "AU26": "Jaw drop", "AU28": "Lip suck",
    "AU45": "Blink",
}  # fmt: skip
# OpenFace gives no intensity for AU28; MER-Factory calls a unit active above 0.8.
WITH_INTENSITY = [name for name in AU_NAMES if name != "AU28"]
ACTIVE = 0.8

YAML = """\
# The hybrid run: frames come from the store; face, audio and AU are computed live.
model:
  skip_encoders: False
  visual_encoder: "{encoder}"
  acoustic_encoder: "HUBERT_LARGE"
datasets:
  mer2023:
    face_or_frame: 'face_frame_audio_au'
    frame_n_frms: 8
    frame_sampling: 'emotion_peak'
    use_preextracted_features: True
    preextracted_root: '{root}/features'
    mer_factory_output: '{root}/{output}'
    use_au_clip_realtime: True
    visual_encoder: '{encoder}'
    acoustic_encoder: 'HUBERT_LARGE'
    video_root: '{root}/{data}/video'
    audio_root: '{root}/{data}/audio'
    face_root: '{root}/{data}/openface_face'
    ann_paths: ['{root}/{data}/label-6way.npz']
inference:
  use_preextracted_features: True
  use_au_clip_realtime: True
  mer_factory_output: '{root}/{output}'
"""
# Small, and its shape comes with open_clip, so that random weights make it run without a download.
ENCODER = "ViT-S-32.none"


def write_dataset(root: str | Path) -> None:
    """Write all files of the dataset under `root`, the same bytes each time; takes some five seconds.

    Needs av and opencv (MissingPackageError).  Existing files of these names are replaced.
    """
    require_packages()
    root = Path(root).absolute()
    data = root / DATA
    for folder in ("video", "audio", "openface_face"):
        (data / folder).mkdir(parents=True, exist_ok=True)
    for clip in CLIPS:
        frames, faces = pictures(clip)
        write_movie(data / "video" / f"{clip.id}.mp4", clip, frames)
        write_wav(data / "audio" / f"{clip.id}.wav", clip)
        np.save(data / "openface_face" / f"{clip.id}.npy", faces)
        _write_mer_factory(root / OUTPUT / "MER2023" / clip.id, clip)
    _write_labels(data / "label-6way.npz")
    _write_table(
        data / "transcription-engchi-polish.csv",
        [{"name": clip.id, "chinese": clip.chinese, "english": clip.english} for clip in CLIPS],
    )
    _write_table(root / "manifest.csv", [_manifest_row(clip) for clip in CLIPS])
    quoted = str(root).replace("'", "''")  # as a single-quoted YAML text wants it
    text = YAML.format(root=quoted, data=DATA, output=OUTPUT, encoder=ENCODER)
    (root / "mer2023.yaml").write_text(text, encoding="utf-8")


def _manifest_row(clip: Clip) -> dict[str, str]:
    return {
        "id": clip.id,
        "video": f"{DATA}/video/{clip.id}.mp4",
        "face": f"{DATA}/openface_face/{clip.id}.npy",
        "audio": f"{DATA}/audio/{clip.id}.wav",
        "subtitle": clip.english,
        "au_json": f"{OUTPUT}/MER2023/{clip.id}/{clip.id}_au_analysis.json",
        "label": clip.emotion,
    }


def _write_labels(path: Path) -> None:
    """MER2023's layout: one 0-d object array {id: {emo, val}} per split; all demo clips are in test1."""
    test = {clip.id: {"emo": clip.emotion, "val": EMOTIONS[clip.emotion].valence} for clip in CLIPS}
    write_object_npz(path, {"train_corpus": {}, "test1_corpus": test, "test2_corpus": {}, "test3_corpus": {}})


def _write_table(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def au_intensities(clip: Clip) -> dict[str, list[float]]:
    """Facial action unit -> intensity per frame, two decimals as OpenFace writes them."""
    curve = intensity(clip)
    at_peak = EMOTIONS[clip.emotion].aus
    return {name: np.round(0.1 + at_peak.get(name, 0.0) * curve, 2).tolist() for name in WITH_INTENSITY}


def _write_mer_factory(folder: Path, clip: Clip) -> None:
    """OpenFace's table of the clip and MER-Factory's analysis of it, in the schema that AffectGPT's fork reads."""
    folder.mkdir(parents=True, exist_ok=True)
    aus = au_intensities(clip)
    _write_table(folder / f"{clip.id}.csv", [_openface_row(aus, index) for index in range(clip.n_frames)])
    active = {name: row[clip.peak_index] for name, row in aus.items() if row[clip.peak_index] > ACTIVE}
    peak = f"Peak at {clip.peak_index / FPS:.2f}s: {clip.emotion} (strong)"
    analysis = {
        "source_path": f"{clip.id}.mp4",
        "chronological_emotion_peaks": [peak if active else "neutral"],
        "overall_peak_au_description": ", ".join(f"{AU_NAMES[au]} (intensity: {x:.2f})" for au, x in active.items())
        or "Neutral expression at the overall peak frame.",
        "au_info": {
            "total_frames": clip.n_frames,
            "peak_frames": [
                {
                    "peak_index": clip.peak_index,
                    "frames_before_peak": clip.peak_index,
                    "frames_after_peak": clip.n_frames - 1 - clip.peak_index,
                }
            ],
        },
        "fine_grained_descriptions": {"summary_description": EMOTIONS[clip.emotion].summary},
    }
    (folder / f"{clip.id}_au_analysis.json").write_text(json.dumps(analysis, indent=4) + "\n", encoding="utf-8")


def _openface_row(aus: dict[str, list[float]], index: int) -> dict[str, str]:
    # OpenFace counts frames from 1.
    row = {"frame": f"{index + 1}", "face_id": "0", "timestamp": f"{index / FPS:.3f}"}
    row |= {"confidence": "0.98", "success": "1"}
    row |= {f"{name}_r": f"{values[index]:.2f}" for name, values in aus.items()}
    row |= {f"{name}_c": f"{float(name in aus and aus[name][index] > ACTIVE):.1f}" for name in AU_NAMES}
    return row

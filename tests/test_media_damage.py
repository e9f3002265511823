"""Random bytes of packets are changed: each frame is right or refused, as far as its codec can tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media_factories import remux, write_clip

from featurestore.errors import MediaError
from featurestore.media import decode_frames, index_video

SEED = 7
HEVC = "log-level=none:keyint=12:min-keyint=12"
# Clips, and the share of the frames asked for that may be wrong: the codec carries nothing that would tell.
CODECS: dict[str, tuple[dict[str, Any], float]] = {
    "h264.mp4": ({"options": {"bf": "2", "g": "12"}}, 0.02),
    "hevc.mp4": ({"codec": "libx265", "options": {"x265-params": HEVC}}, 0.4),
    "hevc_with_checksums.mkv": ({"codec": "libx265", "options": {"x265-params": HEVC + ":hash=1"}}, 0.05),
    "vp9.webm": ({"codec": "libvpx-vp9", "options": {"cpu-used": "8", "g": "12"}}, 0.5),
    "av1.mkv": ({"codec": "libsvtav1", "options": {"preset": "12", "g": "12"}}, 0.2),
    "mpeg4.avi": ({"codec": "mpeg4", "options": {"g": "12", "bf": "2"}}, 0.03),
    "mpeg4.mp4": ({"codec": "mpeg4", "options": {"g": "12", "bf": "2"}}, 0.03),
    "mpeg2.ts": ({"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}}, 0.05),
    "ffv1.mkv": ({"codec": "ffv1", "options": {"g": "12", "level": "3", "slicecrc": "1"}}, 0.0),
}


@pytest.mark.parametrize("name", CODECS)
def test_a_frame_of_a_damaged_file_is_right_or_refused(
    name: str, tmp_path: Path, long_run: bool, request: pytest.FixtureRequest
) -> None:
    options, allowed = CODECS[name]
    whole = write_clip(tmp_path / name, 36, width=320, height=192, **options)
    truth = decode_frames(index_video(whole), range(36), (64, 64)).pixels
    with av.open(str(whole)) as movie:
        places = [(packet.pos, packet.size) for packet in movie.demux(video=0) if packet.size]
    data = whole.read_bytes()
    random = np.random.default_rng(SEED)
    damaged = tmp_path / f"damaged_{name}"
    rounds = 500 if long_run else 25
    wrong = right = 0
    for _ in range(rounds):
        changed = bytearray(data)
        for _ in range(random.integers(1, 4)):
            at, size = places[random.integers(len(places))]
            changed[random.integers(at, at + size)] = random.integers(256)
        damaged.write_bytes(changed)
        numbers = random.integers(0, 36, 4)
        try:
            index = index_video(damaged)
        except MediaError:
            continue
        for number in numbers:
            try:
                pixels = decode_frames(index, [int(number)], (64, 64)).pixels[0]
            except MediaError:
                continue
            same = np.array_equal(pixels, truth[number])
            right, wrong = right + same, wrong + (not same)
    request.node.user_properties += [("right", right), ("wrong", wrong)]
    assert wrong <= allowed * 4 * rounds
    assert right > rounds  # a reader that refuses everything would pass as well


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts", "a.avi", "a.flv", "a.webm"])
def test_a_file_that_ends_anywhere_has_right_frames_or_none(name: str, tmp_path: Path, long_run: bool) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "a.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
        "a.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "g": "12"}},
    }
    whole = write_clip(tmp_path / name, 36, **kinds.get(name, {}))
    if name == "a.mp4":
        whole = remux(whole, tmp_path / "fast.mp4", movflags="faststart")
    truth = decode_frames(index_video(whole), range(36), (64, 64)).pixels
    data = whole.read_bytes()
    cut = tmp_path / f"cut_{name}"
    some = 0
    for point in range(1, 51, 1 if long_run else 7):
        cut.write_bytes(data[: len(data) * point // 51])
        try:
            index = index_video(cut)
        except MediaError:
            continue
        for number in range(0, index.total, 3):
            try:
                pixels = decode_frames(index, [number], (64, 64)).pixels[0]
            except MediaError:
                continue
            some += 1
            # In the order of decoding, not that of display, the last frames may be others.
            assert any(np.array_equal(pixels, each) for each in truth[number : number + 4])
    assert some

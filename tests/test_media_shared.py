"""Every clip of `shared/media`: a frame is that of decoding everything, whatever is asked for with it or cut off."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.errors import MediaError
from featurestore.media import VideoIndex, decode_frames, index_video, video
from featurestore.media.decoder import EACH
from featurestore.media.scaling import Scale

SEED = 12
SIZE = (48, 64)
NAMES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".flv", ".m4v"}
REORDERED = 4  # frames that may come in the place of one whose packet is behind the end of a file that was cut


@cache
def clips(folder: Path) -> list[tuple[Path, VideoIndex]]:
    """Those that are read at all, by their names."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix in NAMES:
            try:
                found.append((path, index_video(path)))
            except MediaError:
                continue
    assert len(found) > 40
    return found


@cache
def everything(path: Path) -> NDArray[np.uint8]:
    """All frames of a clip, found by their times among all that PyAV decodes; without times, in the order they come."""
    index = index_video(path)
    decoded: list[tuple[int, NDArray[np.uint8]]] = []
    with av.open(str(path)) as movie:
        stream: Any = movie.streams[index.track]
        stream.codec_context.thread_count = 1
        scale = Scale(path, stream.time_base, SIZE)
        for packet in movie.demux(stream):
            with suppress(av.error.InvalidDataError):  # of a clip that is damaged
                decoded += [(frame.pts, scale(frame).copy()) for frame in packet.decode()]
    if index.counted:
        return np.stack([pixels for _, pixels in decoded][-index.total :])
    by_time = dict(decoded)
    nothing = np.zeros((*SIZE, 3), np.uint8)
    return np.stack([by_time.get(int(index.pts[picture // EACH]), nothing) for picture in index.frames])


def test_any_frames_of_any_clip_are_those_of_decoding_everything(
    shared_media: Path, long_run: bool, request: pytest.FixtureRequest
) -> None:
    random = np.random.default_rng(SEED)
    found = clips(shared_media)
    compared = refused = 0
    for _ in range(200 if long_run else 10):
        path, index = found[random.integers(len(found))]
        numbers = random.integers(0, index.total, random.integers(1, 12))
        try:
            pixels = decode_frames(index, numbers, SIZE).pixels
        except MediaError:
            refused += 1
            continue
        assert np.array_equal(pixels, everything(path)[numbers]), (path.name, numbers.tolist())
        compared += 1
    request.node.user_properties += [("compared", compared), ("refused as damaged", refused)]
    assert refused < compared / 4


def test_beginning_at_the_frame_itself_would_be_seen(shared_media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shared_media / "synthetic" / "cfr_gop12.mp4"
    index = index_video(path)
    monkeypatch.setattr(video, "_begin", lambda index, begins, position: max(position - 3, 0))
    with pytest.raises((MediaError, AssertionError)):
        assert np.array_equal(decode_frames(index, [17, 42], SIZE, True).pixels, everything(path)[[17, 42]])


@pytest.mark.parametrize("part", range(4))
def test_a_clip_that_ends_anywhere_has_right_frames_or_none(
    part: int, shared_media: Path, tmp_path: Path, long_run: bool, request: pytest.FixtureRequest
) -> None:
    """Fifty points of each clip; one in twenty of them where the test is short."""
    random = np.random.default_rng(SEED + part)
    seen = 0
    for path, _ in clips(shared_media)[part::4]:
        data = path.read_bytes()
        for point in range(1, 51):
            if not long_run and random.random() > 0.05:
                continue
            cut = tmp_path / f"cut{path.suffix}"
            cut.write_bytes(data[: len(data) * point // 51])
            try:
                index = index_video(cut)
            except MediaError:
                continue
            for number in {0, index.total // 2, index.total - 1}:
                try:
                    pixels = decode_frames(index, [number], SIZE).pixels[0]
                except MediaError:
                    continue
                seen += 1
                near = everything(path)[number : number + REORDERED]
                assert any(np.array_equal(pixels, each) for each in near), (path.name, point, number, index.total)
        everything.cache_clear()
    request.node.user_properties += [("accepted", seen)]
    assert seen or not long_run

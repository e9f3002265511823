"""Every frame number gives the picture that carries it, and a damaged picture is an error."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media_factories import number_of, remux, turn, write_clip
from numpy.typing import NDArray

from featurestore.errors import MediaError
from featurestore.media import container, decode_frames, index_video, media_recipe, scaling, scan, video
from featurestore.media.decoder import EACH
from featurestore.media.scaling import Scale
from featurestore.media.video import VideoIndex

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "media"
MANIFEST = json.loads((SHARED / "MANIFEST.json").read_text()) if SHARED.is_dir() else []
NUMBERED = {entry["path"]: entry["burnt_in_frame_ids"] for entry in MANIFEST if entry.get("burnt_in_frame_ids")}
REAL = [entry["path"] for entry in MANIFEST if entry["path"].startswith("real/")]

# How much the pictures of these files were turned before they carry their number upright.
QUARTERS = {"synthetic/rot90.mp4": 3, "synthetic/rot180.mov": 2}
# Bytes in the middle are wrong: decoders make up pictures there. See the tests of damage.
DAMAGED = {"synthetic/bitflip.mp4", "real/decord_corrupted.mp4"}


def numbers(pixels: NDArray[np.uint8], quarters: int = 0) -> list[int]:
    return [number_of(np.rot90(each, quarters)) for each in pixels]


def all_numbers(path: Path, quarters: int = 0) -> list[int]:
    index = index_video(path)
    return numbers(decode_frames(index, range(index.total)).pixels, quarters)


# -- clips made here -----------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "b_frames.mp4": {},
    "one_keyframe.mp4": {"options": {"bf": "3", "g": "999"}},
    "variable_rate.mkv": {"times_ms": [40 * i + i % 3 * 11 for i in range(30)]},
    "long_gaps.mp4": {"times_ms": [3 * i * i for i in range(30)]},
    "before_a_later_i.mp4": {"options": {"x264-params": "open-gop=1:keyint=2:min-keyint=1:bframes=1:b-adapt=0"}},
    "wide_pyramid.mp4": {"options": {"x264-params": "bframes=16:b-adapt=0:b-pyramid=normal:keyint=60"}},
    "slices.mp4": {"options": {"x264-params": "slices=4:bframes=2"}},
    "fields.ts": {"options": {"x264-params": "tff=1"}},
    "fillers.ts": {"options": {"b": "800k", "x264-params": "nal-hrd=cbr:vbv-maxrate=800:vbv-bufsize=800:filler=1"}},
    "stream.ts": {},
    "raw.h264": {"format": "h264"},  # no times at all
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    # AVI has no times of display; MPEG-4 has its own, H.264 has not.
    "b_frames.avi": {"options": {"bf": "3", "g": "999", "x264-params": "b-adapt=0:b-pyramid=normal"}},
    "no_b_frames.avi": {"options": {"bf": "0"}},
    "program.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "flash.flv": {},
    "av1.mkv": {"codec": "libsvtav1", "options": {"preset": "12"}, "width": 320, "height": 192},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "ten_bits.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": "log-level=none"}},
    "full_chroma.mp4": {"pix_fmt": "yuv444p"},
    "gray.mp4": {"pix_fmt": "gray"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "odd_size.mkv": {"codec": "ffv1", "width": 161, "height": 97},
    "with_sound.mp4": {"sound": True},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_has_its_number(name: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / name, 30, **KINDS[name])
    assert all_numbers(path) == list(range(30))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_clips_of_few_frames(count: int, tmp_path: Path) -> None:
    assert all_numbers(write_clip(tmp_path / "short.mp4", count)) == list(range(count))


def test_frames_come_in_the_order_asked_and_as_often(tmp_path: Path) -> None:
    index = index_video(write_clip(tmp_path / "a.mp4", 30))
    asked = [29, 3, 3, 17, 0, 29]
    assert numbers(decode_frames(index, asked).pixels) == asked
    assert numbers(decode_frames(index, np.array([4, 4, 4])).pixels) == [4, 4, 4]


def test_what_comes_first_in_an_avi_is_not_what_is_shown_first(tmp_path: Path) -> None:
    """The times of this file are those of decoding: taking them for display, the mutant, swaps pictures."""
    path = write_clip(tmp_path / "a.avi", 30, **KINDS["b_frames.avi"])
    index = index_video(path)
    assert index.counted
    eight = [i * 30 // 8 for i in range(8)]
    assert numbers(decode_frames(index, eight).pixels) == eight
    with av.open(str(path)) as movie:
        times = [packet.pts for packet in movie.demux(video=0) if packet.size]
    assert times == sorted(times)
    mutant = replace(index, frames=np.argsort(times) * EACH)
    assert numbers(decode_frames(mutant, eight).pixels) != eight


def test_a_frame_is_the_same_whatever_else_is_asked(tmp_path: Path) -> None:
    """Skipping what nobody needs must not change what is needed."""
    index = index_video(write_clip(tmp_path / "a.mp4", 60, options={"bf": "3", "g": "999"}))
    together = decode_frames(index, range(60)).pixels
    for number in (0, 1, 2, 31, 58, 59):
        assert np.array_equal(decode_frames(index, [number]).pixels[0], together[number])
    eight = [i * 60 // 8 for i in range(8)]
    assert np.array_equal(decode_frames(index, eight).pixels, together[eight])


def test_frames_that_an_edit_list_hides_do_not_count(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", 40, options={"bf": "2", "g": "999"})
    cut = remux(whole, tmp_path / "cut.mp4", -0.6, avoid_negative_ts="disabled")
    index = index_video(cut)
    assert (index.total, len(index.pts)) == (25, 40)
    assert all_numbers(cut) == list(range(15, 40))


def test_time_starts_with_the_first_frame(tmp_path: Path) -> None:
    late = remux(write_clip(tmp_path / "a.mp4", 10), tmp_path / "late.mp4", 1.4)
    decoded = decode_frames(index_video(late), [0, 1, 9])
    assert numbers(decoded.pixels) == [0, 1, 9]
    np.testing.assert_allclose(decoded.timestamps_s, [0, 0.04, 0.36], atol=1e-9)  # type: ignore[arg-type]


def test_times_are_those_of_the_frames(tmp_path: Path) -> None:
    times = [3 * i * i for i in range(30)]
    decoded = decode_frames(index_video(write_clip(tmp_path / "a.mp4", 30, times_ms=times)), [0, 5, 29])
    np.testing.assert_allclose(decoded.timestamps_s, [0, 0.075, 2.523], atol=1e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize(("degrees", "back"), [(90, 3), (-90, 1), (180, 2)])
def test_pictures_are_turned_upright(degrees: int, back: int, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 10)
    flat = decode_frames(index_video(path), [7], (96, 160)).pixels[0]
    turn(path, degrees)
    size = (96, 160) if degrees == 180 else (160, 96)
    turned = np.rot90(decode_frames(index_video(path), [7], size).pixels[0], back)
    assert number_of(turned) == 7
    # Only the chroma, which is half as wide, may be placed a little differently.
    assert np.abs(turned.astype(int) - flat).mean() < 2


def test_size_is_height_and_width(tmp_path: Path) -> None:
    index = index_video(write_clip(tmp_path / "a.mp4", 3))
    decoded = decode_frames(index, [0, 2], (48, 80))
    assert decoded.pixels.shape == (2, 48, 80, 3)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.timestamps_s is not None
    assert decoded.timestamps_s.dtype == np.float64


def test_colours_are_red_green_blue(tmp_path: Path) -> None:
    """The picture is red to the right and green to the bottom."""
    pixels = decode_frames(index_video(write_clip(tmp_path / "a.mp4", 1, pix_fmt="yuv444p")), [0]).pixels[0].astype(int)
    assert pixels[120, 200, 0] > pixels[120, 20, 0] + 100
    assert pixels[210, 100, 1] > pixels[60, 100, 1] + 100


def test_the_index_tells_which_file_it_read(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 3)
    source = index_video(path).source
    assert source["path"] == str(path)
    assert (source["size"], source["mtime_ns"]) == (path.stat().st_size, path.stat().st_mtime_ns)
    assert len(source["sha256"]) == 64


def test_a_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg would take what is before the colon for a protocol."""
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.mp4", 2).rename("http:a.mp4")
    assert all_numbers(Path("http:a.mp4")) == [0, 1]


def test_the_recipe_names_what_decides_the_pixels() -> None:
    recipe = media_recipe("frame", (224, 224))
    assert recipe == json.loads(json.dumps(recipe))
    assert recipe != media_recipe("frame", (336, 336))
    assert recipe != media_recipe("frame", (224, 224), allow_corrupt=True)


# -- what is no video ----------------------------------------------------------------------------------


def refused(path: Path, text: str, *, deterministic: bool = True) -> None:
    with pytest.raises(MediaError, match=text) as caught:
        index_video(path)
    assert str(path) in str(caught.value)
    assert Path(caught.value.path) == path
    assert caught.value.deterministic is deterministic


def test_what_is_no_video_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", "is empty")
    (tmp_path / "page.mp4").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    refused(tmp_path / "page.mp4", "not media that can be decoded")
    refused(tmp_path / "missing.mp4", "No such file", deterministic=False)
    (tmp_path / "folder.mp4").mkdir()
    refused(tmp_path / "folder.mp4", "directory|regular file", deterministic=False)
    with av.open(str(tmp_path / "sound.mp4"), "w") as movie:
        tone = movie.add_stream("aac", rate=16000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        block.sample_rate = 16000
        movie.mux(tone.encode(block))
        movie.mux(tone.encode(None))
    refused(tmp_path / "sound.mp4", "no video stream, only audio")


def test_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    refused(tmp_path / "pipe.mp4", "not a regular file", deterministic=False)


def test_a_playlist_cannot_name_other_files(tmp_path: Path) -> None:
    path = tmp_path / "list.mp4"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    refused(path, "not media that can be decoded")


def test_frames_that_are_not_there_are_refused(tmp_path: Path) -> None:
    index = index_video(write_clip(tmp_path / "a.mp4", 5))
    for asked in ([5], [-1], [0, 99], []):
        with pytest.raises(MediaError, match="of 0 to 4"):
            decode_frames(index, asked)


def test_a_file_that_changed_since_it_was_indexed_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 5)
    index = index_video(path)
    write_clip(path, 9)
    with pytest.raises(MediaError, match="changed while it was being read") as caught:
        decode_frames(index, [0])
    assert not caught.value.deterministic


@pytest.mark.parametrize("how", ["longer", "other bytes", "another file"])
@pytest.mark.parametrize("reader", ["index", "frames"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    reader: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "a.mp4", 40)
    other = write_clip(tmp_path / "b.mp4", 40)
    index = index_video(path)
    module, name = {"index": (scan, "told_packets"), "frames": (video, "packets_of")}[reader]
    packets_of = getattr(container, name)

    def changing(*arguments: Any) -> Any:
        for number, packet in enumerate(packets_of(*arguments)):
            if number == 10:
                with open(path, "ab" if how == "longer" else "r+b") as file:
                    file.write(bytes(9))
                if how == "another file" and other.exists():
                    os.replace(other, path)
            yield packet

    monkeypatch.setattr(module, name, changing)
    with pytest.raises(MediaError, match="changed while it was being read") as caught:
        index_video(path) if reader == "index" else decode_frames(index, [3, 30])
    assert not caught.value.deterministic


# -- damage --------------------------------------------------------------------------------------------


@pytest.fixture
def whole_and_damaged(tmp_path: Path) -> tuple[Path, Path]:
    """A clip of five groups of 12 frames, and the same with wrong bytes in the third."""
    whole = write_clip(tmp_path / "whole.mp4", 60, width=320, height=192, options={"bf": "2", "g": "12", "crf": "10"})
    with av.open(str(whole)) as movie:
        packets = [packet for packet in movie.demux(video=0) if packet.size]
    data = bytearray(whole.read_bytes())
    hit = packets[25]  # the second of the third group, which the others are predicted from
    random = np.random.default_rng(1)
    for at in random.integers(hit.pos + 40, hit.pos + hit.size, 40):
        data[at] = random.integers(256)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)
    return whole, damaged


def accepted(index: VideoIndex) -> set[int]:
    """Frames that can be had on their own."""
    found = set()
    for number in range(index.total):
        with suppress(MediaError):
            decode_frames(index, [number], (64, 64))
            found.add(number)
    return found


def differing(whole: Path, damaged: Path) -> set[int]:
    one, other = (decode_frames(index_video(path), range(60), (64, 64), True).pixels for path in (whole, damaged))
    return {number for number in range(60) if not np.array_equal(one[number], other[number])}


def test_no_damaged_frame_is_taken_and_no_other_group_is_lost(whole_and_damaged: tuple[Path, Path]) -> None:
    wrong = differing(*whole_and_damaged)
    assert wrong
    assert wrong <= set(range(24, 36))
    taken = accepted(index_video(whole_and_damaged[1]))
    assert not taken & wrong
    assert taken >= set(range(24)) | set(range(36, 60))


def test_a_decoder_reports_fewer_frames_than_are_damaged(whole_and_damaged: tuple[Path, Path]) -> None:
    """So trusting its flag alone, as the mutant below does, takes wrong pictures."""
    whole, damaged = whole_and_damaged
    with av.open(str(damaged)) as movie:
        flagged = {number for number, frame in enumerate(movie.decode(video=0)) if frame.is_corrupt}
    assert flagged < differing(whole, damaged)


def test_with_allow_corrupt_what_the_decoder_makes_up_is_taken(whole_and_damaged: tuple[Path, Path]) -> None:
    index = index_video(whole_and_damaged[1])
    pixels = decode_frames(index, range(60), allow_corrupt=True).pixels
    assert numbers(pixels[:24]) == list(range(24))
    assert numbers(pixels[36:]) == list(range(36, 60))


@pytest.mark.parametrize("keyframes", ["12", "999"])
def test_wrong_bytes_among_the_pictures_are_noticed(keyframes: str, tmp_path: Path, long_run: bool) -> None:
    """By the H.264 decoder, nearly always; the flag alone lets a good part of the wrong pictures through."""
    whole = write_clip(tmp_path / "whole.mp4", 60, width=320, height=192, options={"bf": "2", "g": keyframes})
    index = index_video(whole)
    eight = [i * 60 // 8 for i in range(8)]
    truth = decode_frames(index, eight, (64, 64)).pixels
    data = whole.read_bytes()
    random = np.random.default_rng(11)
    rounds = 600 if long_run else 60
    wrong = equal = 0
    for _ in range(rounds):
        damaged = bytearray(data)
        for at in random.integers(len(data) // 20, data.index(b"moov"), random.integers(1, 4)):
            damaged[at] = random.integers(256)
        (tmp_path / "damaged.mp4").write_bytes(damaged)
        with suppress(MediaError):
            pixels = decode_frames(index_video(tmp_path / "damaged.mp4"), eight, (64, 64)).pixels
            if np.array_equal(pixels, truth):
                equal += 1
            else:
                wrong += 1
    assert wrong <= rounds // 10
    assert wrong + equal < rounds // 2


def test_the_incomplete_last_frame_of_a_file_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", 40, options={"bf": "0", "g": "999"})
    fast = remux(whole, tmp_path / "fast.mp4", movflags="faststart")
    cut = tmp_path / "cut.mp4"
    data = fast.read_bytes()
    cut.write_bytes(data[: len(data) * 6 // 10])
    index = index_video(cut)
    assert 0 < index.total < 40
    assert index.missing_s == pytest.approx(1.6 - index.total * 0.04, abs=0.05)
    assert index_video(fast).missing_s == 0
    assert all_numbers(cut) == list(range(index.total))
    # Without its table of contents there is nothing to find frames by.
    (tmp_path / "cut2.mp4").write_bytes(whole.read_bytes()[: len(data) * 6 // 10])
    refused(tmp_path / "cut2.mp4", "not media that can be decoded")


# -- clips that are not made here ----------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(NUMBERED.keys() - DAMAGED))
def test_shared_clips_give_their_burnt_in_numbers(name: str, shared_media: Path) -> None:
    index = index_video(shared_media / name)
    expected = NUMBERED[name]
    assert index.total == len(expected)
    quarters = QUARTERS.get(name, 0)
    assert numbers(decode_frames(index, range(index.total)).pixels, quarters) == expected
    eight = [i * index.total // 8 for i in range(8)]
    assert numbers(decode_frames(index, eight).pixels, quarters) == [expected[i] for i in eight]
    assert (index.missing_s > 0) == (name in ("synthetic/trunc_faststart.mp4", "synthetic/trunc.mkv"))


def test_the_shared_damaged_clip_is_taken_where_it_is_whole(shared_media: Path) -> None:
    """Every byte that is wrong is in the third to sixth group of twelve; of 38 wrong pictures a decoder flags 19."""
    whole, damaged = (index_video(shared_media / "synthetic" / name) for name in ("cfr_gop12.mp4", "bitflip.mp4"))
    good = [*range(24), *range(72, 96)]
    assert np.array_equal(decode_frames(damaged, good).pixels, decode_frames(whole, good).pixels)
    concealed = decode_frames(damaged, range(96), allow_corrupt=True).pixels
    truth = decode_frames(whole, range(96)).pixels
    wrong = [number for number in range(96) if not np.array_equal(concealed[number], truth[number])]
    assert wrong == list(range(34, 72))
    for number in (34, 37, 41, 59, 61, 71):
        with pytest.raises(MediaError, match=f"frame {number} of 96 is damaged"):
            decode_frames(damaged, [number])


@pytest.mark.parametrize("name", ["audio_only", "empty", "garbage", "html_error_page", "trunc_moov_end"])
def test_shared_files_that_are_no_video_are_refused(name: str, shared_media: Path) -> None:
    with pytest.raises(MediaError, match=f"{name}.mp4"):
        index_video(shared_media / "synthetic" / f"{name}.mp4")


@pytest.mark.parametrize("name", sorted(set(REAL) - DAMAGED))
def test_real_clips_equal_decord(name: str, shared_media: Path) -> None:
    """Bit for bit, turned ones included."""
    decord = pytest.importorskip("decord")
    if decord.__version__ != "0.6.0":
        pytest.skip(f"decord {decord.__version__} scales with another filter than the 0.6.0 that AffectGPT uses")
    index = index_video(shared_media / name)
    # All that our index counts; decord also counts, and repeats others for, what an edit list hides.
    asked = range(0, index.total, 1 + index.total // 60)
    theirs = decord.VideoReader(str(shared_media / name), height=224, width=224).get_batch(asked).asnumpy()
    assert np.array_equal(decode_frames(index, asked).pixels, theirs)


# -- mutants: each breaks one rule, and the checks above must see it -----------------------------------


def scaled_with(flags: str) -> Callable[..., Any]:
    def make(self: Any, frame: av.VideoFrame) -> Any:
        graph = av.filter.Graph()
        chain = [
            graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=self.time_base),
            graph.add("scale", f"{self.width}:{self.height}:flags={flags}"),
            graph.add("format", "rgb24"),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*chain).configure()
        return graph

    return make


ORDER_MUTANTS: dict[str, Callable[[VideoIndex], NDArray[np.int64]]] = {
    "in the order of the file": lambda index: np.sort(index.frames),
    "hidden frames counted": lambda index: np.argsort(index.pts)[: index.total] * EACH,
    "one later": lambda index: np.roll(index.frames, -1),
}


@pytest.mark.parametrize("mutant", ORDER_MUTANTS)
def test_wrong_orders_are_seen(mutant: str, tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", 40, options={"bf": "2", "g": "999"})
    cut = remux(whole, tmp_path / "cut.mp4", -0.6, avoid_negative_ts="disabled")
    index = index_video(cut)
    assert numbers(decode_frames(index, range(25)).pixels) == list(range(15, 40))
    broken = replace(index, frames=ORDER_MUTANTS[mutant](index))
    found = []
    with suppress(MediaError):  # an error is seen, too
        found = numbers(decode_frames(broken, range(25)).pixels)
    assert found != list(range(15, 40))


def test_counting_what_the_decoder_returns_is_seen(tmp_path: Path) -> None:
    """With frames skipped, the n-th that comes out is not frame n."""
    index = index_video(write_clip(tmp_path / "a.mp4", 40, options={"bf": "3", "g": "999"}))
    asked = [0, 13, 27]
    with av.open(str(index.path)) as movie:
        stream = movie.streams.video[0]
        stream.codec_context.skip_frame = "NONREF"
        counted = list(movie.decode(stream))
    assert len(counted) < 40
    assert [number_of(counted[number].to_ndarray(format="rgb24")) for number in asked if number < len(counted)] != asked


def test_without_turning_the_number_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = turn(write_clip(tmp_path / "a.mp4", 10), 90)
    monkeypatch.setattr(scaling, "_UPRIGHT", dict.fromkeys(scaling._UPRIGHT, ()))
    assert all_numbers(path, 3) != list(range(10))


@pytest.mark.parametrize("flags", ["bicubic", "bilinear+accurate_rnd+full_chroma_int", "neighbor"])
def test_another_filter_is_another_picture(flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the comparison with decord, bit for bit, would see it."""
    index = index_video(write_clip(tmp_path / "a.mp4", 3, width=320, height=192))
    right = decode_frames(index, [1]).pixels
    monkeypatch.setattr(Scale, "_make", scaled_with("bilinear"))
    assert np.array_equal(decode_frames(index, [1]).pixels, right)
    monkeypatch.setattr(Scale, "_make", scaled_with(flags))
    assert np.abs(decode_frames(index, [1]).pixels.astype(int) - right).max() > 10


def test_trusting_the_flag_of_the_decoder_takes_wrong_pictures(
    whole_and_damaged: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_flagged(
        index: VideoIndex, asked: NDArray[np.int64], missing: set[int], damaged: list[int], _: bool
    ) -> None:
        if missing or any(index.frames[number] // EACH in damaged for number in asked):
            raise MediaError(f"{index.path} is damaged")

    wrong = differing(*whole_and_damaged)
    monkeypatch.setattr(video, "_refuse_damaged", only_flagged)
    assert accepted(index_video(whole_and_damaged[1])) & wrong

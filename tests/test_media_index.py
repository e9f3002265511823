"""Which frames there are, whatever a container says: by the pictures that come out, with their own times."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media_factories import field_pictures, number_of, orient, packed_avi, picture, remux, write_clip

from featurestore.errors import MediaError
from featurestore.media import container, decode_frames, index_video, source, video
from featurestore.media.decoder import Decoder
from featurestore.media.marks import CLEAN, HIDDEN, OPEN, WHOLE
from featurestore.media.nal import H264
from featurestore.media.scan import KEY, Scan

HEVC = "log-level=none:keyint=12:min-keyint=12"
# Streams with groups of twelve pictures, of every codec whose packets tell where decoding may begin.
GROUPS: dict[str, dict[str, Any]] = {
    "closed.mp4": {"options": {"bf": "2", "g": "12"}},
    "open.mp4": {"options": {"bf": "2", "g": "12", "x264-params": "open-gop=1:b-adapt=0:keyint=12"}},
    "open_hevc.mp4": {"codec": "libx265", "options": {"x265-params": HEVC}},
    "leading_hevc.mkv": {"codec": "libx265", "options": {"x265-params": HEVC + ":no-open-gop=1:radl=2"}},
    "layers_hevc.mkv": {"codec": "libx265", "options": {"x265-params": HEVC + ":temporal-layers=3"}},
    "stream.ts": {"options": {"bf": "2", "g": "12"}},
    "vp8.webm": {"codec": "libvpx", "options": {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "8"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "cpu-used": "8", "lag-in-frames": "8"}},
    "av1.mkv": {"codec": "libsvtav1", "options": {"g": "12", "preset": "12"}, "width": 320, "height": 192},
    "ffv1.mkv": {"codec": "ffv1", "options": {"g": "12"}},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
}


def numbers(pixels: Any) -> list[int]:
    return [number_of(each) for each in pixels]


def all_numbers(path: Path) -> list[int]:
    index = index_video(path)
    return numbers(decode_frames(index, range(index.total)).pixels)


def refused(path: Path, says: str) -> str:
    with pytest.raises(MediaError, match=says) as caught:
        index_video(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


# -- a packet need not be a picture ------------------------------------------------------------------------------------


def test_pictures_packed_into_one_chunk_come_in_their_order(tmp_path: Path) -> None:
    path = packed_avi(tmp_path / "packed.avi", 30)
    assert all_numbers(path) == list(range(30))
    index = index_video(path)
    for number in (0, 1, 2, 13, 28, 29):
        assert numbers(decode_frames(index, [number]).pixels) == [number]
    np.testing.assert_allclose(index.seconds, np.arange(30) / 25)  # type: ignore[arg-type]


def test_two_packets_of_fields_are_one_frame(tmp_path: Path) -> None:
    path = field_pictures(tmp_path / "fields.mp4", 12)
    index = index_video(path)
    assert (index.total, len(index.pts)) == (12, 24)
    assert all_numbers(path) == list(range(12))
    np.testing.assert_allclose(index.seconds, np.arange(12) / 25)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", GROUPS)
def test_a_frame_alone_is_the_same_as_among_all(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file is sought instead of read: bit for bit, for any choice."""
    path = write_clip(tmp_path / name, 48, **GROUPS[name])
    index = index_video(path)
    assert not index.counted
    together = decode_frames(index, range(48)).pixels
    assert numbers(together) == list(range(48))
    random = np.random.default_rng(3)
    for bytes_away in (video.SEEK_BYTES, 0):
        monkeypatch.setattr(video, "SEEK_BYTES", bytes_away)
        for number in random.permutation(48)[:12]:
            assert np.array_equal(decode_frames(index, [number]).pixels[0], together[number])
        for _ in range(3):
            some = random.integers(0, 48, 4)
            assert np.array_equal(decode_frames(index, some).pixels, together[some])


@pytest.mark.parametrize("name", ["closed.mp4", "open.mp4", "open_hevc.mp4", "vp9.webm", "av1.mkv", "stream.ts"])
def test_only_groups_with_a_wanted_frame_are_decoded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_video(write_clip(tmp_path / name, 96, **GROUPS[name]))
    given: list[int] = []
    plain = Decoder.decode

    def counting(self: Decoder, packet: Any, position: int, wanted: bool = True) -> Any:
        given.append(position)
        return plain(self, packet, position, wanted)

    monkeypatch.setattr(Decoder, "decode", counting)
    decode_frames(index, [18, 90])
    assert 0 < len(given) <= 40
    given.clear()
    decode_frames(index, [95])
    assert len(given) <= 30


def test_beginning_where_a_container_says_keyframe_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant takes every keyframe of an open group for one after which nothing before is needed."""
    index = index_video(write_clip(tmp_path / "open.mp4", 48, **GROUPS["open.mp4"]))
    assert np.count_nonzero(index.flags & OPEN) >= 2
    whole = decode_frames(index, range(48)).pixels
    monkeypatch.setattr(video, "_begin", lambda index, begins, at: int(begins[begins <= at][-1]))
    wrong = 0
    for number in range(48):
        try:
            wrong += not np.array_equal(decode_frames(index, [number]).pixels[0], whole[number])
        except MediaError:
            wrong += 1
    assert wrong


def test_a_seek_that_leads_elsewhere_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_video(write_clip(tmp_path / "a.mp4", 60, **GROUPS["closed.mp4"]))
    together = decode_frames(index, range(60)).pixels
    monkeypatch.setattr(video, "SEEK_BYTES", 0)
    sought = []

    class Astray:
        def __init__(self, container: Any) -> None:
            self.container = container

        def seek(self, offset: int, **options: Any) -> None:
            sought.append(offset)
            self.container.seek(int(index.pts.max()), **options)  # past what is wanted

        def demux(self, stream: Any) -> Any:
            return self.container.demux(stream)

    plain = video._Packets.__init__
    monkeypatch.setattr(
        video._Packets, "__init__", lambda self, index, container, *more: plain(self, index, Astray(container), *more)
    )
    assert np.array_equal(decode_frames(index, [30, 40]).pixels, together[[30, 40]])
    assert sought


# -- what is before the first picture ----------------------------------------------------------------------------------

STARTS: dict[str, dict[str, Any]] = {
    "h264.ts": GROUPS["closed.mp4"],
    "h264.mkv": GROUPS["open.mp4"],
    "hevc.ts": GROUPS["open_hevc.mp4"],
    "hevc.mp4": GROUPS["open_hevc.mp4"],
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "mpeg2.mkv": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "mpeg4.mkv": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "vp8.mkv": {"codec": "libvpx", "options": {"g": "12", "cpu-used": "8"}},
    "vp9.mkv": {"codec": "libvpx-vp9", "options": {"g": "12", "cpu-used": "8"}},
}


@pytest.mark.parametrize("name", STARTS)
def test_what_cannot_be_decoded_at_the_start_is_no_frame(name: str, tmp_path: Path) -> None:
    """A recording that began in the middle of a group, and a segment that begins with an open one."""
    whole = write_clip(tmp_path / ("whole." + name.partition(".")[2]), 48, **STARTS[name])
    for first in (5, 12, 13):
        path = remux(whole, tmp_path / name, first=first)
        found = all_numbers(path)
        assert found == list(range(found[0], 48))
        assert 0 < found[0] <= 25
        index = index_video(path)
        assert numbers(decode_frames(index, [0, index.total // 2]).pixels) == [found[0], found[len(found) // 2]]


# -- times -------------------------------------------------------------------------------------------------------------


def test_a_time_that_is_there_twice_leaves_the_others_true(tmp_path: Path) -> None:
    times = [3 * i * i for i in range(30)]
    plain = write_clip(tmp_path / "plain.mkv", 30, times_ms=times, options={"bf": "0"})
    path = tmp_path / "twice.mkv"
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            packet.stream = stream
            if number == 20:
                packet.pts = packet.dts = times[19]
            new.mux(packet)
    times[20] = times[19]
    index = index_video(path)
    assert all_numbers(path) == list(range(30))
    np.testing.assert_allclose(index.seconds, np.array(times) / 1000, atol=0.002)  # type: ignore[arg-type]


def forced(path: Path, types: str) -> Path:
    """A clip whose encoder may use pictures of any type, and uses these, over and over."""
    with av.open(str(path), "w") as movie:
        options = {"bf": "2", "g": "250", "x264-params": "b-adapt=0"}
        stream = movie.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number in range(60):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = number
            frame.pict_type = av.video.frame.PictureType[types[number % len(types)]]
            movie.mux(stream.encode(frame))
        movie.mux(stream.encode(None))
    return path


def timed_as_stored(path: Path, target: Path) -> Path:
    """The packets of a clip, with the times in which they are decoded in the place of those in which they are shown."""
    with av.open(str(path)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        first = packets[0].dts
        for packet in packets:
            packet.stream = stream
            packet.pts = packet.dts = packet.dts - first
            new.mux(packet)
    return target


@pytest.mark.parametrize("types", ["P", "IPPPP"])
def test_a_stream_that_might_reorder_and_does_not_is_not_decoded_to_count_it(types: str, tmp_path: Path) -> None:
    path = forced(tmp_path / "a.mp4", types)
    with av.open(str(path)) as movie:
        assert movie.streams.video[0].codec_context.has_b_frames
    assert not index_video(path).counted
    assert all_numbers(path) == list(range(60))


def test_opened_quickly_a_file_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_clip(tmp_path / name, 40, **GROUPS[name]) for name in ("closed.mp4", "open.mp4", "open_hevc.mp4")]
    paths.append(write_clip(tmp_path / "mpeg4.mp4", 40, codec="mpeg4", options={"g": "12", "bf": "2"}))
    numbers = [3, 17, 18, 39]
    quick = [(index_video(path), decode_frames(index_video(path), numbers).pixels) for path in paths]
    monkeypatch.setattr(container, "_SAYS_ALL", ())
    for path, (index, pixels) in zip(paths, quick, strict=True):
        slow = index_video(path)
        for name, value in vars(slow).items():
            assert np.array_equal(getattr(index, name), value), (path.name, name)
        assert np.array_equal(decode_frames(slow, numbers).pixels, pixels)


def test_what_a_quick_opening_does_not_find_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "a.mp4", 40)
    index = index_video(path)
    truth = decode_frames(index, [7, 30]).pixels
    opened = video.opened_video
    tried = []

    def blind(path: Path, *, track: int, quick: bool) -> Any:
        tried.append(quick)
        if quick:
            raise MediaError("there is nothing to see")
        return opened(path, track=track)

    monkeypatch.setattr(video, "opened_video", blind)
    assert np.array_equal(decode_frames(index, [7, 30]).pixels, truth)
    assert tried == [True, False]


def test_times_that_stand_in_for_others_are_told_by_the_order_of_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = timed_as_stored(forced(tmp_path / "a.mp4", "PBB"), tmp_path / "b.mp4")
    assert index_video(path).counted
    assert all_numbers(path) == list(range(60))
    monkeypatch.setattr(H264, "watch", lambda self, unit, idr: None)
    assert all_numbers(path) != list(range(60))


def test_where_a_file_has_no_times_there_are_no_seconds(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "raw.h264", 20, format="h264")
    assert all_numbers(path) == list(range(20))
    assert index_video(path).seconds is None
    assert decode_frames(index_video(path), [3]).timestamps_s is None


# -- damage ------------------------------------------------------------------------------------------------------------


def spoil(path: Path, target: Path, position: int, seed: int = 1) -> Path:
    """The same file with wrong bytes in one packet."""
    with av.open(str(path)) as movie:
        hit = [packet for packet in movie.demux(video=0) if packet.size][position]
        at, size = hit.pos, hit.size
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    for where in random.integers(at + min(24, size // 2), at + size, 8):
        data[where] = random.integers(256)
    target.write_bytes(data)
    return target


def taken(whole: Path, damaged: Path) -> tuple[set[int], set[int]]:
    """(numbers of frames that are accepted alone, those of them that are not those of the whole file)."""
    truth = index_video(whole)
    index = index_video(damaged)
    right = decode_frames(truth, range(truth.total), (64, 64)).pixels
    good, wrong = set(), set()
    for number in range(index.total):
        with suppress(MediaError):
            pixels = decode_frames(index, [number], (64, 64)).pixels[0]
            good.add(number)
            if number >= truth.total or not np.array_equal(pixels, right[number]):
                wrong.add(number)
    return good, wrong


def test_damage_is_followed_until_a_gradual_refresh_is_complete(tmp_path: Path) -> None:
    options = {"bf": "0", "g": "20", "sc_threshold": "0", "x264-params": "intra-refresh=1"}
    whole = write_clip(tmp_path / "whole.mp4", 80, width=320, height=192, options=options)
    index = index_video(whole)
    assert (index.flags & CLEAN).nonzero()[0].tolist() == [0]
    complete = (index.flags & WHOLE).nonzero()[0]
    assert len(complete) >= 2
    good, wrong = taken(whole, spoil(whole, tmp_path / "damaged.mp4", 12))
    assert not wrong
    # All is whole again after the first refresh that began after the damage.
    again = int(next(at for at in complete if index.begun[at] > 12))
    assert set(range(again, 80)) <= good
    assert good >= set(range(12))


def test_points_of_refresh_taken_for_keyframes_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"bf": "0", "g": "20", "sc_threshold": "0", "x264-params": "intra-refresh=1"}
    whole = write_clip(tmp_path / "whole.mp4", 80, width=320, height=192, options=options)
    damaged = spoil(whole, tmp_path / "damaged.mp4", 12)
    plain = Scan.__init__

    def believing(self: Scan, *arguments: Any) -> None:
        plain(self, *arguments)
        self.flags = self.flags | np.where(self.flags & KEY, WHOLE, 0).astype(np.uint8)
        self.begun = np.arange(len(self.flags), dtype=np.int32)

    monkeypatch.setattr(Scan, "__init__", believing)
    assert taken(whole, damaged)[1]


def test_the_checksums_of_ffv1_are_believed(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mkv", 36, codec="ffv1", options={"g": "12", "level": "3", "slicecrc": "1"})
    good, wrong = taken(whole, spoil(whole, tmp_path / "damaged.mkv", 17))
    assert not wrong
    assert good == set(range(17)) | set(range(24, 36))


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video"])
@pytest.mark.parametrize("container", ["avi", "mkv"])
def test_a_picture_that_is_lost_does_not_change_the_numbers_of_others(
    codec: str, container: str, tmp_path: Path
) -> None:
    whole = write_clip(tmp_path / f"whole.{container}", 48, codec=codec, options={"g": "12", "bf": "2"})
    for position in (13, 14, 24):
        for seed in range(4):
            _, wrong = taken(whole, spoil(whole, tmp_path / f"damaged.{container}", position, seed))
            assert not wrong


# -- which track, and what a file is -----------------------------------------------------------------------------------


def two_tracks(path: Path, stills: int, moving: int, default: str = "still") -> Path:
    """Tracks of one picture and of ten."""
    with av.open(str(path), "w") as movie:
        tracks = []
        for kind in ["still"] * stills + ["moving"] * moving:
            track = movie.add_stream("mjpeg" if kind == "still" else "libx264", rate=25)
            track.width, track.height = 160, 96
            track.pix_fmt = "yuvj420p" if kind == "still" else "yuv420p"
            track.disposition = av.stream.Disposition.default if kind == default else av.stream.Disposition(0)
            tracks.append((kind, track))
        for kind, track in tracks:
            for number in range(10 if kind == "moving" else 1):
                frame = av.VideoFrame.from_ndarray(picture(number + (0 if kind == "moving" else 500)), format="rgb24")
                frame.pts = number
                movie.mux(track.encode(frame))
            movie.mux(track.encode(None))
    return path


def test_artwork_is_not_the_video_whatever_it_is_marked_as(tmp_path: Path) -> None:
    assert all_numbers(two_tracks(tmp_path / "art.mkv", 1, 1)) == list(range(10))
    assert all_numbers(two_tracks(tmp_path / "marked.mkv", 1, 1, "moving")) == list(range(10))
    assert all_numbers(two_tracks(tmp_path / "alone.mkv", 1, 0)) == [500]
    message = refused(two_tracks(tmp_path / "several.mkv", 1, 2), "several video streams")
    assert "1 and 2" in message


LISTS: dict[str, tuple[bytes, str]] = {
    "concat.mp4": (b"ffconcat version 1.0\nfile 'other.mp4'\n", "ffconcat"),
    "list.mp4": (b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nother.mp4\n#EXT-X-ENDLIST\n", "HLS"),
    "list.m3u8": (b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nother.mp4\n#EXT-X-ENDLIST\n", "HLS"),
    "dash.mpd": (b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>', "DASH"),
    "session.sdp": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96\n", "SDP"),
    "plain.txt": (b"other.mp4\nother.mp4\n", ""),
    "pointer.mp4": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "Git LFS"),
    "page.mp4": (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
    "moves.webp": (b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\2\0\0\0\0\0\0\0\0\0ANIM" + bytes(30), "WebP image that moves"),
    "hole.mp4": (bytes(4096), "zeros"),
}


@pytest.mark.parametrize("name", LISTS)
def test_only_a_file_that_holds_the_pictures_is_read(name: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "other.mp4", 5)
    content, says = LISTS[name]
    (tmp_path / name).write_bytes(content)
    assert says in refused(tmp_path / name, "not media that can be decoded")


@pytest.mark.parametrize("name", ["a%03d.png", "a001.png", "a001.jpg"])
def test_pictures_are_no_video(name: str, tmp_path: Path) -> None:
    for number in (0, 1, 2):
        with av.open(str(tmp_path / f"a{number:03}.{name[-3:]}"), "w", format="image2") as one:
            track = one.add_stream("png" if name.endswith("png") else "mjpeg", rate=25)
            track.width, track.height = 160, 96
            track.pix_fmt = "rgb24" if name.endswith("png") else "yuvj420p"
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            one.mux(track.encode(frame))
            one.mux(track.encode(None))
    if "%" in name:
        (tmp_path / name).write_bytes((tmp_path / "a001.png").read_bytes())
    refused(tmp_path / name, "it is an image")


def test_what_is_encrypted_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "locked.mp4"
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    with av.open(str(path), "w", options=options) as movie:
        stream = movie.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            movie.mux(stream.encode(frame))
        movie.mux(stream.encode(None))
    with pytest.raises(MediaError, match=r"^locked\.mp4 is encrypted: it is whole") as caught:
        index_video(path)
    assert caught.value.path == path  # of the record; folders above it may be called anything
    assert not re.search("damaged|copy or download", str(caught.value))


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.avi", "a.flv", "a.mpg", "a.mp4"])
def test_a_hole_is_not_walked_through(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end, in the place of everything, and before more."""
    monkeypatch.setattr(source, "MOST_ZEROS", 1 << 20)
    codec = {"a.avi": "mpeg4", "a.mpg": "mpeg2video"}.get(name, "libx264")
    path = write_clip(tmp_path / name, 10, codec=codec)
    whole = path.read_bytes()
    with open(path, "ab") as file:
        file.truncate(len(whole) + (8 << 20))
    read: list[int] = []
    plain = source.Reading.read

    def counting(self: source.Reading, size: int) -> bytes:
        data = plain(self, size)
        read.append(len(data))
        return data

    monkeypatch.setattr(source.Reading, "read", counting)
    assert all_numbers(path) == list(range(10))
    assert sum(read) < 24 << 20  # of an index and a decode, each of which opens and reads
    if name != "a.mp4":
        with open(path, "ab") as file:
            file.write(whole)
        refused(path, "has a hole")
    empty = tmp_path / f"empty_{name}"
    with open(empty, "wb") as file:
        file.write(whole[:48])
        file.truncate(8 << 20)
    refused(empty, "has a hole|not media|no video|without frames|cannot be decoded")


# -- lengths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.webm", "a.flv", "a.mp4"])
def test_a_file_that_was_cut_off_is_told_by_what_its_header_says(name: str, tmp_path: Path) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "a.avi": {"codec": "mpeg4"},
        "a.webm": {"codec": "libvpx", "options": {"cpu-used": "8"}},
    }
    path = write_clip(tmp_path / name, 75, **kinds.get(name, {}))
    if name == "a.mp4":
        path = remux(path, tmp_path / "fast.mp4", movflags="faststart")
    assert index_video(path).missing_s == 0
    assert all_numbers(path) == list(range(75))
    data = path.read_bytes()
    half = path.with_stem("half")
    half.write_bytes(data[: len(data) // 2])
    index = index_video(half)
    assert 10 < index.total < 65
    assert index.missing_s == pytest.approx(3 - index.total / 25, abs=0.13)


def test_a_file_that_ends_within_its_table_of_contents_is_refused(tmp_path: Path) -> None:
    """Of two tracks only one would be known, which need not be the one that is meant."""
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as movie:
        streams = [movie.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream, (width, height) in zip(streams, ((64, 48), (160, 96)), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(20):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture(number, stream.width, stream.height), format="rgb24")
                frame.pts = number
                movie.mux(stream.encode(frame))
        for stream in streams:
            movie.mux(stream.encode(None))
    data = path.read_bytes()
    index = index_video(path)
    second = data.rindex(b"trak") - 4
    cut = tmp_path / "cut.mp4"
    for end in (second, second + 9, len(data) - 60, len(data) - 1):
        cut.write_bytes(data[:end])
        refused(cut, "cut off within its table of contents")
    cut.write_bytes(data + bytes(100))  # what follows it is none of its business
    assert index_video(cut).track == index.track


def test_sound_that_is_longer_than_the_pictures_is_no_cut(tmp_path: Path) -> None:
    """Where a header states one length for all, the longest stream is meant."""
    path = tmp_path / "long_sound.mkv"
    with av.open(str(path), "w") as movie:
        stream = movie.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        tone = movie.add_stream("aac", rate=16000, layout="mono")
        for number in range(25):
            movie.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        movie.mux(stream.encode(None))
        block = av.AudioFrame.from_ndarray(np.zeros((1, 16000 * 3), np.float32), format="fltp", layout="mono")
        block.sample_rate = 16000
        movie.mux(tone.encode(block))
        movie.mux(tone.encode(None))
    data = path.read_bytes().replace(b"\x44\x87\x80\x00", b"\x44\x87\x80\x00").replace(b"DURATION", b"DURATIOX")
    path.write_bytes(data)  # without the lengths of each stream
    assert index_video(path).missing_s == 0


# -- orientation -------------------------------------------------------------------------------------------------------

MATRICES: dict[tuple[int, int, int, int], Callable[[Any], Any]] = {
    (1, 0, 0, 1): lambda image: image,
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),
    (-1, 0, 0, -1): lambda image: np.rot90(image, 2),
    (0, -1, 1, 0): lambda image: np.rot90(image, 1),
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda image: image.swapaxes(0, 1),
    (0, -1, -1, 0): lambda image: np.rot90(image.swapaxes(0, 1), 2),
}


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("error", [0.0, 3 / 65536])
def test_each_of_eight_orientations_is_followed(
    matrix: tuple[int, int, int, int], error: float, tmp_path: Path
) -> None:
    """As a picture shown by the matrix would be, also where its zeros are rounded."""
    path = write_clip(tmp_path / "a.mp4", 4, pix_fmt="yuv444p")
    size = (96, 160) if matrix[0] else (160, 96)
    flat = decode_frames(index_video(path), [3], (96, 160)).pixels[0]
    orient(path, [value + error * sign for value, sign in zip(matrix, (1, -1, 1, -1), strict=True)])
    shown = decode_frames(index_video(path), [3], size).pixels[0]
    assert np.abs(shown.astype(int) - MATRICES[matrix](flat)).mean() < 2


@pytest.mark.parametrize("matrix", [(0.7071, 0.7071, -0.7071, 0.7071), (1, 0.2, 0, 1), (0, 0, 0, 0)])
def test_other_orientations_are_refused(matrix: tuple[float, ...], tmp_path: Path) -> None:
    path = orient(write_clip(tmp_path / "a.mp4", 2), matrix)
    with pytest.raises(MediaError, match="by something else than quarters"):
        decode_frames(index_video(path), [0])


# -- marks -------------------------------------------------------------------------------------------------------------


def test_hidden_pictures_of_vp8_are_no_frames(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "a.webm",
        60,
        codec="libvpx",
        width=320,
        height=192,
        options={"auto-alt-ref": "1", "lag-in-frames": "16", "g": "60", "b": "100k", "arnr-maxframes": "5"},
    )
    assert all_numbers(path) == list(range(60))
    with av.open(str(path)) as movie:
        from featurestore.media.bitstream import bitstream_of

        stream = movie.streams.video[0]
        bits = bitstream_of(stream.codec_context.name, stream.codec_context.extradata)
        assert bits is not None
        hidden = sum(
            bool(bits.look(memoryview(packet), at) & HIDDEN)
            for at, packet in enumerate(packet for packet in movie.demux(stream) if packet.size)
        )
    assert len(index_video(path).pts) == 60 + hidden


def test_a_stream_that_changes_on_the_way_is_counted_by_the_decoder(tmp_path: Path) -> None:
    """Two recordings joined in one transport stream, of other sizes."""
    one = write_clip(tmp_path / "one.ts", 20)
    other = write_clip(tmp_path / "other.ts", 20, width=320, height=192)
    shifted = remux(other, tmp_path / "later.ts", 5.0)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() + shifted.read_bytes())
    index = index_video(joined)
    assert index.counted
    assert all_numbers(joined) == [*range(20), *range(20)]


def test_the_digest_is_that_of_the_whole_file(tmp_path: Path) -> None:
    """The scan and the digest share one read, which a table at the end of the file interrupts."""
    import hashlib

    for name in ("a.mp4", "a.mkv", "a.ts", "a.avi"):
        path = write_clip(tmp_path / name, 30, codec="mpeg4" if name == "a.avi" else "libx264", sound=name == "a.mp4")
        with open(path, "ab") as file:
            file.write(bytes(3 << 20))
        assert index_video(path).source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()

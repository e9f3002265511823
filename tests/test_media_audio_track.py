"""Sounds as the world writes them: of a length nobody knew, in parts that follow each other, of formats that change."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from audio_factories import KINDS, Samples, id3, pitch, retimed, tone, write_sound
from media_factories import write_clip

from featurestore.errors import MediaError
from featurestore.media import extent, read_audio
from featurestore.media.container import named
from featurestore.media.resampling import Mono

CLOSE = 1e-4


def heard(path: Path) -> Samples:
    return read_audio(path).samples


def refused(path: Path, text: str) -> None:
    with pytest.raises(MediaError, match=text) as caught:
        read_audio(path)
    assert str(path) in str(caught.value)
    assert caught.value.deterministic


def two_tones(samples: Samples, seconds: float, slack: float = 0.001) -> None:
    """440 Hz, and then 880 Hz in the second half."""
    assert len(samples) / 16_000 == pytest.approx(seconds, abs=slack)
    assert pitch(samples, 0.5) == pytest.approx(440, abs=3)
    assert pitch(samples, seconds - 1) == pytest.approx(880, abs=3)


# -- every container -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_read_to_its_end(name: str, tmp_path: Path) -> None:
    """440 Hz for two seconds, 880 Hz for two more; what codecs add at the end is silence."""
    rate = KINDS[name][1]
    channels = 1 if name == "a.amr" else 2
    samples = heard(
        write_sound(tmp_path / name, np.concatenate([tone(2, 440, rate, channels), tone(2, 880, rate, channels)]), name)
    )
    two_tones(samples, 4, 0.06)
    assert pitch(samples, 3.4) == pytest.approx(880, abs=3)


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC"])
def test_samples_that_are_stored_are_those_of_libsndfile(kind: str, tmp_path: Path) -> None:
    """Of any width, to the last bit; also where the name says something else."""
    values = np.random.default_rng(5).uniform(-0.9, 0.9, 40_000).astype(np.float32)
    for subtype in sorted(soundfile.available_subtypes(kind)):
        if subtype not in (
            "PCM_S8",
            "PCM_U8",
            "PCM_16",
            "PCM_24",
            "PCM_32",
            "FLOAT",
            "DOUBLE",
            "ULAW",
            "ALAW",
            "ALAC_16",
        ):
            continue
        path = tmp_path / f"{subtype}.mp3"
        soundfile.write(path, values, 16_000, format=kind, subtype=subtype)
        assert np.array_equal(heard(path), soundfile.read(path, dtype="float32")[0]), subtype


def test_ogg_of_one_page_is_neither_longer_nor_shorter(tmp_path: Path) -> None:
    """FFmpeg alone gives 47,744 of 48,000 samples; libsndfile has them all."""
    for count in (100, 700, 3_000, 20_000, 48_000):
        path = tmp_path / "a.ogg"
        soundfile.write(path, tone(3)[:count, 0], 16_000, format="OGG")
        right, _ = soundfile.read(path, dtype="float32")
        samples = heard(path)
        assert len(right) == count
        assert np.abs(samples[:count] - right).max() < 1e-6
        assert not samples[count:].any()


# -- lengths that are stated, estimated, unknown -------------------------------------------------------


@pytest.mark.parametrize("name", ["bare.mp3", "bare_vbr.mp3", "adts.aac"])
def test_a_guess_of_the_length_is_no_statement(name: str, tmp_path: Path) -> None:
    """Silence first, so that a guess from the rate of its bits is much too high; then loud, where it is too low."""
    rate = KINDS[name][1]
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, (3 * rate, 1)).astype(np.float32)
    quiet = np.zeros((5 * rate, 1), np.float32)
    for parts in ((quiet, noise), (noise, quiet)):
        samples = heard(write_sound(tmp_path / name, np.concatenate(parts), name))
        assert len(samples) / 16_000 == pytest.approx(8, abs=0.1)
        loud = np.abs(samples[16_000:32_000]).max(), np.abs(samples[6 * 16_000 : 7 * 16_000]).max()
        assert (loud[0] > 0.1) == (parts[0] is noise)
        assert (loud[1] > 0.1) == (parts[1] is noise)


@pytest.mark.parametrize("length", [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF - 36, 0xFFFFFFFF])
def test_a_wav_whose_length_was_not_known_is_read_to_its_end(length: int, tmp_path: Path) -> None:
    data = write_sound(tmp_path / "pcm.wav", tone(3)).read_bytes()
    at = data.index(b"data") + 4
    path = tmp_path / "piped.wav"
    path.write_bytes(data[:at] + struct.pack("<I", length) + data[at + 4 :])
    assert np.array_equal(heard(path), heard(tmp_path / "pcm.wav"))


def test_an_empty_wav_with_something_after_it_is_empty(tmp_path: Path) -> None:
    data = write_sound(tmp_path / "pcm.wav", tone(3)).read_bytes()
    at = data.index(b"data")
    tail = data[:at] + b"data\0\0\0\0" + b"LIST" + struct.pack("<I", 16) + b"INFOISFT\4\0\0\0abc\0"
    (tmp_path / "a.wav").write_bytes(tail[:4] + struct.pack("<I", len(tail) - 8) + tail[8:])
    refused(tmp_path / "a.wav", "0 samples")


def test_a_flac_whose_length_was_not_known_is_read_to_its_end(tmp_path: Path) -> None:
    data = bytearray(write_sound(tmp_path / "a.flac", tone(3)).read_bytes())
    data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0, 0])  # samples in STREAMINFO
    data[26:42] = bytes(16)
    (tmp_path / "piped.flac").write_bytes(data)
    assert np.array_equal(heard(tmp_path / "piped.flac"), heard(tmp_path / "a.flac"))


def test_a_webm_that_was_written_into_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "opus.webm", tone(3, rate=48_000), live="1")
    assert len(heard(path)) == pytest.approx(48_000, abs=400)


# -- parts that follow each other ----------------------------------------------------------------------

JOINED = """cbr.mp3 vbr.mp3 bare.mp3 adts.aac opus.ogg vorbis.ogg flac.ogg pcm.wav pcm.aiff pcm.au pcm.caf aac.m4a
aac.mkv opus.webm aac.ts mp2.mpg a.ac3 mp3.avi aac.flv wma.wma a.tta"""


@pytest.mark.parametrize("name", JOINED.split())
def test_sounds_joined_end_to_end_are_one_sound(name: str, tmp_path: Path) -> None:
    rate = KINDS[name][1]
    first = write_sound(tmp_path / f"1{name}", tone(2, 440, rate, 2), name)
    second = write_sound(tmp_path / f"2{name}", tone(2, 880, rate, 2), name)
    (tmp_path / name).write_bytes(first.read_bytes() + second.read_bytes())
    samples = heard(tmp_path / name)
    two_tones(samples, 4, 0.2 if name == "mp3.avi" else 0.1)
    if name in ("cbr.mp3", "vbr.mp3", "opus.ogg", "flac.ogg", "pcm.wav", "pcm.aiff", "pcm.au", "pcm.caf", "a.tta"):
        right = np.concatenate([heard(first), heard(second)])
        assert len(samples) == len(right) == 64_000
        apart = np.abs(np.arange(64_000) - 32_000) > 200  # where resampling has one of them beside the other
        assert np.abs(samples - right)[apart].max() < 1e-6


@pytest.mark.parametrize("name", ["a.flac", "a.amr", "a.wv"])
def test_what_was_joined_and_cannot_be_read_is_refused(name: str, tmp_path: Path) -> None:
    data = write_sound(tmp_path / name, tone(3, rate=KINDS[name][1]), name).read_bytes()
    (tmp_path / f"two_{name}").write_bytes(data * 2)
    refused(tmp_path / f"two_{name}", "damaged|can be decoded")


def test_tags_before_between_and_after_are_left_out(tmp_path: Path) -> None:
    """With pictures in them, in which anything may look like sound."""
    whole = write_sound(tmp_path / "vbr.mp3", tone(2, 440, 44_100))
    bare = write_sound(tmp_path / "bare.mp3", tone(2, 880, 44_100))
    aac = write_sound(tmp_path / "adts.aac", tone(2, 440, 44_100))
    fields = struct.pack("<III", 2000, 64, 1)
    ape = b"APETAGEX" + fields + struct.pack("<I", 0xA0000000) + bytes(8) + b"\xff" * 32
    ape += b"APETAGEX" + fields + struct.pack("<I", 0x80000000) + bytes(8)
    old = b"TAG" + b"\xff\xfb" * 62 + b"a"
    lyrics = b"LYRICSBEGIN" + b"\xff\xfb\x90" * 9 + b"000038LYRICS200"
    path = tmp_path / "tags.mp3"
    path.write_bytes(id3(1 << 20) + whole.read_bytes() + old + id3(70_000) + bare.read_bytes() + ape + lyrics + old)
    audio = read_audio(path)
    assert not audio.cut_off
    (tmp_path / "untagged.mp3").write_bytes(whole.read_bytes() + bare.read_bytes())
    assert np.array_equal(audio.samples, heard(tmp_path / "untagged.mp3"))
    two_tones(audio.samples, 4.05, 0.001)
    (tmp_path / "tags.aac").write_bytes(id3(5_000) + aac.read_bytes() + id3(9_000) + aac.read_bytes() + old)
    assert len(heard(tmp_path / "tags.aac")) == pytest.approx(2 * len(heard(aac)), abs=1)


def test_tags_before_between_and_behind_lossless_sounds_are_left_out(tmp_path: Path) -> None:
    data = write_sound(tmp_path / "a.tta", tone(2, 440, 16_000)).read_bytes()
    old = b"TAG" + bytes(125)
    (tmp_path / "tags.tta").write_bytes(id3(5_000) + data + old + id3(9_000) + data + old)
    assert np.array_equal(heard(tmp_path / "tags.tta"), np.tile(heard(tmp_path / "a.tta"), 2))


def test_the_second_of_two_joined_files_may_be_cut_off(tmp_path: Path) -> None:
    data = write_sound(tmp_path / "a.tta", tone(3, 440, 16_000)).read_bytes()
    for there in (len(data) * 2 // 3, 40, 20):
        (tmp_path / "two.tta").write_bytes(data + data[:there])
        refused(tmp_path / "two.tta", "cut off|damaged|can be decoded")


def test_a_reader_that_ends_with_the_first_sound_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_sound(tmp_path / "a.tta", tone(2, 440, 16_000)).read_bytes()
    (tmp_path / "two.tta").write_bytes(data * 2)
    assert len(heard(tmp_path / "two.tta")) == 64_000
    monkeypatch.setattr(extent, "_true_audio", lambda file, size: size)
    assert len(heard(tmp_path / "two.tta")) == 32_000


def test_raw_aac_with_checksums_is_that_without(tmp_path: Path) -> None:
    """They are left out and not looked at, so any numbers do here."""
    plain = write_sound(tmp_path / "adts.aac", tone(2, 440, 44_100, 2))
    data, protected = plain.read_bytes(), bytearray()
    while data:
        size = (data[3] & 3) << 11 | data[4] << 3 | data[5] >> 5
        head = int.from_bytes(data[:7], "big") + (2 << 13) & ~(1 << 40)
        protected += head.to_bytes(7, "big") + b"\xab\xcd" + data[7:size]
        data = data[size:]
    (tmp_path / "protected.aac").write_bytes(protected)
    assert np.array_equal(heard(tmp_path / "protected.aac"), heard(plain))


def test_chains_of_other_codecs_and_rates(tmp_path: Path) -> None:
    parts = []
    for number, (name, rate) in enumerate([("opus.ogg", 48_000), ("flac.ogg", 44_100), ("vorbis.ogg", 22_050)]):
        parts.append(write_sound(tmp_path / f"{number}.ogg", tone(1.5, 440, rate, 2), name, rate).read_bytes())
    (tmp_path / "a.ogg").write_bytes(b"".join(parts))
    samples = heard(tmp_path / "a.ogg")
    assert len(samples) / 16_000 == pytest.approx(4.5, abs=0.01)
    assert [pitch(samples, at) for at in (0.5, 2, 3.5)] == pytest.approx([440] * 3, abs=3)


def test_recordings_whose_streams_have_other_numbers_are_refused(tmp_path: Path) -> None:
    """The second is in a stream of its own, which a reader of the first does not hear."""
    first = write_sound(tmp_path / "aac.ts", tone(3, 440, 44_100)).read_bytes()
    path = tmp_path / "other.ts"
    write_sound(path, tone(3, 880, 44_100), "aac.ts", mpegts_start_pid="0x300", mpegts_pmt_start_pid="0x1100")
    (tmp_path / "joined.ts").write_bytes(first + path.read_bytes())
    refused(tmp_path / "joined.ts", "begins where another ends")


# -- what changes on the way ---------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "channels"), [(24_000, 1), (48_000, 2), (22_050, 2), (16_000, 1)])
def test_a_tone_stays_that_tone_when_the_format_changes(rate: int, channels: int, tmp_path: Path) -> None:
    first = write_sound(tmp_path / "1.aac", tone(3, 440, 48_000, 1), "adts.aac", 48_000)
    second = write_sound(tmp_path / "2.aac", tone(3, 440, rate, channels), "adts.aac", rate)
    (tmp_path / "a.aac").write_bytes(first.read_bytes() + second.read_bytes() + first.read_bytes())
    samples = heard(tmp_path / "a.aac")
    assert len(samples) / 16_000 == pytest.approx(9, abs=0.3)
    assert [pitch(samples, at) for at in (0.5, 2.2, 3.8, 5.2, 6.8, 8.2)] == pytest.approx([440] * 6, abs=3)


def test_parts_of_any_rate_keep_the_time_exactly() -> None:
    mono = Mono(Path("a.wav"))
    for _ in range(50):
        mono.add(np.ones((2, 1_001), np.float32), 44_100)
        mono.add(np.ones((1, 7), np.float32), 22_050)
        mono.add(np.ones((1, 16), np.float32), 16_000)
    seconds = 50 * (Fraction(1_001, 44_100) + Fraction(7, 22_050) + Fraction(16, 16_000))
    assert mono.seconds == seconds
    assert len(mono.finish(0)) == -(-seconds * 16_000 // 1)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_blocks_give_the_numbers_of_the_whole(rate: int) -> None:
    import soxr

    values = np.random.default_rng(4).uniform(-1, 1, (2, rate * 3 + 5)).astype(np.float32)
    mono = Mono(Path("a.wav"))
    for at in range(0, values.shape[1], 1_152):
        mono.add(values[:, at : at + 1_152], rate)
    samples = mono.finish(0)
    whole = soxr.resample(values.T, rate, 16_000, quality="HQ").mean(axis=1)
    assert np.array_equal(samples[: len(whole)], whole[: len(samples)])
    assert len(samples) == -(-values.shape[1] * 16_000 // rate)


# -- times of a container ------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["mp4", "mkv", "flv", "ts", "wma"])
def test_where_a_container_has_a_gap_there_is_silence(ending: str, tmp_path: Path) -> None:
    name = {"ts": "aac.ts", "wma": "wma.wma"}.get(ending, "aac.m4a")
    source = write_sound(tmp_path / name, tone(4, rate=44_100, channels=2))
    samples = heard(retimed(source, tmp_path / f"gap.{ending}", lambda t: t if t < 2 else t + 1))
    assert len(samples) / 16_000 == pytest.approx(5, abs=0.06)
    assert np.abs(samples[int(2.15 * 16_000) : int(2.9 * 16_000)]).max() < 1e-3
    assert pitch(samples, 3.5) == pytest.approx(440, abs=3)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "flv", "wma"])
def test_times_that_jump_are_damage(ending: str, tmp_path: Path) -> None:
    source = write_sound(tmp_path / ("wma.wma" if ending == "wma" else "aac.m4a"), tone(4, rate=44_100, channels=2))
    refused(retimed(source, tmp_path / f"a.{ending}", lambda t: t if t < 2 else t + 5_000), "times jump by 5000")


def test_a_broadcast_may_begin_its_time_anew(tmp_path: Path) -> None:
    source = write_sound(tmp_path / "aac.ts", tone(4, rate=44_100, channels=2))
    samples = heard(retimed(source, tmp_path / "later.ts", lambda t: t if t < 2 else t + 5_000))
    assert len(samples) / 16_000 == pytest.approx(4.04, abs=0.02)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_sound_that_begins_late_begins_with_its_first_sample(ending: str, tmp_path: Path) -> None:
    source = write_sound(tmp_path / ("aac.ts" if ending == "ts" else "aac.m4a"), tone(3, rate=44_100, channels=2))
    samples = heard(retimed(source, tmp_path / f"late.{ending}", lambda t: t + 1.5))
    assert len(samples) / 16_000 == pytest.approx(3.02, abs=0.03)
    assert np.abs(samples[1_000:2_000]).max() > 0.1


def test_of_several_tracks_the_default_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as movie:
        tracks = [movie.add_stream("aac", rate=48_000, layout="mono") for _ in range(3)]
        for number, track in enumerate(tracks):
            track.disposition = av.stream.Disposition.default if number == 1 else av.stream.Disposition(0)
        for number, track in enumerate(tracks):
            block = av.AudioFrame.from_ndarray(
                tone(3, 300 + 200 * number, 48_000).T.copy(), format="fltp", layout="mono"
            )
            block.sample_rate, block.pts = 48_000, 0
            for packet in (*track.encode(block), *track.encode(None)):
                movie.mux(packet)
    assert pitch(heard(path), 1) == pytest.approx(500, abs=3)


# -- other codecs under known endings ------------------------------------------------------------------


def stored(path: Path, codec: str, rate: int, container: str, **options: str) -> Path:
    KINDS[codec] = (codec, rate, options, {})
    try:
        samples = tone(3, 440, rate, 1 if codec in ("g722", "libopencore_amrnb") else 2)
        return write_sound(path.with_suffix(f".{container}"), samples, codec)
    finally:
        del KINDS[codec]


@pytest.mark.parametrize("codec", ["g722", "adpcm_ms", "adpcm_yamaha", "libmp3lame", "pcm_mulaw", "ac3", "mp2"])
def test_any_codec_in_a_wav(codec: str, tmp_path: Path) -> None:
    rate = 16_000 if codec == "g722" else 44_100
    samples = heard(stored(tmp_path / codec, codec, rate, "wav"))
    assert len(samples) / 16_000 == pytest.approx(3, abs=0.15)
    assert pitch(samples, 1) == pytest.approx(440, abs=3)


def test_what_no_decoder_makes_sense_of_is_named(tmp_path: Path) -> None:
    """AAC without its headers, as FFmpeg itself writes it into a wav and cannot read it."""
    refused(stored(tmp_path / "a", "aac", 44_100, "wav"), r"none of its sound can be decoded \(aac in wav\)")


@pytest.mark.parametrize("name", KINDS)
def test_the_content_decides_and_not_the_ending(name: str, tmp_path: Path) -> None:
    whole = write_sound(tmp_path / name, tone(3, 440, KINDS[name][1], 1 if name == "a.amr" else 2), name)
    right = heard(whole)
    for ending in ("wav", "ogg", "mp4"):
        assert np.array_equal(heard(whole.rename(tmp_path / f"other.{ending}")), right)
        (tmp_path / f"other.{ending}").rename(whole)


# -- memory, and files that change ---------------------------------------------------------------------


def hour_of_stereo(path: Path, minutes: int) -> Path:
    """The same minute over and over, which takes no time to write."""
    with av.open(str(path), "w") as movie:
        stream = movie.add_stream("aac", rate=48_000, layout="stereo", options={"b": "64000"})
        block = av.AudioFrame.from_ndarray(tone(60, 440, 48_000, 2).T.copy(), format="fltp", layout="stereo")
        block.sample_rate, block.pts = 48_000, 0
        data = [bytes(packet) for packet in stream.encode(block)]
        for number in range(len(data) * minutes):
            packet = av.Packet(data[number % len(data)])
            packet.stream, packet.time_base = stream, stream.codec_context.time_base
            packet.pts = packet.dts = number * 1024
            packet.duration = 1024
            movie.mux(packet)
    return path


def test_the_result_is_all_that_grows(tmp_path: Path, long_run: bool) -> None:
    """An hour of stereo at 48 kHz is 230 MB of samples, and 1.4 GB before they are resampled."""
    minutes = 60 if long_run else 5
    path = hour_of_stereo(tmp_path / "a.m4a", minutes)
    code = (
        "import sys, av, soxr\nfrom featurestore.media import read_audio\n"
        # Of this program: what getrusage tells may be that of the one that started it.
        "status = lambda: open('/proc/self/status').read().split()\n"
        "peak = lambda: int(status()[status().index('VmHWM:') + 1]) >> 10\n"
        "before = peak()\nsize = read_audio(sys.argv[1]).samples.nbytes >> 20\nprint(peak() - before - size, peak())"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    more, peak = map(int, done.stdout.split())
    assert more < 30
    assert peak <= 300


def test_memory_says_nothing_about_a_file(tmp_path: Path) -> None:
    """FFmpeg's error of that kind is one of its own and one of memory; the first would be kept as the file's."""
    with pytest.raises(MediaError, match="needs more memory") as caught, named(tmp_path / "a.mp3"):
        av.error.err_check(-12)
    assert not caught.value.deterministic


@pytest.mark.parametrize("where", ["begin_part", "resample", "decode", "finish"])
def test_running_out_of_memory_anywhere_is_not_recorded(where: str, tmp_path: Path, monkeypatch: Any) -> None:
    path = write_sound(tmp_path / "aac.m4a", tone(3, rate=44_100, channels=2))

    def exhausted(*_: Any, **__: Any) -> None:
        raise MemoryError("std::bad_alloc")

    names = {
        "decode": "audio_track.Soundtrack._frames",
        "finish": "resampling.Mono.finish",
        "resample": "resampling.Mono._resample",
        "begin_part": "resampling.Mono._begin_part",
    }
    monkeypatch.setattr(f"featurestore.media.{names[where]}", exhausted)
    with pytest.raises(MediaError, match=r"aac\.m4a needs more memory") as caught:
        read_audio(path)
    assert not caught.value.deterministic


@pytest.mark.parametrize("name", ["pcm.wav", "opus.ogg", "vbr.mp3", "aac.m4a"])
def test_a_file_that_changes_while_it_is_read_is_refused(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    path = write_sound(tmp_path / name, tone(3, rate=KINDS[name][1], channels=2))
    longer = write_sound(tmp_path / f"other_{name}", tone(4, rate=KINDS[name][1], channels=2), name)
    finish = Mono.finish

    def changed(self: Mono, least: int) -> Samples:
        os.replace(longer, path)
        return finish(self, least)

    monkeypatch.setattr(Mono, "finish", changed)
    with pytest.raises(MediaError, match="changed while it was being read") as caught:
        read_audio(path)
    assert not caught.value.deterministic


def test_the_digest_is_that_of_the_whole_file(tmp_path: Path) -> None:
    import hashlib

    for name in KINDS:
        channels = 1 if name == "a.amr" else 2
        path = write_sound(tmp_path / name, tone(2.5, rate=KINDS[name][1], channels=channels), name)
        path.write_bytes(path.read_bytes() + (bytes(5_000) if name in ("cbr.mp3", "pcm.wav") else b""))
        assert read_audio(path).source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest(), name


def test_minutes_of_digital_silence_are_no_hole(tmp_path: Path) -> None:
    """33 MiB of zeros, which end a video, are 18 minutes at 16 kHz."""
    path = tmp_path / "a.wav"
    with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16") as file:
        for _ in range(18):
            file.write(np.zeros(16_000 * 60, np.int16))
        file.write(tone(3))
    samples = heard(path)
    assert len(samples) == 16_000 * (18 * 60 + 3)
    assert pitch(samples, 18 * 60 + 1) == pytest.approx(440, abs=3)


def test_a_clip_keeps_its_sound_where_the_video_is_damaged_elsewhere(tmp_path: Path) -> None:
    """The sound of a whole clip is read without its pictures."""
    path = write_clip(tmp_path / "a.mp4", 75, sound=True)
    right = heard(path)
    with av.open(str(path)) as movie:
        at = next(packet.pos or 0 for number, packet in enumerate(movie.demux(video=0)) if number == 20)
    data = bytearray(path.read_bytes())
    data[at + 20 : at + 40] = bytes(20)
    path.write_bytes(data)
    assert np.array_equal(heard(path), right)

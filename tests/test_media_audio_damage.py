"""Files of sound that end anywhere, and bytes that are changed: right, marked, or refused, as far as can be told."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from audio_factories import KINDS, Samples, tone, write_sound

from featurestore import Sample
from featurestore.compute.preparation import Sampling, windows
from featurestore.errors import MediaError
from featurestore.key import FeatureKey
from featurestore.media import read_audio
from featurestore.media.container import import_av

SEED = 7
CUTS = 50
EDGE = 300  # samples that resampling spreads what is missing over
# Kinds that state no length: what is there is read, and marked where a piece of a packet shows that it was cut.
OPEN = ("bare.mp3", "bare_vbr.mp3", "adts.aac", "aac.ts", "mp2.mpg", "a.ac3", "a.amr")
# The share of files with one to three changed bytes that may sound otherwise without a word: nothing in them tells.
SILENT = {
    "a.flac": 0.0, "flac.ogg": 0.0, "opus.ogg": 0.0, "vorbis.ogg": 0.0, "a.wv": 0.0, "a.tta": 0.0, "a.ac3": 0.0,
    "aac.m4a": 0.35, "fast.mp4": 0.35, "fragments.mp4": 0.35, "aac.mkv": 0.35, "aac.flv": 0.4, "adts.aac": 0.35,
    "aac.ts": 0.4, "vbr.mp3": 0.6, "cbr.mp3": 0.85, "bare.mp3": 0.85, "mp3.avi": 0.85, "wma.wma": 0.75,
    "alac.m4a": 0.6, "alac.caf": 0.6,
}  # fmt: skip


def sounding(name: str) -> Samples:
    """Two and a half seconds in which no two parts are alike."""
    rate, channels = KINDS[name][1], 1 if name == "a.amr" else 2
    count = round(2.5 * rate)
    noise = np.convolve(np.random.default_rng(3).uniform(-0.3, 0.3, count), np.ones(6) / 6, "same")[:, None]
    louder = np.linspace(0.1, 1, count)[:, None]
    return (tone(2.5, 440, rate, channels) * 0.5 + np.repeat(noise, channels, axis=1) * louder).astype(np.float32)


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_ends_anywhere_is_refused_or_marked(name: str, tmp_path: Path, long_run: bool) -> None:
    whole = write_sound(tmp_path / name, sounding(name), name)
    truth, data = read_audio(whole).samples, whole.read_bytes()
    cut = tmp_path / f"cut_{name}"
    unmarked = 0
    for point in range(1, CUTS + 1) if long_run else (1, 17, 34, 50):
        cut.write_bytes(data[: len(data) * point // (CUTS + 1)])
        try:
            audio = read_audio(cut)
        except MediaError:
            continue
        unmarked += not audio.cut_off
        there = np.flatnonzero(audio.samples)[-1] + 1 if len(audio.samples) == 32_000 else len(audio.samples)
        assert there <= len(truth) + EDGE
        assert np.abs(audio.samples - truth[: len(audio.samples)])[: max(there - EDGE, 0)].max(initial=0) < 1e-4
    # One whose cut is between two packets by chance, or two boxes, cannot be told.
    assert unmarked <= (2 if name in OPEN or name == "fragments.mp4" else 0)


@pytest.mark.parametrize("name", OPEN)
def test_a_sound_that_ends_in_a_packet_is_marked_with_all_before(name: str, tmp_path: Path) -> None:
    whole = write_sound(tmp_path / name, sounding(name), name)
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) * 97 // 100 | 1])
    audio = read_audio(whole)
    assert audio.cut_off
    assert len(audio.samples) > 2.2 * 16_000


def test_the_note_of_a_row_says_that_its_sound_was_cut(tmp_path: Path) -> None:
    whole = write_sound(tmp_path / "bare.mp3", sounding("bare.mp3"))
    cut = tmp_path / "cut.mp3"
    cut.write_bytes(whole.read_bytes()[:9_001])
    sampling = Sampling(FeatureKey.parse("mine/audio/HUBERT_LARGE/const_clips/2"), {})
    for path, note in ((whole, None), (cut, {"missing_s": None})):
        preparing = windows(Sample("a", audio=path), sampling, (224, 224), False)
        function, *arguments = next(preparing)
        with pytest.raises(StopIteration) as ended:
            preparing.send(function(*arguments))
        assert ended.value.value.note.get("cut_off") == note


@pytest.mark.parametrize("name", ["bare.mp3", "adts.aac", "aac.ts", "mp2.mpg", "a.ac3"])
def test_a_recording_that_begins_in_a_packet_is_marked(name: str, tmp_path: Path) -> None:
    whole = write_sound(tmp_path / name, tone(4, 440, KINDS[name][1], 2), name)
    data = whole.read_bytes()
    (tmp_path / "x").write_bytes(data[len(data) // 4 + 3 :])
    audio = read_audio(tmp_path / "x")
    assert audio.cut_off
    assert 2.5 * 16_000 < len(audio.samples) < 3.3 * 16_000


@pytest.mark.parametrize("name", SILENT)
def test_changed_bytes_are_told_as_far_as_the_codec_can(name: str, tmp_path: Path, long_run: bool) -> None:
    whole = write_sound(tmp_path / name, sounding(name), name)
    truth, data = read_audio(whole).samples, whole.read_bytes()
    with av.open(str(whole)) as file:
        places = [(packet.pos, packet.size) for packet in file.demux(audio=0) if packet.size and packet.pos is not None]
    random = np.random.default_rng(SEED)
    damaged = tmp_path / f"damaged_{name}"
    rounds = 400 if long_run else 20
    wrong = 0
    for _ in range(rounds):
        changed = bytearray(data)
        for _ in range(random.integers(1, 4)):
            at, size = places[random.integers(len(places))]
            where = min(int(random.integers(at, at + size)), len(data) - 1)
            changed[where] = (changed[where] + random.integers(1, 256)) % 256
        damaged.write_bytes(changed)
        try:
            audio = read_audio(damaged)
        except MediaError:
            continue
        same = len(audio.samples) == len(truth) and np.abs(audio.samples - truth).max() < 1e-4
        wrong += not same and not audio.cut_off
    assert wrong <= SILENT[name] * rounds


def crc16(data: bytes) -> int:
    value = 0xFFFF
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ 0x8005 if value & 0x8000 else value << 1) & 0xFFFF
    return value


def with_checksums(path: Path) -> Path:
    """An MP3 of 64 kbit/s in frames of 80, each with the checksum of its header and side information."""
    with av.open(str(path)) as file:
        frames = [bytes(packet) for packet in file.demux(audio=0) if packet.size]
    made = b""
    for frame in frames:
        side = 17 if frame[3] >> 6 == 3 else 32
        header = bytes([frame[0], frame[1] & 0xFE, 6 << 4 | frame[2] & 0x0F, frame[3]])
        length = 144 * 80_000 // 44_100 + (header[2] >> 1 & 1)
        body = struct.pack(">H", crc16(header[2:] + frame[4 : 4 + side])) + frame[4:]
        made += (header + body).ljust(length, b"\0")
    path.write_bytes(made)
    return path


def test_the_checksum_of_an_mp3_is_looked_at(tmp_path: Path) -> None:
    """Of frames that have one: LAME's option -p."""
    KINDS["alone.mp3"] = (
        "libmp3lame",
        44_100,
        {"b": "64000", "reservoir": "0"},
        {"write_xing": "0", "id3v2_version": "0"},
    )
    try:
        plain = write_sound(tmp_path / "alone.mp3", tone(3, 440, 44_100))
    finally:
        del KINDS["alone.mp3"]
    right = read_audio(plain).samples
    path = with_checksums(plain)
    assert np.abs(read_audio(path).samples - right).max() < 1e-6
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(SEED)
    for _ in range(10):
        changed = bytearray(data)
        frame = int(random.integers(5, 100)) * 261
        at = data.find(b"\xff\xfa", frame)
        changed[at + 6 + random.integers(17)] ^= 1 << random.integers(8)
        path.write_bytes(changed)
        with pytest.raises(MediaError, match="damaged"):
            read_audio(path)


def test_what_a_decoder_tells_to_the_log_is_told_each_time() -> None:
    """PyAV leaves out a message that is the same as the one before: the next file with that damage would be whole."""
    logging = import_av().logging
    logging.set_level(logging.ERROR)
    try:
        for _ in range(3):
            with logging.Capture() as said:
                logging.log(logging.ERROR, "mp3float", "invalid new backstep -1")
            assert len(said) == 1
    finally:
        logging.set_level(None)


def test_a_page_of_ogg_that_is_missing_is_damage(tmp_path: Path) -> None:
    """FFmpeg goes on with the next one."""
    path = write_sound(tmp_path / "opus.ogg", tone(6, 440, 48_000, 2), page_duration="500000")
    data = path.read_bytes()
    pages = [at for at in range(len(data)) if data.startswith(b"OggS", at)]
    path.write_bytes(data[: pages[5]] + data[pages[6] :])
    with pytest.raises(MediaError, match="damaged near byte"):
        read_audio(path)
    path.write_bytes(data[: pages[-1]])
    with pytest.raises(MediaError, match="cut off"):
        read_audio(path)


def test_a_frame_of_flac_that_is_missing_is_damage(tmp_path: Path) -> None:
    whole = write_sound(tmp_path / "a.flac", sounding("a.flac"))
    with av.open(str(whole)) as file:
        at, size = [(packet.pos or 0, packet.size) for packet in file.demux(audio=0)][10]
    data = bytearray(whole.read_bytes())
    del data[at : at + size]
    whole.write_bytes(data)
    with pytest.raises(MediaError, match="damaged"):
        read_audio(whole)
    data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0, 0])  # the number of samples, without which only times tell
    whole.write_bytes(data)
    with pytest.raises(MediaError, match="damaged"):
        read_audio(whole)


def test_an_empty_header_of_every_kind_is_refused(tmp_path: Path) -> None:
    for name in KINDS:
        channels = 1 if name == "a.amr" else 2
        whole = write_sound(tmp_path / name, tone(2.5, rate=KINDS[name][1], channels=channels), name)
        for keep in (1, 8, 12):
            (tmp_path / "x").write_bytes(whole.read_bytes()[:keep])
            with pytest.raises(MediaError):
                read_audio(tmp_path / "x")

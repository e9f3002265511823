"""Sound: the samples of the file, mono at 16 kHz, and windows of two seconds; half a file is an error."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from media_factories import write_clip
from numpy.typing import NDArray

from featurestore.errors import MediaError
from featurestore.media import audio_windows, media_recipe, read_audio, source


def noise(count: int, channels: int = 1) -> NDArray[np.int16]:
    return np.random.default_rng(3).integers(-20000, 20000, (count, channels), np.int16)


def write_wav(path: Path, values: NDArray[np.int16], rate: int = 16_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(values.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(values.tobytes())
    return path


def test_mono_at_16_khz_is_not_touched(tmp_path: Path) -> None:
    values = noise(50_000)
    audio = read_audio(write_wav(tmp_path / "a.wav", values))
    assert audio.samples.dtype == np.float32
    assert np.array_equal(audio.samples, values[:, 0].astype(np.float32) / 32768)
    assert audio.source["size"] == 44 + 100_000


def test_stereo_is_averaged(tmp_path: Path) -> None:
    values = noise(40_000, 2)
    samples = read_audio(write_wav(tmp_path / "a.wav", values)).samples
    np.testing.assert_allclose(samples, values.astype(np.float64).mean(axis=1) / 32768, atol=1e-7)


@pytest.mark.parametrize("channels", [3, 6])
def test_more_channels_are_refused_by_name(channels: int, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", noise(40_000, channels))
    with pytest.raises(MediaError, match=f"{channels} channels; mix it to stereo or mono") as caught:
        read_audio(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("count", [1, 320, 31_999, 32_000])
def test_short_sound_is_padded_with_silence_to_two_seconds(count: int, tmp_path: Path) -> None:
    values = noise(count)
    samples = read_audio(write_wav(tmp_path / "a.wav", values)).samples
    assert len(samples) == 32_000
    assert np.array_equal(samples[:count], values[:, 0].astype(np.float32) / 32768)
    assert not samples[count:].any()


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 24_000, 44_100, 48_000])
def test_other_rates_are_resampled(rate: int, tmp_path: Path) -> None:
    """A tone stays that tone, to 50 dB, and its length is rounded up."""
    count = 3 * rate + 7
    tone = np.sin(np.arange(count) / rate * 2 * np.pi * 440) * 16_000
    samples = read_audio(write_wav(tmp_path / "a.wav", tone.astype(np.int16)[:, None], rate)).samples
    assert len(samples) == -(-count * 16_000 // rate)
    expected = np.sin(np.arange(len(samples)) / 16_000 * 2 * np.pi * 440) * 16_000 / 32768
    middle = slice(2_000, -2_000)
    error = samples[middle] - expected[middle]
    assert 10 * np.log10((expected[middle] ** 2).mean() / (error**2).mean()) > 50


def test_what_16_khz_cannot_hold_does_not_fold_back(tmp_path: Path) -> None:
    """A tone of 12 kHz at 48 kHz would be heard at 4 kHz if it were only thinned out: the mutant is."""
    tone = (np.sin(np.arange(150_000) / 48_000 * 2 * np.pi * 12_000) * 16_000).astype(np.int16)
    samples = read_audio(write_wav(tmp_path / "a.wav", tone[:, None], 48_000)).samples[2_000:-2_000]
    assert np.abs(samples).max() < 1e-4
    assert np.abs(tone[::3]).max() / 32768 > 0.4


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3"])
def test_other_formats_are_read(kind: str, tmp_path: Path) -> None:
    tone = np.sin(np.arange(48_000) / 16_000 * 2 * np.pi * 300).astype(np.float32) * 0.5
    path = tmp_path / f"a.{kind.lower()}"
    soundfile.write(path, tone, 16_000, format=kind)
    samples = read_audio(path).samples
    assert len(samples) == 48_000
    np.testing.assert_allclose(samples[1_000:-1_000], tone[1_000:-1_000], atol=1e-4 if kind == "FLAC" else 0.05)


def test_the_sound_of_a_video(tmp_path: Path) -> None:
    """Named by what it is, not by its ending: the tone of the clip, 440 Hz."""
    path = write_clip(tmp_path / "a.mp4", 75, sound=True).rename(tmp_path / "a.wav")
    samples = read_audio(path).samples
    assert abs(len(samples) - 48_000) <= 1_024
    spectrum = np.abs(np.fft.rfft(samples[8_000:40_000]))
    assert np.argmax(spectrum) / 2 == pytest.approx(440, abs=1)


def test_pcm_in_a_container_has_the_same_samples(tmp_path: Path) -> None:
    values = noise(40_000)
    with av.open(str(tmp_path / "a.mkv"), "w") as movie:
        stream = movie.add_stream("pcm_s16le", rate=16_000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(values.T), format="s16", layout="mono")
        block.sample_rate, block.pts = 16_000, 0
        movie.mux(stream.encode(block))
        movie.mux(stream.encode(None))
    samples = read_audio(tmp_path / "a.mkv").samples
    assert np.array_equal(samples, values[:, 0].astype(np.float32) / 32768)


# -- what is refused -----------------------------------------------------------------------------------


def refused(path: Path, text: str) -> None:
    with pytest.raises(MediaError, match=text) as caught:
        read_audio(path)
    assert str(path) in str(caught.value)


def test_a_video_without_sound_is_refused(tmp_path: Path) -> None:
    refused(write_clip(tmp_path / "a.mp4", 5), "no audio stream")


def test_what_is_no_sound_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    refused(tmp_path / "empty.wav", "is empty")
    (tmp_path / "text.wav").write_text("hello " * 50)
    refused(tmp_path / "text.wav", "not media that can be decoded")
    refused(tmp_path / "missing.wav", "No such file")
    refused(write_wav(tmp_path / "none.wav", noise(0)), "0 samples")


def test_half_a_wav_is_refused(tmp_path: Path) -> None:
    """Readers return what is there without a word."""
    path = write_wav(tmp_path / "a.wav", noise(50_000))
    path.write_bytes(path.read_bytes()[:60_000])
    assert len(soundfile.read(path)[0]) == 29_978
    refused(path, "cut off: its header announces 100000 bytes of sound, and 59956 are there")


@pytest.mark.parametrize("keep", [13, 20, 30, 40])
def test_a_wav_that_ends_in_its_header_is_refused(keep: int, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", noise(50_000))
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "header is cut off")


def test_half_a_flac_or_mp3_is_refused(tmp_path: Path) -> None:
    for kind, text in (("flac", "cut off"), ("mp3", "cut off")):
        path = tmp_path / f"a.{kind}"
        soundfile.write(path, noise(60_000).astype(np.float32)[:, 0] / 40_000, 16_000)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        refused(path, text)


def test_a_wav_whose_writer_could_not_seek_back_is_taken(tmp_path: Path) -> None:
    """ffmpeg writes lengths of 4 GB into a pipe; other chunks may come before the sound."""
    values = noise(40_000)
    data = write_wav(tmp_path / "a.wav", values).read_bytes()
    unknown = struct.pack("<I", 0xFFFFFFFF)
    extra = b"LIST" + struct.pack("<I", 5) + b"INFOa\0"
    path = tmp_path / "piped.wav"
    path.write_bytes(b"RIFF" + unknown + data[8:36] + extra + b"data" + unknown + data[44:])
    assert np.array_equal(read_audio(path).samples, values[:, 0].astype(np.float32) / 32768)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    values = np.zeros(40_000, np.float32)
    values[77] = np.nan
    soundfile.write(tmp_path / "a.wav", values, 16_000, subtype="FLOAT")
    refused(tmp_path / "a.wav", "NaN or infinite")


# -- windows -------------------------------------------------------------------------------------------


def test_windows_are_two_seconds_from_their_starts() -> None:
    samples = np.arange(100_000, dtype=np.float32)
    windows = audio_windows(samples, [0, 5, 68_000])
    assert windows.shape == (3, 32_000)
    assert windows.dtype == np.float32
    assert windows[:, 0].tolist() == [0, 5, 68_000]
    assert windows[:, -1].tolist() == [31_999, 32_004, 99_999]


@pytest.mark.parametrize("starts", [[-1], [68_001], []])
def test_windows_beyond_the_sound_are_refused(starts: list[int]) -> None:
    with pytest.raises(MediaError, match="do not fit into 100000"):
        audio_windows(np.zeros(100_000, np.float32), starts)


def test_windows_do_not_share_memory_with_the_sound() -> None:
    """The encoder subtracts means in place; overlapping views would be changed twice."""
    samples = np.ones(64_000, np.float32)
    windows = audio_windows(samples, [0, 16_000])
    windows[0] = 0
    assert windows[1].all()
    assert samples.all()


def test_the_recipe_names_the_resampler() -> None:
    assert media_recipe("audio", None)["resample"] == "soxr HQ"


# -- sound that is not made here -----------------------------------------------------------------------

SHARED_LENGTHS = {
    "LJ002-0020.wav": 32_000,  # 1.54 s at 22.05 kHz, padded
    "RD_Radio31_000.wav": 128_000,
    "bus_chinese.wav": 54_015,  # 3.375938 s at 48 kHz
    "chinese_poem1.wav": 87_552,  # 24 kHz
    "float32.wav": 32_000,
    "s24_stereo.wav": 32_000,
    "silence.wav": 48_000,
    "sine_mono_s32_44100.wav": 64_000,
    "u8_11k.wav": 48_000,
    "very_short.wav": 32_000,
}


@pytest.mark.parametrize("name", SHARED_LENGTHS)
def test_shared_sound(name: str, shared_media: Path) -> None:
    samples = read_audio(shared_media / "audio" / name).samples
    assert len(samples) == SHARED_LENGTHS[name]
    assert samples.any() == (name != "silence.wav")


@pytest.mark.parametrize(
    ("name", "text"), [("empty.wav", "is empty"), ("trunc_data.wav", "cut off"), ("trunc_header.wav", "cut off")]
)
def test_shared_sound_that_is_damaged_is_refused(name: str, text: str, shared_media: Path) -> None:
    refused(shared_media / "audio" / name, text)


@pytest.mark.parametrize("name", ["liveportrait_d12", "liveportrait_s13", "sadtalker_WDA_a"])
def test_the_wav_of_a_shared_clip_is_its_sound(name: str, shared_media: Path) -> None:
    wav = read_audio(shared_media / "audio" / f"{name}.wav").samples
    clip = read_audio(shared_media / "real" / f"{name}.mp4").samples
    assert abs(len(wav) - len(clip)) <= 32
    shortest = min(len(wav), len(clip))
    assert np.corrcoef(wav[:shortest], clip[:shortest])[0, 1] > 0.999


def test_shared_clips_whose_sound_cannot_be_had_are_refused(shared_media: Path) -> None:
    refused(shared_media / "real" / "lhotse_bbb_5.1audio.mp4", "6 channels")
    refused(shared_media / "synthetic" / "trunc_faststart.mp4", "cut off")
    # Edit lists and uncompressed sound count otherwise in their headers, and are whole.
    for name in ("editlist_cut.mp4", "h264.mov"):
        assert read_audio(shared_media / "synthetic" / name).samples.size > 32_000


@pytest.mark.parametrize("rate", [1, 999, 768_001])
def test_rates_that_no_sound_has_are_refused(rate: int, tmp_path: Path) -> None:
    """A second at 1 Hz would become 16,000 samples: a small file of gigabytes."""
    refused(write_wav(tmp_path / "a.wav", noise(4000), rate), f"says that it has {rate} samples a second")


def test_sound_that_does_not_fit_into_memory_is_told_and_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_wav(tmp_path / "a.wav", noise(4000), 8000)
    monkeypatch.setattr("featurestore.media.resampling.Mono._resample", exhausted)
    with pytest.raises(MediaError, match=r"a\.wav needs more memory") as caught:
        read_audio(path)
    assert not caught.value.deterministic


def exhausted(*_: object, **__: object) -> None:
    raise MemoryError


def test_gigabytes_of_zeros_are_not_taken_for_chunks(tmp_path: Path) -> None:
    """They were walked through eight bytes at a time."""
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF\x00\x00\x00\x00WAVE" + bytes(8 * 20_000))
    refused(path, "a wav without sound")


@pytest.mark.parametrize("step", [source.STEP, 0], ids=["ours", "steps that do not count"])
def test_zeros_behind_the_sound_are_not_walked_through_in_small_steps(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg takes each eight bytes for a chunk and asks twice where it is: ten seconds until there were too many."""
    path = tmp_path / "a.wav"
    form = struct.pack("<HHIIHH", 3, 1, 2**24, 2**24, 1, 8)  # of a codec that is none, so that nothing else is tried
    with path.open("wb") as file:
        file.write(
            b"RIFF" + struct.pack("<I", 836) + b"WAVEfmt \x10\0\0\0" + form + b"data\x20\x03\0\0" + b"\x55" * 800
        )
        file.truncate(8 << 20)
    asked = 0
    seek = source.Span.seek

    def counted(self: source.Span, offset: int, whence: int = 0) -> int:
        nonlocal asked
        asked += 1
        return seek(self, offset, whence)

    monkeypatch.setattr(source.Span, "seek", counted)
    monkeypatch.setattr(source, "STEP", step)
    refused(path, "a codec that cannot be decoded")
    assert asked < 2 * source.MOST_ZEROS // source.STEP if step else asked > 2_000_000

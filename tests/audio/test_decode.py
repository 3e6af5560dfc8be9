"""Any file, rate and number of channels becomes one mono waveform; what is no sound says so in one line."""

import io

import numpy as np
import pytest
import soundfile
import torch

from encoders.audio.decode import decode_audio, read_audio

EPS = torch.finfo(torch.float32).eps


def encoded(samples, rate=16_000, kind="WAV", subtype=None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def tone(seconds=0.5, rate=16_000, hertz=440.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_every_kind_of_file(kind):
    wave = decode_audio(encoded(tone(), kind=kind), 16_000)
    assert wave.dtype == torch.float32
    assert wave.ndim == 1
    assert abs(len(wave) - 8000) < 1200  # MP3 pads
    assert wave.abs().max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44_100, 2), (96_000, 6)])
def test_rates_and_channels(rate, channels):
    sound = tone(0.5, rate)[:, None] * np.linspace(0.5, 1.5, channels)  # their mean is the tone
    wave = decode_audio(encoded(sound, rate, subtype="FLOAT"), 16_000)
    assert len(wave) == 8000
    middle = slice(1000, 7000)
    expected = torch.from_numpy(tone()).float() * (1 if channels > 1 else 0.5)
    torch.testing.assert_close(wave[middle], expected[middle], atol=2e-3, rtol=0)


def test_silence_is_sound():
    assert torch.equal(decode_audio(encoded(np.zeros(100)), 16_000), torch.zeros(100))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "cannot decode"),
        (b"this is a text, whatever its name says", "cannot decode"),
        (encoded(np.zeros(0)), "no samples"),
        (encoded(tone(), kind="FLAC")[:4000], "cannot decode"),
        (encoded(tone(1.0), kind="MP3")[:1200], "cut short: [0-9]+ of 16000 samples"),
        (encoded(np.array([0.0, np.nan]), subtype="FLOAT"), "NaN"),
        (encoded(np.array([0.0, np.inf]), subtype="FLOAT"), "infinite"),
    ],
    ids=["empty", "text", "no samples", "truncated FLAC", "truncated MP3", "NaN", "infinity"],
)
def test_damage_is_named_in_one_line(raw, message):
    with pytest.raises(ValueError, match=message) as caught:
        decode_audio(raw, 16_000)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
def test_a_stretch_is_that_of_the_whole_file(kind, rate):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * rate, 2))
    raw = encoded(sound, rate, kind)
    whole = decode_audio(raw, 16_000)
    for first, count in ((0, 500), (1, 999), (12_345, 16_000), (len(whole) - 7, 7), (40_000, 20_000)):
        told = []
        found = read_audio(io.BytesIO(raw), 16_000, lambda n, at=(first, count): told.append(n) or at)  # noqa: B023
        assert told == [len(whole)]
        # Resampling sums some 40 products of numbers below 1 for a sample.
        torch.testing.assert_close(found, whole[first : first + count], atol=40 * EPS, rtol=0)


def test_of_a_long_file_little_is_read():
    class Counted(io.BytesIO):
        taken = 0

        def readinto(self, buffer):
            n = super().readinto(buffer)
            self.taken += n
            return n

        def read(self, n=-1):
            data = super().read(n)
            self.taken += len(data)
            return data

    for kind in ("WAV", "FLAC"):
        raw = encoded(np.random.default_rng(0).uniform(-0.5, 0.5, 60 * 16_000), kind=kind)
        file = Counted(raw)
        assert len(read_audio(file, 16_000, lambda n: (n // 2, 16_000))) == 16_000
        assert 32_000 < file.taken < len(raw) / 10

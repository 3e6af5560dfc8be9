"""Any file, rate and number of channels becomes one mono waveform; what is no sound says so in one line."""

import io

import numpy as np
import pytest
import soundfile
import torch

from encoders.audio.decode import decode_audio


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

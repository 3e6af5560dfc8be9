"""Every file that libsndfile writes is read, whole and in parts, whatever its codec and its header says."""

import io
import itertools
import struct

import numpy as np
import pytest
import soundfile
import torch

from encoders.audio.decode import LOUDEST, decode_audio, read_audio
from encoders.audio.resample import Ratio

RATE = 16_000
EPS = torch.finfo(torch.float32).eps


def tone(seconds=0.25, rate=RATE, hertz=440.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def encoded(samples, rate=RATE, kind="WAV", subtype=None):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def _writable():
    for kind in soundfile.available_formats():
        # RAW has no header; SD2's is a file of its own, which writing would leave in the working folder.
        if kind in ("RAW", "SD2"):
            continue
        for subtype in soundfile.available_subtypes(kind):
            try:
                yield pytest.param(
                    kind, subtype, encoded(tone(), RATE, kind, subtype), id=f"{kind}-{subtype}"
                )
            except soundfile.LibsndfileError:
                continue


WRITTEN = list(_writable())


def segments_equal(raw, rate=RATE):
    """Every segment read from the file is that of the whole waveform."""
    whole = decode_audio(raw, rate)
    n = len(whole)
    for first, count in (
        (0, n),
        (0, 1),
        (1, 99),
        (n // 2, n // 4),
        (max(0, n - 7), 7),
        (n - 1, 1),
        (n // 3, n),
    ):
        found = read_audio(io.BytesIO(raw), rate, lambda _, at=(first, count): at)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, whole[first : first + count], atol=40 * EPS, rtol=0)
    return whole


@pytest.mark.parametrize(("kind", "subtype", "raw"), WRITTEN)
def test_every_format_and_codec(kind, subtype, raw):
    for rate in (RATE, 11_025):
        wave = segments_equal(raw, rate)
        # Codecs of blocks fill the last one; WVE and XI have but one rate.
        assert kind in ("WVE", "XI") or abs(len(wave) - len(tone(rate=rate))) < 600
        middle = wave[len(wave) // 4 : -len(wave) // 4]
        assert middle.std() == pytest.approx(0.35, abs=0.06)


@pytest.mark.parametrize(
    "rate",
    [1, 7, 400, 4000, 11_024, 12_345, 24_414, 22_051, 44_101, 48_828, 96_001, 97_656, 192_001, 4_000_037],
)
def test_any_rate(rate):
    seconds = max(0.25, 3 / rate)
    wave = segments_equal(encoded(tone(seconds, rate, 100.0), rate, subtype="FLOAT"))
    assert len(wave) == -(-int(seconds * rate) * RATE // rate)
    if rate > 400:
        middle = slice(len(wave) // 4, -len(wave) // 4)
        expected = torch.from_numpy(0.5 * np.sin(2 * np.pi * 100 * np.arange(len(wave)) / RATE)).float()
        torch.testing.assert_close(wave[middle], expected[middle], atol=3e-3, rtol=0)


def test_odd_ratios_use_the_filter_of_the_others(monkeypatch):
    wave = torch.from_numpy(np.random.default_rng(0).uniform(-0.5, 0.5, 4000)).float()
    for file_rate, rate in ((8000, 16_000), (44_100, 16_000), (16_000, 11_025), (48_000, 16_000)):
        usual, exact = Ratio(file_rate, rate), Ratio(file_rate, rate)
        exact._blocks = False
        n = usual.length(len(wave))
        expected = usual.resampled(wave, 0, 0, n)
        torch.testing.assert_close(
            exact.resampled(wave, 0, 0, n), expected, atol=5e-5, rtol=0
        )  # its weights are in float32


@pytest.mark.parametrize("hertz", [1000.0, 5000.0, 7000.0, 8500.0, 9500.0, 11_500.0])
def test_an_odd_ratio_aliases_as_little_as_others(hertz):
    decibels = []
    for rate in (24_414, 24_000):
        wave = decode_audio(encoded(tone(0.5, rate, hertz), rate, subtype="FLOAT"), RATE)[1000:-1000]
        decibels.append(10 * np.log10(wave.square().mean().item() / 0.125))
    assert decibels[0] == pytest.approx(decibels[1], abs=1.0)
    assert hertz < 9000 or decibels[0] < -25


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 32, 255])
@pytest.mark.parametrize("kind", ["WAV", "W64", "CAF", "AIFF"])
def test_channels_are_averaged(channels, kind):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (500, channels))
    wave = segments_equal(encoded(sound, kind=kind, subtype="FLOAT"))
    torch.testing.assert_close(wave, torch.from_numpy(sound).float().mean(1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "AIFF", "CAF", "MP3"])
@pytest.mark.parametrize("rate", [8000, RATE, 24_414, 48_000])
def test_one_sample(kind, rate):
    if rate == 24_414 and kind == "MP3":
        pytest.skip("MP3 has no such rate")
    raw = encoded(np.array([0.5]), rate, kind)
    assert len(decode_audio(raw, RATE)) == -(-RATE // rate)


NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, RATE)
WAV, FLAC, CAF, MP3 = (encoded(NOISE, kind=kind) for kind in ("WAV", "FLAC", "CAF", "MP3"))


def patched(raw, place, new):
    return raw[:place] + new + raw[place + len(new) :]


def flac_of(total):
    return patched(FLAC, 21, bytes([FLAC[21] & 0xF0]) + struct.pack(">I", total))


def mp3_of(**fields):
    """The MP3 file with other numbers in its tag."""
    tag = max(MP3.find(b"Xing"), MP3.find(b"Info"))
    raw = MP3
    for place, name in ((4, "flags"), (8, "frames"), (12, "size")):
        if name in fields:
            raw = patched(raw, tag + place, struct.pack(">I", fields[name]))
    return raw


FRAMES = struct.unpack(">I", MP3[max(MP3.find(b"Xing"), MP3.find(b"Info")) + 8 :][:4])[0]
HEADERS = {
    **{f"WAV of {n:#x} bytes": (patched(WAV, WAV.index(b"data") + 4, struct.pack("<I", n)), WAV)
       for n in (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000)},
    "WAV and RIFF of 0 bytes": (
        patched(patched(WAV, WAV.index(b"data") + 4, bytes(4)), 4, bytes(4)), WAV,
    ),
    "AU of unknown length": (
        patched(encoded(NOISE, kind="AU"), 8, b"\xff" * 4), encoded(NOISE, kind="AU"),
    ),
    "CAF of unknown length": (patched(CAF, CAF.index(b"data") + 4, b"\xff" * 8), CAF),
    "FLAC of unknown length": (flac_of(0), FLAC),
    "FLAC that counts too few": (flac_of(8000), FLAC),
    "FLAC that counts too many": (flac_of(32_000), FLAC),
    "MP3 that counts too few": (mp3_of(frames=FRAMES // 2), MP3),
    "MP3 that counts too many": (mp3_of(frames=2 * FRAMES), MP3),
    "MP3 that counts far too many": (mp3_of(frames=2**31 - 1), MP3),
    "MP3 that counts none": (mp3_of(frames=0), MP3),
    "MP3 after ID3": (b"ID3\x03\0\0\0\0\0\x0a" + bytes(10) + mp3_of(frames=5), MP3),
    "MP3 before ID3": (mp3_of(frames=5) + b"TAG" + bytes(125), MP3 + b"TAG" + bytes(125)),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "right"), HEADERS.values(), ids=HEADERS)
def test_a_header_that_counts_wrong(raw, right):
    wave = segments_equal(raw)
    assert len(wave) == RATE
    torch.testing.assert_close(wave, decode_audio(right, RATE), atol=1e-6, rtol=0)


def without_tag():
    """The MP3 file without its first frame, which only counts the others."""
    return MP3[MP3.index(MP3[:2], 100) :]


@pytest.mark.parametrize("raw", [without_tag(), mp3_of(flags=0)], ids=["no tag", "no number in the tag"])
def test_mp3_without_a_count_is_decoded_to_its_end(raw):
    wave = segments_equal(raw)
    assert len(wave) == FRAMES * 576 - 529  # with the encoder's padding, which only the tag knew


def test_two_mp3_files_in_one():
    assert len(segments_equal(MP3 + MP3)) > 1.9 * RATE


CUT = {
    "FLAC": FLAC[: len(FLAC) // 2],
    "FLAC of unknown length": flac_of(0)[: len(FLAC) // 2],
    "MP3": MP3[: len(MP3) // 2],
    "OGG": encoded(NOISE, kind="OGG")[:5000],
    "CAF": CAF[: len(CAF) // 2],
    "no samples": encoded(NOISE[:0]),
    "no samples in FLAC": FLAC[:42],
    "no samples, but a chunk": encoded(NOISE[:0]) + b"LIST" + struct.pack("<I", 4) + b"INFO",
    "head": WAV[:20],
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("raw", CUT.values(), ids=CUT)
def test_what_is_cut_or_empty_is_damaged(raw):
    with pytest.raises(ValueError, match=r"^(cannot decode the audio|the audio) [^\n]*|: [^\n]*$") as caught:
        decode_audio(raw, RATE)
    assert "object at" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"\0\0\0\x1cftypM4A " + bytes(100), "M4A"), (b"\x1aE\xdf\xa3" + bytes(100), "Matroska"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG"), (b"%PDF-1.7", "PDF"), (b"#!AMR\n", "AMR"),
        (b"0&\xb2u\x8ef\xcf\x11", "WMA"), (b"MThd\0\0\0\6", "MIDI"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
    ],
)  # fmt: skip
def test_other_kinds_of_files_are_unsupported(raw, kind):
    with pytest.raises(ValueError, match=rf"^unsupported audio: a file \(.*{kind}.*, \d+ bytes\)"):
        decode_audio(raw, RATE)


@pytest.mark.parametrize(
    ("value", "message"),
    [(1e20, "a sample of 1e[+]20"), (-1e10, "a sample of 1e[+]10"), (np.inf, "infinite"), (np.nan, "NaN")],
)
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_that_no_sound_has_are_damage(value, message, subtype):
    samples = tone()
    samples[100] = value
    with pytest.raises(ValueError, match=message):
        decode_audio(encoded(samples, subtype=subtype), RATE)


@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0**15, LOUDEST])
def test_integers_kept_as_floats_are_sound(scale):
    wave = decode_audio(encoded(np.array([0.0, -scale, scale]), subtype="FLOAT"), RATE)
    assert wave.tolist() == [0.0, -scale, scale]


def test_all_of_a_table_was_tried():
    kinds = [parameter.values[0] for parameter in WRITTEN]
    assert len(kinds) > 100
    assert {"WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64", "RF64"} <= {*kinds}
    assert len(list(itertools.groupby(kinds))) > 20

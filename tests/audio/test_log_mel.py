"""The front end against a Fourier transform written out."""

import numpy as np
import pytest
import torch

from encoders.audio.log_mel import LogMel


def by_hand(wave, rate=16_000, n_fft=1024, hop=160, n_mels=64, f_min=60.0, f_max=7800.0):
    padded = np.pad(wave, n_fft // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    frames = [padded[i : i + n_fft] * window for i in range(0, len(padded) - n_fft + 1, hop)]
    power = np.abs(np.fft.rfft(frames)) ** 2
    to_mel, to_hertz = (lambda f: 2595 * np.log10(1 + f / 700)), (lambda m: 700 * (10 ** (m / 2595) - 1))
    corners = to_hertz(np.linspace(to_mel(f_min), to_mel(f_max), n_mels + 2))
    hertz = np.linspace(0, rate / 2, n_fft // 2 + 1)
    bank = []
    for low, centre, high in zip(corners, corners[1:], corners[2:], strict=False):
        bank.append(
            np.clip(np.minimum((hertz - low) / (centre - low), (high - hertz) / (high - centre)), 0, None)
        )
    return np.log(np.array(bank) @ power.T + np.finfo(np.float32).eps)


def test_equals_the_definition():
    wave = np.random.default_rng(0).standard_normal(16_000)
    found = LogMel()(torch.from_numpy(wave).float()[None])
    assert found.shape == (1, 1, 64, 101)
    assert LogMel().frames(16_000) == 101
    torch.testing.assert_close(found[0, 0], torch.from_numpy(by_hand(wave)).float(), atol=2e-3, rtol=0)


def test_bands_above_half_the_rate_are_refused():
    with pytest.raises(ValueError, match="7800 Hz is above half the rate, 4000 Hz"):
        LogMel(rate=8000)

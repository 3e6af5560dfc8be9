"""An embedded data set of synthesised tones and noises."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator

RATE, PER_CLASS = 16_000, 100


def synthetic() -> dict[str, list[Any]]:
    """Returns 100 clips of one second of each of ten kinds of sound, as WAV files in memory.

    Pitch, rates, loudness, onset and background noise (0 to 20 dB below the sound) are random but the same
    in every run.
    """
    import soundfile

    random = np.random.default_rng(0)
    clips, labels = [], []
    for name, synthesise in _KINDS.items():
        for _ in range(PER_CLASS):
            buffer = io.BytesIO()
            soundfile.write(buffer, _clip(random, synthesise), RATE, format="WAV", subtype="PCM_16")
            clips.append(buffer.getvalue())
            labels.append(name)
    return {"audio": clips, "label": labels}


def _clip(random: Generator, synthesise: Callable[[Generator, np.ndarray], np.ndarray]) -> np.ndarray:
    n = int(RATE * random.uniform(0.4, 0.9))
    sound = synthesise(random, np.arange(n) / RATE)
    sound = sound / (np.sqrt(np.mean(sound**2)) + 1e-9)
    fade = min(n // 4, int(RATE * random.uniform(0.005, 0.1)))
    sound[:fade] *= np.linspace(0, 1, fade)
    sound[-fade:] *= np.linspace(1, 0, fade)
    clip = 10 ** (-random.uniform(0, 20) / 20) * random.standard_normal(RATE)
    start = random.integers(RATE - n + 1)
    clip[start : start + n] += sound
    return random.uniform(0.1, 0.9) * clip / np.abs(clip).max()


def _pitch(random: Generator, low: float = 200.0, high: float = 2000.0) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def _tone(random: Generator, t: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * _pitch(random) * t)


def _harmonics(random: Generator, t: np.ndarray) -> np.ndarray:
    pitch = _pitch(random, 100, 600)
    return sum((np.sin(2 * np.pi * k * pitch * t) / k for k in range(1, 9)), np.zeros_like(t))


def _glide(random: Generator, t: np.ndarray, octaves: float) -> np.ndarray:
    start = _pitch(random, 400, 1200)
    rate = octaves * np.log(2) / t[-1]
    return np.sin(2 * np.pi * start * np.expm1(rate * t) / rate)


def _rising(random: Generator, t: np.ndarray) -> np.ndarray:
    return _glide(random, t, random.uniform(0.7, 1.5))


def _falling(random: Generator, t: np.ndarray) -> np.ndarray:
    return _glide(random, t, -random.uniform(0.7, 1.5))


def _vibrato(random: Generator, t: np.ndarray) -> np.ndarray:
    pitch, speed = _pitch(random, 400, 2000), random.uniform(4, 9)
    return np.sin(2 * np.pi * pitch * t + 0.05 * pitch / speed * np.sin(2 * np.pi * speed * t))


def _tremolo(random: Generator, t: np.ndarray) -> np.ndarray:
    return _tone(random, t) * (1 + np.sin(2 * np.pi * random.uniform(4, 12) * t))


def _noise(random: Generator, t: np.ndarray) -> np.ndarray:
    return random.standard_normal(len(t))


def _rumble(random: Generator, t: np.ndarray) -> np.ndarray:
    brown = np.cumsum(random.standard_normal(len(t)))
    return brown - np.linspace(brown[0], brown[-1], len(t))


def _bursts(random: Generator, t: np.ndarray) -> np.ndarray:
    return random.standard_normal(len(t)) * (np.sin(2 * np.pi * random.uniform(5, 15) * t) > 0.5)


def _clicks(random: Generator, t: np.ndarray) -> np.ndarray:
    elapsed = np.mod(t, 1 / random.uniform(5, 20))  # since the last click
    return np.exp(-elapsed * 400) * np.sin(2 * np.pi * _pitch(random, 800, 3000) * elapsed)


_KINDS = {
    "tone": _tone,
    "harmonics": _harmonics,
    "rising": _rising,
    "falling": _falling,
    "vibrato": _vibrato,
    "tremolo": _tremolo,
    "noise": _noise,
    "rumble": _rumble,
    "bursts": _bursts,
    "clicks": _clicks,
}

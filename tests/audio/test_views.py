"""Views of clips: the same stretch in both, mixed with the past, normalised by what was measured."""

import io

import numpy as np
import pytest
import soundfile
import torch

from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.views import draw_views, finish_views
from encoders.audio.views import SpectrogramViews
from encoders.audio.waveform_views import WaveformViews

EPS = torch.finfo(torch.float32).eps
PLAIN = {"mixup": 0.0, "fader": 0.0, "canvas": (1.0, 1.0), "scale": (1.0, 1.0), "mean": 0.0, "std": 1.0}


class Clips:
    """Noise of different loudness and length."""

    def __init__(self, n=6, bad=()):
        self.labels, self.classes, self.bad = torch.zeros(n, dtype=torch.int64), ["noise"], bad

    def __len__(self):
        return len(self.labels)

    def raw(self, i):
        return i

    def name(self, i):
        return f"clip {i}"


def decode(i):
    noise = torch.randn(12_000 + 1500 * i, generator=torch.Generator().manual_seed(i))
    return noise * 10.0 ** (-i % 3)


CLIPS = [decode(i) for i in range(6)]


def made(views, epoch=0, rows=range(6)):
    index = torch.tensor(list(rows))
    batch = draw_views(views, [CLIPS[i] for i in rows], torch.zeros(len(index)), 3, epoch, index)
    return finish_views(views, batch)


def test_both_views_hear_the_same_stretch():
    views = SpectrogramViews(seconds=0.5, **PLAIN)
    batch = made(views)
    assert batch.first.shape == (6, 1, 64, 51)
    assert torch.equal(batch.first, batch.second)
    assert not torch.equal(batch.first, made(views, epoch=1).first)
    distorted = made(SpectrogramViews(seconds=0.5, mean=0.0, std=1.0))
    assert not torch.equal(distorted.first, distorted.second)


@pytest.mark.parametrize(
    "change",
    [
        {"mixup": 0.2},
        {"fader": 1.0},
        {"scale": (0.6, 1.5)},
        {"noise": 0.4},
        {"band_mask": 0.5},
        {"time_mask": 0.5},
    ],
)
def test_each_distortion_makes_the_views_differ(change):
    views = SpectrogramViews(seconds=0.5, **{**PLAIN, **change})
    made(views)  # a past to mix with
    batch = made(views, epoch=1)
    assert (batch.first - batch.second).abs().mean() > 1e-3


def test_without_a_past_any_batch_gives_the_same_views():
    views = SpectrogramViews(seconds=0.5, **{**PLAIN, "fader": 1.0, "scale": (0.6, 1.5)})
    whole = made(views)
    for rows in ([2], [5, 0]):
        part = made(views, rows=rows)
        # A band's power has the rounding of the frame's, which is up to a thousand times as much.
        torch.testing.assert_close(part.first, whole.first[rows], atol=1000 * EPS, rtol=0)
        torch.testing.assert_close(part.second, whole.second[rows], atol=1000 * EPS, rtol=0)


def test_the_past_is_a_window_of_whole_clips():
    views = SpectrogramViews(seconds=0.5, memory=4, **{**PLAIN, "mixup": 0.2})
    first = made(views)
    torch.testing.assert_close(views._past, first.first[-4:])
    second = made(views, epoch=1, rows=[1])
    assert len(views._past) == 4
    torch.testing.assert_close(views._past[1:], first.first[-3:])  # the oldest made room
    loudest = first.first.exp().amax()
    assert second.first.exp().amax() <= loudest * 1.0001  # a mixture is never louder than its parts
    assert not torch.equal(second.first, first.first[1:2])


def test_the_oldest_of_the_past_makes_room():
    views = SpectrogramViews(seconds=0.5, memory=4, **{**PLAIN, "mixup": 0.2})
    for values in ([1, 2, 3], [4, 5], [6], [7, 8, 9, 10, 11]):
        views._remember(torch.tensor(values).view(-1, 1, 1, 1).float())
        kept = sorted(int(value) for value in views._past)
        assert kept == sorted([0, *range(1, values[-1] + 1)][-4:])


def test_noise_mixes_in_the_linear_domain():
    views = SpectrogramViews(seconds=0.5, noise=0.5, **PLAIN)
    plain = SpectrogramViews(seconds=0.5, **PLAIN)
    index = torch.arange(6)
    batch = draw_views(views, CLIPS, torch.zeros(6), 3, 0, index)
    x, p = plain.common(batch.first.data).double(), batch.first.parameters
    p = {name: value.double() if value.is_floating_point() else value for name, value in p.items()}
    assert p["noise"].min() < 0.25 < p["noise"].max() < 0.5
    found = views.on_batch(x, p, 0)
    added = found.exp() - (1 - p["noise"]).view(-1, 1, 1, 1) * x.exp()
    level = (added / p["noise"].view(-1, 1, 1, 1)).log()
    for i in range(6):
        share = float(p["noise"][i])
        assert float(level[i].mean()) == pytest.approx(0, abs=0.05)
        assert float(level[i].std()) == pytest.approx(share, rel=0.1)


def test_short_clips_are_padded_and_long_ones_cut():
    views = SpectrogramViews(seconds=1.0, **PLAIN)
    short, long = CLIPS[0], CLIPS[5]
    for offset in (0.0, 0.5, 0.999):
        padded = views.on_record(short, {"offset": torch.tensor(offset)})
        assert len(padded) == 16_000
        assert padded.square().sum() == pytest.approx(float(short.square().sum()))
        cut = views.on_record(long, {"offset": torch.tensor(offset)})
        assert len(cut) == 16_000
        assert cut[0] in long
    assert torch.equal(views.clean(long), long[1750 : 1750 + 16_000])


@pytest.mark.parametrize("rate", [16_000, 11_025])
@pytest.mark.parametrize("views", [SpectrogramViews(seconds=0.7), WaveformViews(seconds=0.7)])
def test_a_file_is_read_as_if_it_were_decoded_whole(views, rate):
    for seconds in (0.3, 0.7, 5.0):
        buffer = io.BytesIO()
        soundfile.write(
            buffer, np.random.default_rng(0).uniform(-1, 1, int(seconds * rate)), rate, format="WAV"
        )
        whole = views.decode(buffer.getvalue())
        for offset in (0.0, 0.4, 0.999):
            parameters = {"offset": torch.tensor(offset)}
            torch.testing.assert_close(
                views.read(buffer, parameters), views.on_record(whole, parameters),
                atol=40 * EPS, rtol=0, equal_nan=True,  # resampling sums some 40 products for a sample
            )  # fmt: skip


def test_statistics_are_those_of_the_training_clips():
    views = SpectrogramViews(seconds=0.5)
    with pytest.raises(ValueError, match="neither given nor measured"):
        views.clean_batch(torch.zeros(1, 8000))
    records = DecodedRecords(Clips(), decode)
    found = views.measure(records)
    mels = np.concatenate([views.log_mel(views.clean(c)[None]).numpy().ravel() for c in CLIPS]).astype(float)
    assert found["mean"] == pytest.approx(mels.mean())
    assert found["std"] == pytest.approx(mels.std(ddof=1))
    cleaned = views.clean_batch(torch.stack([views.clean(c) for c in CLIPS]))
    assert abs(cleaned.mean()) < 1e-4
    assert SpectrogramViews(mean=1.0, std=2.0).measure(records) == {"mean": 1.0, "std": 2.0}
    with pytest.raises(ValueError, match="come together"):
        SpectrogramViews(mean=1.0)

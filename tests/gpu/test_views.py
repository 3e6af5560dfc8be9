"""Views are the same on a GPU as on a CPU: they follow from (seed, epoch, sample, view) alone."""

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_map

from bt_multimodal.views import Views, draw_views, finish_views
from encoders.audio.views import SpectrogramViews
from encoders.audio.waveform_views import WaveformViews
from encoders.image.views import DigitViews, ReferenceViews, SmallImageViews
from encoders.text.views import TextViews

N = 16


def pictures(side, channels=3):
    shape = (side, side + 6, channels) if channels > 1 else (side, side)
    return [np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8) for i in range(N)]


def clips():
    return [torch.randn(9000 + 500 * i, generator=torch.Generator().manual_seed(i)) for i in range(N)]


TEXTS = [("some words of a text, 😀 " * (1 + i % 5)).encode() for i in range(N)]
DISTORTED = {"crop": (0.3, 0.8), "shuffle": 3.0, "delete": 0.3, "mask": 0.2, "mask_spans": 0.2}
SETS = {
    "reference": (lambda: ReferenceViews(size=32), lambda: pictures(60)),
    "small images": (SmallImageViews, lambda: pictures(32)),
    "digits": (DigitViews, lambda: pictures(8, 1)),
    "spectrograms": (lambda: SpectrogramViews(seconds=0.5, mean=0.0, std=1.0), clips),
    "waveforms": (lambda: WaveformViews(seconds=0.5), clips),
    "texts": (lambda: TextViews("bytes", **DISTORTED), lambda: TEXTS),
}


def moved(batch, device):
    return Views(*tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf, batch))


@pytest.mark.parametrize("name", SETS)
def test_views_are_those_of_a_cpu(name):
    make, records = SETS[name]
    found = {}
    for device in ("cpu", "cuda"):
        views = make()  # anew: some remember past samples
        decoded = [raw if isinstance(raw, torch.Tensor) else views.decode(raw) for raw in records()]
        views.to(device)
        for epoch in range(2):  # the second mixes with the first where there is a memory
            batch = draw_views(views, decoded, torch.zeros(N), 3, epoch, torch.arange(N))
            made = finish_views(views, moved(batch, device))
        found[device] = made[:2]

    def close(on_cpu, on_gpu):
        if isinstance(on_cpu, dict):
            assert on_cpu.keys() == on_gpu.keys()
            for key in on_cpu:
                close(on_cpu[key], on_gpu[key])
        elif on_cpu.is_floating_point():
            assert on_gpu.device.type == "cuda"
            torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=2e-3)
            assert (on_gpu.cpu() - on_cpu).abs().mean() < 2e-5
        else:
            assert torch.equal(on_gpu.cpu(), on_cpu)

    for on_cpu, on_gpu in zip(found["cpu"], found["cuda"], strict=True):
        close(on_cpu, on_gpu)

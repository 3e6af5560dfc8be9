"""A training step of the reference recipe on one GPU: time by part, samples a second, and memory.

    python benchmarks/gpu_step.py [--batch 256 512 2048] [--accumulate 1 2]

The step trains a ResNet-50 on 224-pixel pictures with a projector of three layers of 8192, bfloat16 autocast
and LARS (configs/image/imagenet_resnet50.yaml), from decoded and cropped pictures. ``views`` is the device
stage of both views (flips, colours, blur, solarisation). ``loss`` is forward and backward of the loss on
embeddings alone, in both forms. ``step`` is everything: views, network, loss, backward pass and optimiser.
Times are medians of ``--rounds`` runs after two warm-up runs; memory is the peak of PyTorch's allocator.
"does not fit" means that the step needs more memory than the GPU has.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.stages import timed

WIDTH, SIDE = 8192, 224


def median_seconds(run: Callable[[], Any], rounds: int) -> float:
    return statistics.median([timed(run, "cuda")[0] for _ in range(rounds + 2)][2:])


def loss_seconds(batch: int, rounds: int) -> dict[str, float]:
    """Returns the seconds of forward and backward on bfloat16 embeddings, by form of the loss."""
    import torch

    from bt_multimodal import BarlowTwinsLoss

    z = [torch.randn(batch, WIDTH, device="cuda").bfloat16().requires_grad_() for _ in range(2)]
    seconds = {}
    for form in ("gram", "direct"):
        loss = BarlowTwinsLoss(form=form)  # type: ignore[arg-type]
        seconds[form] = median_seconds(lambda loss=loss: torch.autograd.grad(loss(*z).total, z), rounds)
    return seconds


def step(batch: int, accumulate: int, rounds: int) -> tuple[float, float, float] | None:
    """Returns the seconds of the views and of the step, and GiB; ``None`` if the step does not fit."""
    import torch

    from bt_multimodal import LARS, BarlowTwins, BarlowTwinsLoss, Projector
    from bt_multimodal.optim import parameter_groups
    from bt_multimodal.views import Drawn, Views, draw_parameters, finish_views
    from encoders.image.encoders import TorchvisionEncoder
    from encoders.image.views import ReferenceViews

    torch.manual_seed(0)
    views = ReferenceViews(SIDE)
    encoder = TorchvisionEncoder("resnet50", zero_init_residual=True)
    projector = Projector([encoder.features_dim, WIDTH, WIDTH, WIDTH])
    twins = BarlowTwins(encoder, projector, BarlowTwinsLoss(scale=1 / 16), accumulate=accumulate).cuda()
    optimizer = LARS(parameter_groups(twins, 0.024), lr=0.2)
    pictures = torch.randint(0, 256, (2, batch, 3, SIDE, SIDE), dtype=torch.uint8, device="cuda")
    drawn = draw_parameters(views, 0, 0, torch.arange(batch))
    on_gpu = [{name: value.cuda() for name, value in parameters.items()} for parameters in drawn]
    data = Views(*(Drawn(*part) for part in zip(pictures, on_gpu, strict=True)), torch.zeros(batch))

    def run() -> None:
        batch = finish_views(views, data)
        with torch.autocast("cuda", torch.bfloat16):
            total = twins(batch.first, batch.second).total
        total.backward()
        optimizer.step()
        optimizer.zero_grad()

    try:
        views_seconds = median_seconds(lambda: finish_views(views, data), rounds)
        torch.cuda.reset_peak_memory_stats()
        step_seconds = median_seconds(run, rounds)
    except torch.OutOfMemoryError:
        return None
    return views_seconds, step_seconds, torch.cuda.max_memory_allocated() / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 512, 2048])
    parser.add_argument("--accumulate", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    import torch

    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print("batch   K   step s  samples/s  views s  loss s: Gram   direct  memory GiB")
    for batch in arguments.batch:
        losses = loss_seconds(batch, arguments.rounds)
        for count in arguments.accumulate:
            result = step(batch, count, arguments.rounds)
            torch.cuda.empty_cache()
            line = f"{batch:5}{count:4}"
            if result is None:
                print(f"{line}   does not fit", flush=True)
                continue
            views_seconds, seconds, gib = result
            print(
                f"{line}{seconds:9.3f}{batch / seconds:11.0f}{views_seconds:9.3f}{losses['gram']:14.4f}"
                f"{losses['direct']:9.4f}{gib:12.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

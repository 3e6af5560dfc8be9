"""Time and peak memory of a training step in K micro-batches, which compute a large batch's exact loss.

    python benchmarks/accumulate.py [--batch 512] [--counts 1 2 4 8]

The step is forward and backward on the CPU, of a ResNet-18 on 64-pixel pictures with a projector of three
layers of 2048. Each count runs in its own process. Memory is the growth in GiB of the process's peak resident
set during the step, without weights, their gradients and the views. Time is the median of three steps after a
warm-up. Ratios are to one micro-batch.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))


def measure(batch: int, count: int) -> dict[str, float]:
    """Returns a step's seconds, GiB and loss."""
    import torch

    from bt_multimodal import BarlowTwins, BarlowTwinsLoss, Projector
    from encoders.image.encoders import TorchvisionEncoder

    torch.manual_seed(0)
    encoder = TorchvisionEncoder("resnet18")
    projector = Projector([encoder.features_dim, 2048, 2048, 2048])
    twins = BarlowTwins(encoder, projector, BarlowTwinsLoss(), accumulate=count)
    first, second = torch.randn(2, batch, 3, 64, 64)
    for parameter in twins.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times, loss = [], 0.0
    for _ in range(4):
        began = time.perf_counter()
        total = twins(first, second).total
        total.backward()
        loss = total.item()
        times.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": statistics.median(times[1:]), "gib": peak / 2**20, "loss": loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--one", type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measure(arguments.batch, arguments.one)))
        return
    print(f"batch {arguments.batch}\nmicro-batches  seconds  time over one  peak GiB  memory over one")
    base = None
    for count in arguments.counts:
        command = [sys.executable, __file__, "--batch", str(arguments.batch), "--one", str(count)]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        base = base or result
        print(
            f"{count:13}{result['seconds']:9.2f}{result['seconds'] / base['seconds']:15.2f}"
            f"{result['gib']:10.2f}{result['gib'] / base['gib']:17.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

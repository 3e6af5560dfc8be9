"""Estimates a step's compute, traffic and memory on 1 to 64 GPUs, from measured parts and arithmetic.

    python benchmarks/scaling.py [--n 2048] [--d 8192] [--tflops 989] [--share 0.09] [--gbits 400] [--gib 80]

The recipe is the reference: a ResNet-50 on 224-pixel pictures, a projector of three layers of D, bfloat16
autocast. Two figures per sample and view are measured here on a small batch: the floating point operations
(torch's counter, forward and backward) and the bytes that autograd keeps for the backward pass. The rest is
arithmetic, for one GPU of W with n = N / W samples:

* operations: the network's for n * 2 views, and the loss's 8 n N D (two Gram matrices forward, two products
  backward);
* traffic: embeddings (W-1)/W * 2 N D * 2 bytes (a gather in bfloat16); gradients 2 (W-1)/W * P * 4 (a ring);
  BatchNorm 2 views * (2 C + 1 forward, 2 C backward) * 4 * (W-1)/W, with C channels over all layers;
* memory: 12 P (weights, gradients, momentum); the kept bytes of n * 2 views, or of n / K samples of one view
  with micro-batches; and the loss's 4 (4 N D + 4 n D + 2 n N): gathered and standardised embeddings, their
  gradients, rows of the Gram matrices. K is the smallest number that fits the memory;
* seconds: operations over ``--tflops`` (an H100's peak) times ``--share``, the fraction of the peak that
  benchmarks/gpu_step.py reached at 512 samples, and one more forward pass (a third of the whole) if K > 1.
  The speed of the network is an assumption. Sending takes the bytes over ``--gbits``. It overlaps with the
  backward pass, so the step takes between the longer of the two and their sum.

Only a single GPU was measured: an H100 took 1.55 s for 2,048 samples in 2 micro-batches, and 47 GiB.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
SAMPLES = 4


def measure(d: int) -> tuple[float, float, int, int]:
    """Returns operations and kept bytes per sample and view, parameters, and channels of BatchNorm."""
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    from bt_multimodal import Projector
    from encoders.image.encoders import TorchvisionEncoder

    encoder = TorchvisionEncoder("resnet50")
    network = nn.Sequential(encoder, Projector([encoder.features_dim, d, d, d]))
    parameter_storages = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in parameter_storages:
            kept[storage.data_ptr()] = storage  # a reference, so that no address is reused
        return x

    view = torch.randn(SAMPLES, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x),
            torch.autocast("cpu", torch.bfloat16),
        ):
            z = network(view)
        size = sum(storage.nbytes() for storage in kept.values())
        # The weights' bfloat16 copies are kept once, whatever the batch size.
        size -= 2 * sum(p.numel() for p in network.parameters() if p.ndim > 1)
        z.float().sum().backward()
    parameters = sum(p.numel() for p in network.parameters())
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return (
        counter.get_total_flops() / SAMPLES,
        size / SAMPLES,
        parameters,
        sum(m.num_features for m in norms),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n", type=int, default=2048, help="the global batch")
    parser.add_argument("--d", type=int, default=8192, help="width of the embedding")
    parser.add_argument("--tflops", type=float, default=989, help="a GPU's peak in bfloat16")
    parser.add_argument("--share", type=float, default=0.09, help="fraction of the peak that is reached")
    parser.add_argument("--gbits", type=float, default=400, help="a GPU's link, in Gbit/s")
    parser.add_argument("--gib", type=float, default=80, help="a GPU's memory")
    arguments = parser.parse_args()
    n_all, d = arguments.n, arguments.d
    operations, kept, p, channels = measure(d)
    print(
        f"measured: {operations / 1e9:.1f} Gflop and {kept / 2**20:.0f} MiB kept per sample and view; "
        f"{p / 1e6:.1f} M parameters, {channels} normalised channels"
    )
    print(
        f"N {n_all}, D {d}; {arguments.tflops:g} Tflop/s * {arguments.share:g}, {arguments.gbits:g} Gbit/s, "
        f"{arguments.gib:g} GiB\n"
    )
    print(
        "GPUs     n   K  Tflop (loss) MiB sent: z    grads    BN  memory GiB  s compute  s sending  samples/s"
    )
    for world in (1, 2, 4, 8, 16, 32, 64):
        n, part = n_all // world, (world - 1) / world
        loss = 8 * n * n_all * d
        work = 2 * n * operations + loss
        z, grads = part * 2 * n_all * d * 2, 2 * part * p * 4
        norm = part * 2 * (4 * channels + 106) * 4
        fixed = 12 * p + 4 * (4 * n_all * d + 4 * n * d + 2 * n * n_all)
        k, memory = 1, fixed + 2 * n * kept
        while memory > arguments.gib * 2**30:
            k += 1
            memory = fixed + n * kept / k
        compute = work / (arguments.tflops * 1e12 * arguments.share) * (4 / 3 if k > 1 else 1)
        sending = (z + grads + norm) / (arguments.gbits * 1e9 / 8)
        print(
            f"{world:4}{n:6}{k:4}{work / 1e12:8.2f} ({100 * loss / work:.1f} %){z / 2**20:12.1f}"
            f"{grads / 2**20:9.1f}{norm / 2**20:6.2f}{memory / 2**30:12.1f}{compute:11.3f}{sending:11.3f}"
            f"{n_all / (compute + sending):7.0f} to {n_all / max(compute, sending):.0f}"
        )


if __name__ == "__main__":
    main()

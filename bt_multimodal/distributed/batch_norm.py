"""BatchNorm with statistics over all ranks, also on CPUs."""

import torch
from torch import Tensor, nn

from bt_multimodal.compat import BatchNorm
from bt_multimodal.distributed.collectives import sum_across_ranks, world_size


class CpuSyncBatchNorm(BatchNorm):
    """``nn.SyncBatchNorm`` for CPUs, which that class does not support. Local batches may differ in size.

    In a single process or in evaluation mode it is an ordinary BatchNorm.

    Raises:
        ValueError: only one value per channel on all ranks together.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``[n, C, ...]`` over the samples and positions of all ranks; the shape stays."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = sum_across_ranks(x.new_tensor(x.numel() // x.shape[1]))
        if count < 2:
            raise ValueError(
                f"BatchNorm needs more than one value per channel, got {list(input.shape)} on all ranks"
            )
        mean = sum_across_ranks(x.sum(dims)) / count
        centred = x - mean.view(shape)
        variance = sum_across_ranks(centred.square().sum(dims)) / count
        self._track(mean, variance * count / (count - 1))
        x = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            x = x * self.weight.view(shape) + self.bias.view(shape)
        return x.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"BatchNorm expects [n, C, ...], got {list(input.shape)}")


def synchronise_batch_norm(module: nn.Module, device_type: str) -> nn.Module:
    """Make every BatchNorm in ``module`` take its statistics over all ranks.

    Weights, running statistics and parameter names stay.

    Args:
        device_type: where the module will run, ``"cpu"`` or ``"cuda"``.

    Returns:
        ``module``, or its replacement if ``module`` is itself a BatchNorm.
    """
    if device_type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for layer in module.modules():
        if type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            layer.__class__ = CpuSyncBatchNorm  # has the same attributes, so nothing is copied
    return module

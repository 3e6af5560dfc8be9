"""What ranks tell each other: sums, gathered batches, sizes; in one process each is the identity.

Legend: ``W`` ranks, ``n`` rows on this rank, ``N`` rows on all. Over gloo and NCCL alike.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Ranks that share the batch; 1 when no process group is initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def global_sizes(z: Tensor) -> list[int]:
    """The local batch size of every rank, in rank order, for embeddings ``z`` ``[n, D]``.

    Raises:
        ValueError: on every rank, if the ranks disagree on ``D``.
    """
    if world_size() == 1:
        return [z.shape[0]]
    here = torch.tensor(z.shape, device=z.device)
    shapes = [torch.empty_like(here) for _ in range(world_size())]
    dist.all_gather(shapes, here)
    sizes, widths = zip(*(shape.tolist() for shape in shapes), strict=True)
    if len(set(widths)) > 1:
        raise ValueError(f"the ranks' embeddings differ in width: {list(widths)}")
    return list(sizes)


class _SumAcrossRanks(torch.autograd.Function):
    """Sum over ranks; its gradient is summed over ranks as well, or known to be every rank's alike."""

    @staticmethod
    def forward(ctx, x: Tensor, alike: bool) -> Tensor:
        ctx.alike = alike
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        if ctx.alike:
            return grad * dist.get_world_size(), None
        total = grad.clone()
        dist.all_reduce(total)
        return total, None


def sum_across_ranks(x: Tensor, alike: bool = False) -> Tensor:
    """Sum of every rank's ``x``, in the backward pass as well; ``x`` itself in one process.

    Args:
        alike: every rank goes on to compute the same of the sum, nothing else, so that the gradients
            that come back are equal and their sum needs no communication.
    """
    return _SumAcrossRanks.apply(x, alike) if world_size() > 1 else x


def start_gather(z: Tensor, sizes: list[int]) -> Callable[[], Tensor]:
    """Begin to gather ``[N, ...]``, in rank order and in the dtype of ``z [n, ...]``; no gradient.

    Args:
        sizes: every rank's ``n`` (`global_sizes`).

    Returns:
        A function that waits for the rows; work done before it is called hides the transfer.
    """
    if len(sizes) == 1:
        return lambda: z
    most = max(sizes)
    # A collective has equal shapes: the shorter shards are padded, and cut again at the end.
    own = z.contiguous() if len(z) == most else torch.cat([z, z.new_zeros(most - len(z), *z.shape[1:])])
    whole = z.new_empty(len(sizes) * most, *z.shape[1:])
    work = dist.all_gather_into_tensor(whole, own, async_op=True)

    def rows() -> Tensor:
        work.wait()
        if min(sizes) == most:
            return whole
        return torch.cat([part[:size] for part, size in zip(whole.split(most), sizes, strict=True)])

    return rows


def gather_dealt(x: Tensor) -> Tensor:
    """All ranks' rows ``[n, ...]`` in the order of the global batch, which deals them to the ranks in turn.

    No gradient; ``x`` itself in one process.
    """
    if world_size() == 1:
        return x
    sizes = global_sizes(x.flatten(1))
    whole = start_gather(x, sizes)()
    place = [rank + len(sizes) * row for rank, size in enumerate(sizes) for row in range(size)]
    return whole[torch.tensor(place).argsort().to(x.device)]

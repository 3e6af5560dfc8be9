"""Communication between ranks: sums, gathered batches, batch sizes. In a single process, the identity.

Legend: ``W`` ranks, ``n`` rows on this rank, ``N`` rows on all ranks. Works with gloo and NCCL.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """The number of ranks that share the batch; 1 if no process group is initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def of_every_rank(numbers: list[int], device: torch.device) -> list[list[int]]:
    """Integers of every rank, in rank order; all ranks give equally many.

    What one rank alone may get wrong is judged from these on all ranks, so that all raise and none waits.
    """
    if world_size() == 1:
        return [numbers]
    # NCCL takes tensors on GPUs only, and a rank's wrong input may be elsewhere.
    local = torch.tensor(numbers, device="cuda" if dist.get_backend() == "nccl" else device)
    gathered = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(gathered, local)
    return torch.stack(gathered).tolist()


def global_sizes(z: Tensor) -> list[int]:
    """The local batch size of every rank, in rank order, for embeddings ``z [n, D]``.

    Raises:
        ValueError: on every rank, if the ranks' ``D`` differ.
    """
    sizes, widths = zip(*of_every_rank(list(z.shape), z.device), strict=True)
    if len(set(widths)) > 1:
        raise ValueError(f"the ranks' embeddings differ in width: {list(widths)}")
    return list(sizes)


class _SumAcrossRanks(torch.autograd.Function):
    """Sum over ranks. The gradient is summed over ranks too, unless it is the same on every rank."""

    @staticmethod
    def forward(ctx, x: Tensor, alike: bool) -> Tensor:
        ctx.alike = alike
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _TimesRanks.apply(grad) if ctx.alike else _SumAcrossRanks.apply(grad, False), None


class _TimesRanks(torch.autograd.Function):
    """The sum over ranks of what is the same on every rank, without communication."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x * dist.get_world_size()

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _SumAcrossRanks.apply(grad, False)  # the gradient, of a second derivative, is each rank's own


def sum_across_ranks(x: Tensor, alike: bool = False) -> Tensor:
    """The sum of ``x`` over ranks, differentiable across ranks; ``x`` itself in a single process.

    It can be differentiated any number of times.

    Args:
        alike: every rank computes the same result from the sum, so that all ranks' gradients are equal
            and the backward pass needs no communication.
    """
    return _SumAcrossRanks.apply(x, alike) if world_size() > 1 else x


def start_gather(z: Tensor, sizes: list[int]) -> Callable[[], Tensor]:
    """Start to gather every rank's ``z [n, ...]`` to ``[N, ...]``, in rank order; without gradient.

    Args:
        sizes: the ``n`` of every rank (`global_sizes`).

    Returns:
        A function that waits for the transfer and returns the rows. Work done before the call hides the
        transfer.
    """
    if len(sizes) == 1:
        return lambda: z
    most = max(sizes)
    # The collective needs equal shapes: shorter shards are padded here and cut again below.
    padded = z.contiguous() if len(z) == most else torch.cat([z, z.new_zeros(most - len(z), *z.shape[1:])])
    gathered = z.new_empty(len(sizes) * most, *z.shape[1:])
    work = dist.all_gather_into_tensor(gathered, padded, async_op=True)

    def rows() -> Tensor:
        work.wait()
        if min(sizes) == most:
            return gathered
        return torch.cat([shard[:size] for shard, size in zip(gathered.split(most), sizes, strict=True)])

    return rows


def gather_dealt(x: Tensor) -> Tensor:
    """The rows ``[n, ...]`` of all ranks in the order of the global batch, which is dealt to ranks in turn.

    Without gradient; ``x`` itself in a single process.
    """
    if world_size() == 1:
        return x
    sizes = global_sizes(x.flatten(1))
    gathered = start_gather(x, sizes)()
    place = [rank + len(sizes) * row for rank, size in enumerate(sizes) for row in range(size)]
    return gathered[torch.tensor(place).argsort().to(x.device)]

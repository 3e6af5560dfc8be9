"""Exact cross-correlation statistics of two batches of embeddings, within and across ranks.

Legend: ``N`` samples of the global batch, ``n`` of them on this rank, ``D`` embedding width,
``W`` ranks. ``A`` and ``B`` are the two batches of embeddings, each dimension standardised over
all ``N`` samples; ``C = A^T B / N`` is their cross-correlation matrix ``[D, D]``.

Two forms of the same two numbers, the invariance ``sum_i (1 - C_ii)^2`` and the redundancy
``sum_{i != j} C_ij^2`` (Zbontar et al., 2021, equations 1 and 2):

* direct: builds ``C``. ``O(N D^2)`` work and ``O(D^2)`` memory. The readable definition.
* Gram: ``sum_ij C_ij^2 = <A A^T, B B^T> / N^2`` never builds ``C``. ``O(N^2 D)`` work and
  ``O(N^2 + N D)`` memory.

Across ranks both take the statistics of the whole global batch; local batches may differ in
size. Every rank returns the same two numbers and, in the backward pass, ``W`` times its own
rows of the gradient: DistributedDataParallel and FSDP average parameter gradients over ranks,
and the average of ``W`` times the parts is the gradient of one process that holds everything.
"""

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
    """Sum over ranks; its gradient is summed over ranks as well."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        total = grad.clone()
        dist.all_reduce(total)
        return total


def sum_across_ranks(x: Tensor) -> Tensor:
    """Sum of every rank's ``x``, in the backward pass as well; ``x`` itself in one process."""
    return _SumAcrossRanks.apply(x) if world_size() > 1 else x


def standardise(z: Tensor, n_global: int, eps: float) -> Tensor:
    """This rank's ``[n, D]`` of the global batch standardised per column, differentiable across ranks."""
    centred = z - sum_across_ranks(z.sum(0)) / n_global
    variance = sum_across_ranks(centred.square().sum(0)) / n_global
    return centred * (variance + eps).rsqrt()


def correlate(a: Tensor, b: Tensor, n_global: int) -> Tensor:
    """``A^T B / N`` ``[D, D]`` of the global batch, from this rank's ``[n, D]`` of both."""
    return sum_across_ranks(a.T @ b) / n_global


def terms_of(c: Tensor) -> tuple[Tensor, Tensor]:
    """Invariance and redundancy of a matrix ``C [D, D]``."""
    diagonal = c.diagonal()
    return (1 - diagonal).square().sum(), c.square().sum() - diagonal.square().sum()


def direct_terms(z_first: Tensor, z_second: Tensor, n_global: int, eps: float) -> tuple[Tensor, Tensor]:
    """Invariance and redundancy by building ``C``; see the module's docstring.

    Args:
        z_first, z_second: ``[n, D]`` embeddings of this rank.
        n_global: ``N``.
        eps: added to the variance, as BatchNorm does.
    """

    a, b = standardise(z_first, n_global, eps), standardise(z_second, n_global, eps)
    return terms_of(correlate(a, b, n_global))


def _gather(z: Tensor, sizes: list[int]) -> Tensor:
    """The global batch ``[N, D]`` in rank order, from each rank's ``[n, D]``."""
    if len(sizes) == 1:
        return z
    padded = z.new_zeros(max(sizes), z.shape[1])  # gather needs equal shapes
    padded[: z.shape[0]] = z
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def _standardise_whole(z: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The global batch standardised per column, and the factor ``1 / sqrt(variance + eps)``."""
    variance, mean = torch.var_mean(z, dim=0, correction=0)
    factor = (variance + eps).rsqrt()
    return (z - mean) * factor, factor


class _GramTerms(torch.autograd.Function):
    """Invariance and redundancy without ``C``, forward and analytic backward.

    With ``K_A = A A^T``, ``K_B = B B^T`` and ``c = diag(C)`` (a column sum of ``A * B``)::

        redundancy = <K_A, K_B> / N^2 - |c|^2        invariance = |1 - c|^2

        dA = (2 g_red / N^2) K_B A + B * t / N       t = -2 g_inv (1 - c) - 2 g_red c

    and the same for ``dB`` with the two exchanged; ``g_inv`` and ``g_red`` are the incoming
    gradients. ``A`` and ``B`` have zero column means, so ``dA`` and ``dB`` have too, and the
    standardisation's own backward pass reduces to ``dz = f (dA - A * mean(dA * A))`` with
    ``f = 1 / sqrt(variance + eps)``. It is exact for any ``eps``.

    Each rank gathers the embeddings, computes its own ``n`` rows of both Gram matrices, and sums
    one scalar forward and two ``D``-vectors backward over the ranks.
    """

    @staticmethod
    def forward(
        ctx, z_first: Tensor, z_second: Tensor, sizes: list[int], eps: float
    ) -> tuple[Tensor, Tensor]:
        n_global = sum(sizes)
        start = sum(sizes[: dist.get_rank()]) if len(sizes) > 1 else 0
        rows = slice(start, start + z_first.shape[0])
        a, factor_a = _standardise_whole(_gather(z_first, sizes), eps)
        b, factor_b = _standardise_whole(_gather(z_second, sizes), eps)

        k_a = a[rows] @ a.T
        k_b = b[rows] @ b.T
        square_sum = torch.dot(k_a.flatten(), k_b.flatten()) / n_global**2
        if len(sizes) > 1:
            dist.all_reduce(square_sum)
        c = torch.linalg.vecdot(a, b, dim=0) / n_global

        ctx.save_for_backward(a, b, factor_a, factor_b, k_a, k_b, c)
        ctx.rows, ctx.world = rows, len(sizes)
        return (1 - c).square().sum(), square_sum - c.square().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_invariance: Tensor, grad_redundancy: Tensor):
        a, b, factor_a, factor_b, k_a, k_b, c = ctx.saved_tensors
        with torch.autocast(a.device.type, enabled=False):  # backward() may be called inside one
            n_global = a.shape[0]
            a_rows, b_rows = a[ctx.rows], b[ctx.rows]
            on_diagonal = (-2 * grad_invariance * (1 - c) - 2 * grad_redundancy * c) / n_global

            off_diagonal = 2 * grad_redundancy / n_global**2
            d_a = (k_b @ a).mul_(off_diagonal).addcmul_(b_rows, on_diagonal)
            d_b = (k_a @ b).mul_(off_diagonal).addcmul_(a_rows, on_diagonal)
            along = torch.stack(
                [torch.linalg.vecdot(d_a, a_rows, dim=0), torch.linalg.vecdot(d_b, b_rows, dim=0)]
            )
            if ctx.world > 1:
                dist.all_reduce(along)
            along = along / n_global
            d_a.addcmul_(a_rows, along[0], value=-1).mul_(factor_a * ctx.world)
            d_b.addcmul_(b_rows, along[1], value=-1).mul_(factor_b * ctx.world)
        return d_a, d_b, None, None


def gram_terms(z_first: Tensor, z_second: Tensor, sizes: list[int], eps: float) -> tuple[Tensor, Tensor]:
    """Invariance and redundancy from the two Gram matrices; see the module's docstring.

    Args:
        z_first, z_second: ``[n, D]`` embeddings of this rank.
        sizes: every rank's ``n`` (`global_sizes`).
        eps: added to the variance, as BatchNorm does.
    """
    return _GramTerms.apply(z_first, z_second, sizes, eps)

"""Exact cross-correlation statistics of two batches of embeddings, within and across ranks.

Legend: ``N`` samples of the global batch, ``n`` of them on this rank, ``D`` embedding width,
``W`` ranks. ``A`` and ``B`` are the two batches of embeddings, each dimension standardised over
all ``N`` samples; ``C = A^T B / N`` is their cross-correlation matrix ``[D, D]``.

Two forms compute the same two numbers, the invariance ``sum_i (1 - C_ii)^2`` and the redundancy
``sum_{i != j} C_ij^2`` (Zbontar et al., 2021, equations 1 and 2):

* direct: builds ``C``, in ``O(N D^2)`` time and ``O(D^2)`` memory. The readable definition.
* Gram: never builds ``C``, because ``sum_ij C_ij^2 = <A A^T, B B^T> / N^2``. ``O(N^2 D)`` time and
  ``O(N^2 + N D)`` memory.

Across ranks, both use the statistics of the global batch; local batches may differ in size. Every rank
returns the same two numbers and, in the backward pass, ``W`` times its own rows of the gradient:
DistributedDataParallel and FSDP average parameter gradients over ranks, and the average of ``W`` times
the parts is the gradient of a single process with the whole batch.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from bt_multimodal.distributed.collectives import start_gather, sum_across_ranks


def working_dtype(z_first: Tensor, z_second: Tensor) -> torch.dtype:
    """The dtype of the computations: float32, or the embeddings' dtype if that is wider."""
    return torch.promote_types(torch.promote_types(z_first.dtype, z_second.dtype), torch.float32)


_FAR = 16  # standard deviations from 0 to a mean, from which on the mean's rounding is taken off


def _is_usual(mean: Tensor, factor: Tensor) -> bool:
    """Whether float32 standardises columns well in one go, by their mean and ``1 / sqrt(variance + eps)``.

    Not if a mean is many standard deviations, whose rounding then shows, or squares leave the range of
    numbers. To ask is to wait for the result: on CPUs alone, where waiting costs nothing.
    """
    if not mean.is_cpu or torch.compiler.is_compiling():
        return False
    low, high = factor.aminmax()
    least, most = mean.aminmax()
    largest = high.item()
    if not (low.item() > 2.0**-30 and largest < 2.0**30):  # not a number is not usual
        return False
    far = max(-least.item(), most.item()) * largest  # most often this bound is enough
    return far < _FAR or (mean * factor).abs().max().item() < _FAR


@torch.no_grad()
def _carefully(
    z: Tensor, n_global: int, eps: float, total: Callable[[Tensor], Tensor] = sum_across_ranks
) -> tuple[Tensor, Tensor]:
    """Rows ``[n, D]`` standardised per column, and ``1 / sqrt(variance + eps)``, whatever the magnitude.

    Centred twice, since a large mean has a large rounding error; squares and sums are in float64.
    Without gradient.

    Args:
        total: the sum over the parts of the batch.
    """
    wide = torch.float32 if z.device.type == "mps" else torch.float64  # which has no float64
    z = z * 0.25  # the difference of two numbers of the largest magnitude is one too
    for _ in range(2):
        z = z - (total(z.sum(0, dtype=wide)) / n_global).to(z.dtype)
    squares = total(torch.linalg.vector_norm(z, dim=0, dtype=wide).square())
    factor = (squares * (16 / n_global) + eps).rsqrt()
    return z * (4 * factor).to(z.dtype), factor.to(z.dtype)


def _centre(z: Tensor, n_global: int) -> Tensor:
    return z - sum_across_ranks(z.sum(0)) / n_global


def centre(z: Tensor, n_global: int) -> Tensor:
    """This rank's rows ``[n, D]`` less the columns' means over the global batch.

    Differentiable across ranks.
    """
    mean = sum_across_ranks(z.sum(0)) / n_global
    centred = z - mean
    variance = sum_across_ranks(centred.detach().square().sum(0)) / n_global
    if not _is_usual(mean.detach(), (variance + 2.0**-58).rsqrt()):
        centred = _centre((z - z.detach()) + centred.detach(), n_global)
    return centred


def standardise(z: Tensor, n_global: int, eps: float) -> Tensor:
    """This rank's rows ``[n, D]``, standardised per column over the global batch.

    Differentiable across ranks.
    """
    mean = sum_across_ranks(z.sum(0)) / n_global
    centred = z - mean
    factor = (sum_across_ranks(centred.square().sum(0)) / n_global + eps).rsqrt()
    if not _is_usual(mean.detach(), factor.detach()):
        # The result is the same for columns shifted and scaled by constants, with eps scaled too.
        rows, scale = _carefully(z.detach(), n_global, eps)
        centred = _centre((z - z.detach()) * scale + rows, n_global)
        variance = sum_across_ranks(centred.square().sum(0)) / n_global
        factor = (variance + scale * eps * scale).rsqrt()
    return centred * factor


class _Product(torch.autograd.Function):
    """``A^T B``, with autocast disabled in the backward pass too."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a.T @ b

    @staticmethod
    def backward(ctx, grad: Tensor):
        a, b = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            return b @ grad.T, a @ grad


def correlate(a: Tensor, b: Tensor, n_global: int) -> Tensor:
    """``C = A^T B / N`` ``[D, D]`` of the global batch, from this rank's rows ``[n, D]`` of both.

    Every rank must compute the same function of ``C`` alone, such as `terms_of`.
    """
    return sum_across_ranks(_Product.apply(a, b), alike=True) / n_global


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
    dtype = working_dtype(z_first, z_second)
    a, b = (standardise(z.to(dtype), n_global, eps) for z in (z_first, z_second))
    return terms_of(correlate(a, b, n_global))


def _standardise_whole(z: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The global batch, standardised per column, and the factor ``1 / sqrt(variance + eps)``."""
    z = z.to(dtype)
    if z.is_cpu:
        variance, mean = torch.var_mean(z, dim=0, correction=0)
        factor = (variance + eps).rsqrt()
        if _is_usual(mean, factor):
            return (z - mean) * factor, factor
    return _carefully(z, len(z), eps, total=lambda part: part)


def _start_sum(x: Tensor, world: int) -> Callable[[], object]:
    """Start to sum ``x`` over ranks in place; the returned function waits for the result."""
    if world == 1:
        return lambda: None
    return dist.all_reduce(x, async_op=True).wait


class _GramTerms(torch.autograd.Function):
    """Invariance and redundancy without ``C``, with an analytic backward pass.

    With ``K_A = A A^T``, ``K_B = B B^T`` and ``c = diag(C)`` (a column sum of ``A * B``)::

        redundancy = <K_A, K_B> / N^2 - |c|^2        invariance = |1 - c|^2

        dA = (2 g_red / N^2) K_B A + B * t / N       t = -2 g_inv (1 - c) - 2 g_red c

    and the same for ``dB`` with ``A`` and ``B`` exchanged; ``g_inv`` and ``g_red`` are the incoming
    gradients. The columns of ``A`` and ``B`` have zero mean, hence those of ``dA`` and ``dB`` too, and the
    backward pass of the standardisation reduces to ``dz = f (dA - A * mean(dA * A))`` with
    ``f = 1 / sqrt(variance + eps)``. This is exact for any ``eps``.

    Each rank gathers the embeddings in their own dtype, without loss, and computes its own ``n`` rows of
    both Gram matrices: ``1 / W`` of the ``O(N^2 D)`` work. (Every rank standardises the whole gathered
    batch, ``O(N D)``.) A step communicates two gathers of ``[N, D]``, the second during the computations on
    the first, and sums over ranks of ``D + 1`` numbers forward and ``2 D`` backward. Summing ``C`` would
    take ``D^2``.
    """

    @staticmethod
    def forward(
        ctx, z_first: Tensor, z_second: Tensor, sizes: list[int], eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        n_global, world = sum(sizes), len(sizes)
        start = sum(sizes[: dist.get_rank()]) if world > 1 else 0
        rows = slice(start, start + z_first.shape[0])
        first, second = start_gather(z_first, sizes), start_gather(z_second, sizes)

        a, factor_a = _standardise_whole(first(), eps, dtype)
        k_a = a[rows] @ a.T
        b, factor_b = _standardise_whole(second(), eps, dtype)
        k_b = b[rows] @ b.T
        sums = torch.cat(
            [torch.linalg.vecdot(a[rows], b[rows], dim=0), torch.dot(k_a.flatten(), k_b.flatten())[None]]
        )
        _start_sum(sums, world)()
        c, square_sum = sums[:-1] / n_global, sums[-1] / n_global**2

        ctx.save_for_backward(a, b, factor_a, factor_b, k_a, k_b, c)
        ctx.rows, ctx.world, ctx.dtypes = rows, world, (z_first.dtype, z_second.dtype)
        return (1 - c).square().sum(), square_sum - c.square().sum()

    @staticmethod
    def backward(ctx, grad_invariance: Tensor, grad_redundancy: Tensor):
        if torch.is_grad_enabled():  # create_graph; what follows would be taken for a constant
            raise ValueError('the Gram form has no second derivative: use BarlowTwinsLoss(form="direct")')
        a, b, factor_a, factor_b, k_a, k_b, c = ctx.saved_tensors
        with torch.autocast(a.device.type, enabled=False):  # backward() may be called under autocast
            n_global = a.shape[0]
            a_rows, b_rows = a[ctx.rows], b[ctx.rows]
            on_diagonal = (-2 * grad_invariance * (1 - c) - 2 * grad_redundancy * c) / n_global
            off_diagonal = 2 * grad_redundancy / n_global**2

            d_a = (k_b @ a).mul_(off_diagonal).addcmul_(b_rows, on_diagonal)
            along_a = torch.linalg.vecdot(d_a, a_rows, dim=0) / n_global
            summed_a = _start_sum(along_a, ctx.world)
            d_b = (k_a @ b).mul_(off_diagonal).addcmul_(a_rows, on_diagonal)
            along_b = torch.linalg.vecdot(d_b, b_rows, dim=0) / n_global
            summed_b = _start_sum(along_b, ctx.world)
            summed_a()
            d_a.addcmul_(a_rows, along_a, value=-1).mul_(factor_a * ctx.world)
            summed_b()
            d_b.addcmul_(b_rows, along_b, value=-1).mul_(factor_b * ctx.world)
        return d_a.to(ctx.dtypes[0]), d_b.to(ctx.dtypes[1]), None, None, None


def gram_terms(z_first: Tensor, z_second: Tensor, sizes: list[int], eps: float) -> tuple[Tensor, Tensor]:
    """Invariance and redundancy from the two Gram matrices; see the module's docstring.

    Args:
        z_first, z_second: ``[n, D]`` embeddings of this rank.
        sizes: the ``n`` of every rank (`bt_multimodal.distributed.collectives.global_sizes`).
        eps: added to the variance, as BatchNorm does.
    """
    return _GramTerms.apply(z_first, z_second, sizes, eps, working_dtype(z_first, z_second))

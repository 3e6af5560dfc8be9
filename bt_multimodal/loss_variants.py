"""The losses that Zbontar et al., 2021, table 5, set beside their own, for its ablations.

Each takes two batches of embeddings ``[n, D]`` of this rank and gives `LossTerms`, as
`BarlowTwinsLoss` does, exact across ranks; all build the D x D matrix.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

from bt_multimodal.correlation import correlate, standardise, terms_of, working_dtype
from bt_multimodal.distributed.collectives import sum_across_ranks
from bt_multimodal.loss import LossTerms, checked_sizes


class AblatedLoss(nn.Module):
    """The loss with a term or a normalisation taken away.

    Args:
        lambd, scale, eps: as in `BarlowTwinsLoss`.
        invariance: weight of the invariance term; 0 leaves redundancy alone.
        normalise: what becomes of the embeddings before ``C = A^T B / N``. ``"batch"``: standardised
            per dimension, as in the loss itself. ``"features"``: then each embedding scaled to length
            ``sqrt(D)`` (the paper says the unit sphere, on which the diagonal could not come near 1).
            ``"none"``: centred alone, so that ``C`` is the cross-covariance.
    """

    def __init__(
        self,
        lambd: float = 0.0051,
        scale: float = 1.0,
        invariance: float = 1.0,
        normalise: Literal["batch", "features", "none"] = "batch",
        eps: float = 1e-5,
    ):
        super().__init__()
        if normalise not in ("batch", "features", "none"):
            raise ValueError(f"normalise is 'batch', 'features' or 'none', not {normalise!r}")
        if lambd < 0 or invariance < 0 or scale <= 0 or eps < 0:
            raise ValueError(
                "needs lambd >= 0, invariance >= 0, scale > 0, eps >= 0; "
                f"got {lambd=}, {invariance=}, {scale=}, {eps=}"
            )
        self.lambd, self.scale, self.invariance = lambd, scale, invariance
        self.normalise, self.eps = normalise, eps

    def _normalised(self, z: Tensor, n: int) -> Tensor:
        if self.normalise == "none":
            return z - sum_across_ranks(z.sum(0)) / n
        z = standardise(z, n, self.eps)
        return math.sqrt(z.shape[1]) * F.normalize(z) if self.normalise == "features" else z

    def forward(self, z_first: Tensor, z_second: Tensor) -> LossTerms:
        """As `BarlowTwinsLoss.forward`."""
        with torch.autocast(z_first.device.type, enabled=False):
            sizes = checked_sizes(z_first, z_second)
            dtype = working_dtype(z_first, z_second)
            n = sum(sizes)
            a, b = (self._normalised(z.to(dtype), n) for z in (z_first, z_second))
            c = correlate(a, b, n)
            invariance, redundancy = terms_of(c)
            total = self.scale * (self.invariance * invariance + self.lambd * redundancy)
            return LossTerms(total, invariance, redundancy)

    def extra_repr(self) -> str:
        return (
            f"lambd={self.lambd}, scale={self.scale}, invariance={self.invariance}, "
            f"normalise={self.normalise!r}, eps={self.eps}"
        )


class CrossEntropyLoss(nn.Module):
    """``-log sum_i exp(C_ii / t) + lambd * log sum_{i != j} exp(max(C_ij, 0) / t)``.

    ``C`` is the cross-correlation matrix, ``t`` the temperature. The two terms are `LossTerms`'s
    invariance and redundancy. The paper gives neither value.

    Args:
        lambd: weight of the second term.
        temperature: ``t``.
        scale, eps: as in `BarlowTwinsLoss`.
    """

    def __init__(self, lambd: float = 1.0, temperature: float = 0.1, scale: float = 1.0, eps: float = 1e-5):
        super().__init__()
        if lambd < 0 or temperature <= 0 or scale <= 0 or eps < 0:
            raise ValueError(
                "needs lambd >= 0, temperature > 0, scale > 0, eps >= 0; "
                f"got {lambd=}, {temperature=}, {scale=}, {eps=}"
            )
        self.lambd, self.temperature, self.scale, self.eps = lambd, temperature, scale, eps

    def forward(self, z_first: Tensor, z_second: Tensor) -> LossTerms:
        """As `BarlowTwinsLoss.forward`; ``D`` is 2 or more."""
        with torch.autocast(z_first.device.type, enabled=False):
            sizes = checked_sizes(z_first, z_second)
            dtype = working_dtype(z_first, z_second)
            n, d = sum(sizes), z_first.shape[1]
            if d < 2:
                raise ValueError(f"embeddings of width {d} have nothing off the diagonal")
            a, b = (standardise(z.to(dtype), n, self.eps) for z in (z_first, z_second))
            c = correlate(a, b, n)
            on_diagonal = torch.eye(d, dtype=torch.bool, device=c.device)
            off_diagonal = (c.clamp(min=0) / self.temperature).masked_fill(on_diagonal, -math.inf)
            invariance = -torch.logsumexp(c.diagonal() / self.temperature, 0)
            redundancy = torch.logsumexp(off_diagonal.flatten(), 0)
            return LossTerms(self.scale * (invariance + self.lambd * redundancy), invariance, redundancy)

    def extra_repr(self) -> str:
        return f"lambd={self.lambd}, temperature={self.temperature}, scale={self.scale}, eps={self.eps}"

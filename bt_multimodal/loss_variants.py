"""Variants of the loss, from the ablations of Zbontar et al., 2021, table 5.

Like `BarlowTwinsLoss`, each takes two batches of embeddings ``[n, D]`` of this rank and returns
`LossTerms`, exact across ranks. All of them build the D x D matrix.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

from bt_multimodal.correlation import centre, correlate, standardise, terms_of, working_dtype
from bt_multimodal.distributed.agreement import checked_sizes
from bt_multimodal.loss import LossTerms


class AblatedLoss(nn.Module):
    """The Barlow Twins loss without one of its terms or normalisations.

    Args:
        lambd, scale, eps: as in `BarlowTwinsLoss`.
        invariance: weight of the invariance term; 0 leaves only the redundancy term.
        normalise: how to normalise the embeddings before ``C = A^T B / N``. ``"batch"`` standardises each
            dimension, as in the original loss. ``"features"`` then also scales each embedding to length
            ``sqrt(D)`` (the paper says the unit sphere, where the diagonal could not come close to 1).
            ``"none"`` only centres each dimension, so ``C`` is the cross-covariance.

    Raises:
        ValueError: an unknown ``normalise``, or a number that is out of range.
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
            raise ValueError(f"normalise must be 'batch', 'features' or 'none', not {normalise!r}")
        if lambd < 0 or invariance < 0 or scale <= 0 or eps < 0:
            raise ValueError(
                "needs lambd >= 0, invariance >= 0, scale > 0, eps >= 0; "
                f"got {lambd=}, {invariance=}, {scale=}, {eps=}"
            )
        self.lambd, self.scale, self.invariance = lambd, scale, invariance
        self.normalise, self.eps = normalise, eps

    def _normalised(self, z: Tensor, n: int) -> Tensor:
        if self.normalise == "none":
            return centre(z, n)
        z = standardise(z, n, self.eps)
        return math.sqrt(z.shape[1]) * F.normalize(z) if self.normalise == "features" else z

    def forward(self, z_first: Tensor, z_second: Tensor) -> LossTerms:
        """As `BarlowTwinsLoss.forward`."""
        n = sum(checked_sizes(z_first, z_second))
        with torch.autocast(z_first.device.type, enabled=False):
            dtype = working_dtype(z_first, z_second)
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

    ``C`` is the cross-correlation matrix, ``t`` the temperature. The two terms are returned as invariance
    and redundancy of `LossTerms`. The paper states neither ``lambd`` nor ``t``.

    Args:
        lambd: weight of the second term.
        temperature: ``t``.
        scale, eps: as in `BarlowTwinsLoss`.

    Raises:
        ValueError: a number that is out of range.
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
        """As `BarlowTwinsLoss.forward`; ``D`` must be 2 or more."""
        n = sum(checked_sizes(z_first, z_second))
        with torch.autocast(z_first.device.type, enabled=False):
            dtype = working_dtype(z_first, z_second)
            d = z_first.shape[1]
            if d < 2:
                raise ValueError(f"embeddings of width {d} have no off-diagonal correlations: use 2 or more")
            a, b = (standardise(z.to(dtype), n, self.eps) for z in (z_first, z_second))
            c = correlate(a, b, n)
            on_diagonal = torch.eye(d, dtype=torch.bool, device=c.device)
            off_diagonal = (c.clamp(min=0) / self.temperature).masked_fill(on_diagonal, -math.inf)
            invariance = -torch.logsumexp(c.diagonal() / self.temperature, 0)
            redundancy = torch.logsumexp(off_diagonal.flatten(), 0)
            return LossTerms(self.scale * (invariance + self.lambd * redundancy), invariance, redundancy)

    def extra_repr(self) -> str:
        return f"lambd={self.lambd}, temperature={self.temperature}, scale={self.scale}, eps={self.eps}"

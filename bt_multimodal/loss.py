"""The Barlow Twins loss."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from bt_multimodal.correlation import direct_terms, gram_terms
from bt_multimodal.distributed.agreement import checked_sizes


class LossTerms(NamedTuple):
    """The loss ``total = scale * (invariance + lambd * redundancy)`` and its two terms, unweighted."""

    total: Tensor
    invariance: Tensor
    redundancy: Tensor


# N / D at which both forms take the same time on two CPU cores: about 0.67 at N 256, 0.77 at N 1024.
_GRAM_UP_TO = 0.7


def gram_is_cheaper(n: int, d: int) -> bool:
    """Whether the Gram form, about ``4 N^2 D``, costs less than the direct form, about ``3 N D^2``."""
    return n < _GRAM_UP_TO * d


class BarlowTwinsLoss(nn.Module):
    """The Barlow Twins loss: drives the cross-correlation of two batches of embeddings to the identity.

    With ``A, B`` the embeddings standardised per dimension over the global batch of ``N`` samples
    (biased variance) and ``C = A^T B / N``::

        total = scale * [ sum_i (1 - C_ii)^2 + lambd * sum_{i != j} C_ij^2 ]

    Zbontar et al., 2021, equations 1 and 2 (their BatchNorm without affine parameters is the
    standardisation here). All computations are in float32, or float64 for float64 embeddings, even
    under autocast. If a process group is initialised, the batch is the union of the ranks' batches,
    which may differ in size; `bt_multimodal.correlation` describes the gradient.

    Args:
        lambd: weight of the redundancy term; 0.0051 in the released code.
        scale: factor on the total. The gradient of the released code is ``1 / world_size`` of the true
            one, which LARS hides for weights but not for biases; set ``scale`` to that to reproduce a run.
        form: ``"gram"`` never builds the D x D matrix, ``"direct"`` does, and ``"auto"`` picks the
            cheaper one for the given shapes. The value is the same.
        eps: added to the variance.

    Raises:
        ValueError: an unknown ``form``, or a number that is out of range.
    """

    def __init__(
        self,
        lambd: float = 0.0051,
        scale: float = 1.0,
        form: Literal["auto", "gram", "direct"] = "auto",
        eps: float = 1e-5,
    ):
        super().__init__()
        if form not in ("auto", "gram", "direct"):
            raise ValueError(f"form must be 'auto', 'gram' or 'direct', not {form!r}")
        if lambd < 0 or scale <= 0 or eps < 0:
            raise ValueError(f"needs lambd >= 0, scale > 0, eps >= 0; got {lambd=}, {scale=}, {eps=}")
        self.lambd, self.scale, self.form, self.eps = lambd, scale, form, eps

    def forward(self, z_first: Tensor, z_second: Tensor) -> LossTerms:
        """The loss of two batches of embeddings ``[n, D]``; row ``i`` of both is from the same sample.

        Raises:
            ValueError: on every rank, shapes that differ or are not 2-D, a dtype that is not floating point,
                ranks that do not agree, or a global batch of fewer than 2 samples.
        """
        sizes = checked_sizes(z_first, z_second)
        with torch.autocast(z_first.device.type, enabled=False):
            n, d = sum(sizes), z_first.shape[1]
            if self.form == "gram" or (self.form == "auto" and gram_is_cheaper(n, d)):
                invariance, redundancy = gram_terms(z_first, z_second, sizes, self.eps)
            else:
                invariance, redundancy = direct_terms(z_first, z_second, n, self.eps)
            return LossTerms(self.scale * (invariance + self.lambd * redundancy), invariance, redundancy)

    def extra_repr(self) -> str:
        return f"lambd={self.lambd}, scale={self.scale}, form={self.form!r}, eps={self.eps}"

"""The projector: representations to embeddings."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class Projector(nn.Module):
    """Bias-free linear layers with BatchNorm and ReLU after all but the last.

    Zbontar et al., 2021, section 2.2: three layers of 8192 on a ResNet-50.

    Args:
        sizes: widths from the representation to the embedding, such as
            ``[2048, 8192, 8192, 8192]``; two or more.
        batch_norm: leave the hidden layers' BatchNorm out with ``False`` (the paper's ablation).
    """

    def __init__(self, sizes: Sequence[int], batch_norm: bool = True):
        super().__init__()
        if len(sizes) < 2 or any(not isinstance(size, int) or size < 1 for size in sizes):
            raise ValueError(f"sizes needs two or more positive widths, got {list(sizes)}")
        self.in_features, self.out_features = sizes[0], sizes[-1]
        layers: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(pairwise(sizes)):
            layers.append(nn.Linear(n_in, n_out, bias=False))
            if i < len(sizes) - 2:
                layers += [nn.BatchNorm1d(n_out), nn.ReLU(inplace=True)] if batch_norm else [nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, representation: Tensor) -> Tensor:
        """``[B, sizes[0]]`` to ``[B, sizes[-1]]``."""
        return self.layers(representation)

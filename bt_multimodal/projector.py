"""The projector, from representations to embeddings."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class Projector(nn.Module):
    """Linear layers without bias; BatchNorm and ReLU follow all but the last.

    Zbontar et al., 2021, section 2.2: three layers of 8192 on a ResNet-50.

    Args:
        sizes: two or more widths, from the representation to the embedding, such as
            ``[2048, 8192, 8192, 8192]``.
        batch_norm: whether the hidden layers have BatchNorm; ``False`` is the paper's ablation.

    Raises:
        ValueError: fewer than two widths, or one that is not a positive integer.
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
        """The embeddings ``[B, sizes[-1]]`` of representations ``[B, sizes[0]]``."""
        return self.layers(representation)

"""A Transformer encoder for training from scratch."""

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from encoders.text.attention import kernels_for_any_length
from encoders.text.dropout import set_dropout, view_rate
from encoders.text.lengths import check_ids, check_length, in_length_groups
from encoders.text.pooling import check_pooling, pool


class TextTransformer(nn.Module):
    """A small pre-norm Transformer (Vaswani et al., 2017) with random weights.

    It has learned positions, GELU, and MLPs of four times the width. Dropout applies to the embeddings, the
    attention and every block's output, at the view's rate if it has one.

    Args:
        vocabulary: number of token ids, 0 to ``vocabulary - 1``.
        width: width of the tokens and ``features_dim``, a multiple of ``heads``.
        depth: number of layers.
        heads: number of attention heads.
        length: number of positions: the longest text in tokens.
        pooling: ``"mean"`` or ``"cls"`` (`encoders.text.pooling`).
        dropout: dropout rate in training if the view has none.

    Raises:
        ValueError: if a size is not positive, ``width`` is not a multiple of ``heads``, or the pooling is
            unknown.
    """

    def __init__(
        self,
        vocabulary: int = 8192,
        width: int = 256,
        depth: int = 4,
        heads: int = 4,
        length: int = 512,
        pooling: str = "mean",
        dropout: float = 0.1,
    ):
        super().__init__()
        if min(vocabulary, width, depth, heads, length) < 1 or width % heads:
            raise ValueError(
                f"all sizes must be 1 or more and width a multiple of heads, not vocabulary {vocabulary}, "
                f"width {width}, depth {depth}, heads {heads}, length {length}"
            )
        check_pooling(pooling, ("mean", "cls"))
        self.vocabulary, self.length, self.pooling, self.features_dim = vocabulary, length, pooling, width
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(_Layer(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, view: dict[str, Tensor]) -> Tensor:
        """Encodes ``input_ids`` and ``attention_mask``, both ``[B, L]``, as ``[B, features_dim]``.

        Raises:
            ValueError: if a text is longer than ``length``, or an id is beyond the vocabulary.
        """
        check_ids(view["input_ids"], self.vocabulary)
        set_dropout(self, view_rate(view))
        return in_length_groups(self._embed, view)

    def _embed(self, view: dict[str, Tensor]) -> Tensor:
        ids, mask = view["input_ids"], view["attention_mask"]
        check_length(ids, self.length)
        x = self.dropout(self.tokens(ids) + self.positions.weight[: ids.shape[1]])
        attended = rearrange(mask.bool(), "b l -> b 1 1 l")
        with kernels_for_any_length():
            for layer in self.layers:
                x = layer(x, attended)
        return pool([self.norm(x)], mask, self.pooling)


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns tokens ``[B, L, F]`` after the block, with attention masked by ``mask [B, 1, 1, L]``."""
        x = x + self.dropout(self._attend(self.attention_norm(x), mask))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        queries, keys, values = rearrange(
            self.queries_keys_values(x), "b l (three heads f) -> three b heads l f", three=3, heads=self.heads
        )
        rate = self.dropout.p if self.training else 0.0
        attended = functional.scaled_dot_product_attention(queries, keys, values, mask, dropout_p=rate)
        return self.output(rearrange(attended, "b heads l f -> b l (heads f)"))

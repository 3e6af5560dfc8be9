"""A Transformer encoder of token ids, from scratch."""

from torch import Tensor, nn
from torch.nn import functional

from encoders.text.attention import kernels_for_any_length
from encoders.text.dropout import set_dropout, view_rate
from encoders.text.lengths import check_ids, check_length, in_length_groups
from encoders.text.pooling import check_pooling, pool


class TextTransformer(nn.Module):
    """A small Transformer (Vaswani et al., 2017), normalised before each block, its weights random.

    Learned positions, GELU, MLPs of four times the width. Dropout is on the embeddings, the
    attention and every block's output, at the rate of the view where it has one.

    Args:
        vocabulary: token ids, 0 to ``vocabulary - 1``.
        width: of the tokens, ``features_dim``; a multiple of ``heads``.
        depth: layers.
        heads: of the attention.
        length: positions: the longest text in tokens.
        pooling: ``"mean"`` or ``"cls"`` (`encoders.text.pooling`).
        dropout: the rate in training where the view has none.

    Raises:
        ValueError: sizes that make no Transformer, or another pooling.
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
                f"all sizes are 1 or more and width is a multiple of heads: vocabulary {vocabulary}, "
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
        """``input_ids`` and ``attention_mask``, both ``[B, L]``, to ``[B, features_dim]``.

        Raises:
            ValueError: a text longer than ``length``, or an id beyond the vocabulary.
        """
        check_ids(view["input_ids"], self.vocabulary)
        set_dropout(self, view_rate(view))
        return in_length_groups(self._embed, view)

    def _embed(self, view: dict[str, Tensor]) -> Tensor:
        ids, mask = view["input_ids"], view["attention_mask"]
        check_length(ids, self.length)
        x = self.dropout(self.tokens(ids) + self.positions.weight[: ids.shape[1]])
        heard = mask.bool()[:, None, None]
        with kernels_for_any_length():
            for layer in self.layers:
                x = layer(x, heard)
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

    def forward(self, x: Tensor, heard: Tensor) -> Tensor:
        """Tokens ``[B, L, F]`` and which of them are heard, ``[B, 1, 1, L]``, to ``[B, L, F]``."""
        x = x + self.dropout(self._attend(self.attention_norm(x), heard))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))

    def _attend(self, x: Tensor, heard: Tensor) -> Tensor:
        parts = self.queries_keys_values(x).unflatten(2, (3, self.heads, -1))  # [B, L, 3, H, F / H]
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        rate = self.dropout.p if self.training else 0.0
        found = functional.scaled_dot_product_attention(queries, keys, values, heard, dropout_p=rate)
        return self.output(found.transpose(1, 2).flatten(2))

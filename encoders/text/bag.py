"""An encoder that knows no order beyond a few tokens, trained in minutes on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional

_GOLDEN = 0x9E3779B1  # 2^32 / the golden ratio
_WORD = 0xFFFFFFFF


class BagOfNgrams(nn.Module):
    """The weighted mean of the embeddings of a text's n-grams of tokens.

    Hashed n-grams as in fastText (Joulin et al., 2017, section 2.2); every one has a weight of its own,
    which is learnt with the embeddings. Padding is not looked up.

    Args:
        buckets: rows of the table; a single token's is its number, that of a longer n-gram a hash of it.
        ngrams: tokens of the longest n-gram.
        width: of the embeddings; ``features_dim``.

    Raises:
        ValueError: sizes that are not positive.
    """

    def __init__(self, buckets: int = 8192, ngrams: int = 1, width: int = 256):
        super().__init__()
        if min(buckets, ngrams, width) < 1:
            raise ValueError(f"buckets, ngrams and width are 1 or more, not {buckets}, {ngrams} and {width}")
        self.ngrams, self.features_dim = ngrams, width
        self.table = nn.EmbeddingBag(buckets, width, mode="sum")
        nn.init.normal_(self.table.weight, std=width**-0.5)
        self.weight = nn.Parameter(torch.zeros(buckets))  # before softplus

    def forward(self, view: dict[str, Tensor]) -> Tensor:
        """``input_ids`` and ``attention_mask``, both ``[B, L]``, to ``[B, width]``."""
        codes, lengths = self._ngrams(view["input_ids"], view["attention_mask"].bool())
        weights = functional.softplus(self.weight)[codes]
        text = torch.arange(len(lengths), device=codes.device).repeat_interleave(lengths)
        whole = weights.new_zeros(len(lengths)).index_add(0, text, weights)
        return self.table(codes, lengths.cumsum(0) - lengths, per_sample_weights=weights / whole[text])

    def _ngrams(self, ids: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the table, text after text, and how many each text has, ``[B]``."""
        size, longest = self.table.num_embeddings, ids.shape[1]
        rows, kept = [ids % size], [there]
        code = ids
        for n in range(2, min(self.ngrams, longest) + 1):
            code = (code[:, :-1] * _GOLDEN + ids[:, n - 1 :]) & _WORD
            rows.append(_mixed(code) % size)  # or pairs of neighbouring tokens would share their rows
            kept.append(kept[-1][:, :-1] & there[:, n - 1 :])
        taken = torch.cat(kept, dim=1)
        return torch.cat(rows, dim=1)[taken], taken.sum(1)


def _mixed(code: Tensor) -> Tensor:
    """32 bits, each of which depends on all of them (MurmurHash3's last step)."""
    code = ((code ^ (code >> 16)) * 0x85EBCA6B) & _WORD
    code = ((code ^ (code >> 13)) * 0xC2B2AE35) & _WORD
    return code ^ (code >> 16)

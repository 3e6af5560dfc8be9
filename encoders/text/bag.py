"""A bag-of-n-grams encoder, which trains in minutes on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional

_GOLDEN = 0x9E3779B1  # 2^32 / the golden ratio
_WORD = 0xFFFFFFFF


class BagOfNgrams(nn.Module):
    """The weighted mean of the embeddings of a text's token n-grams.

    N-grams are hashed as in fastText (Joulin et al., 2017, section 2.2). Each one has a weight, which is
    learnt with the embeddings. Padding is not looked up.

    Args:
        buckets: rows of the embedding table. A single token's row is its id, a longer n-gram's is a hash.
        ngrams: number of tokens in the longest n-gram.
        width: width of the embeddings and ``features_dim``.

    Raises:
        ValueError: if a size is not positive.
    """

    def __init__(self, buckets: int = 8192, ngrams: int = 1, width: int = 256):
        super().__init__()
        if min(buckets, ngrams, width) < 1:
            raise ValueError(
                f"buckets, ngrams and width must be 1 or more, not {buckets}, {ngrams} and {width}"
            )
        self.ngrams, self.features_dim = ngrams, width
        self.table = nn.EmbeddingBag(buckets, width, mode="sum")
        nn.init.normal_(self.table.weight, std=width**-0.5)
        self.weight = nn.Parameter(torch.zeros(buckets))  # before softplus

    def forward(self, view: dict[str, Tensor]) -> Tensor:
        """Encodes ``input_ids`` and ``attention_mask``, both ``[B, L]``, as ``[B, width]``."""
        rows, counts = self._ngrams(view["input_ids"], view["attention_mask"].bool())
        weights = functional.softplus(self.weight)[rows]
        text = torch.arange(len(counts), device=rows.device).repeat_interleave(counts)
        total = weights.new_zeros(len(counts)).index_add(0, text, weights)
        return self.table(rows, counts.cumsum(0) - counts, per_sample_weights=weights / total[text])

    def _ngrams(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the table rows of all n-grams, text by text, and the number of each text, ``[B]``."""
        size, length = self.table.num_embeddings, ids.shape[1]
        rows, masks = [ids % size], [mask]
        code = ids
        for n in range(2, min(self.ngrams, length) + 1):
            code = (code[:, :-1] * _GOLDEN + ids[:, n - 1 :]) & _WORD
            rows.append(_mixed(code) % size)  # unmixed, pairs of neighbouring tokens would share rows
            masks.append(masks[-1][:, :-1] & mask[:, n - 1 :])
        valid = torch.cat(masks, dim=1)
        return torch.cat(rows, dim=1)[valid], valid.sum(1)


def _mixed(code: Tensor) -> Tensor:
    """Mixes 32 bits so that each depends on all of them (MurmurHash3's last step)."""
    code = ((code ^ (code >> 16)) * 0x85EBCA6B) & _WORD
    code = ((code ^ (code >> 13)) * 0xC2B2AE35) & _WORD
    return code ^ (code >> 16)

"""Operations on batches of tokens, on any device.

Legend: ``ids [B, L]`` integer tokens, -1 after the last token of a text; ``u [B, L]`` uniform random numbers
in [0, 1), one per token. The operations run before special tokens are added.
"""

import torch
from einops import rearrange
from torch import Tensor

from bt_multimodal.draws import uniforms

NOISE = 2**24  # number of seeds for a text's noise
PADDING = -1


def noise(seed: Tensor, purpose: int, length: int) -> Tensor:
    """Returns uniform random numbers ``[B, length]`` from seeds ``[B]``; a larger length only appends."""
    return uniforms(purpose, 0, seed, 0, length)


def delete(ids: Tensor, u: Tensor, rate: float) -> Tensor:
    """Deletes each token with probability ``rate`` but keeps at least one.

    This is the noise of TSDAE (Wang et al., 2021, section 3), which uses 0.6.
    """
    is_token = ids != PADDING
    last = torch.where(is_token, u, -1.0).argmax(1, keepdim=True)  # the token that would be deleted last
    keep = is_token & ((u >= rate) | (torch.arange(ids.shape[1], device=ids.device) == last))
    order = (~keep).to(torch.uint8).argsort(dim=1, stable=True)
    return ids.masked_fill(~keep, PADDING).gather(1, order)


def shuffle(ids: Tensor, u: Tensor, distance: float) -> Tensor:
    """Shuffles tokens locally, into the order of ``position + distance * u``.

    A token moves by less than ``distance`` positions (Lample et al., 2018, section 2.3).
    """
    key = torch.arange(ids.shape[1], device=ids.device) + distance * u
    return ids.gather(1, key.masked_fill(ids == PADDING, torch.inf).argsort(dim=1, stable=True))


def mask(ids: Tensor, u: Tensor, rate: float, token: int, span: int = 1) -> Tensor:
    """Replaces spans of ``span`` tokens by ``token``; ``rate`` is the expected share of replaced tokens.

    A span begins at each token with the probability that yields that share.
    """
    begins = u < 1 - (1 - rate) ** (1 / span)
    covered = begins
    for k in range(1, span):
        covered = covered | torch.nn.functional.pad(begins, (k, 0))[:, : ids.shape[1]]
    return ids.masked_fill(covered & (ids != PADDING), token)


def assemble(ids: Tensor, prefix: list[int], suffix: list[int], pad: int) -> dict[str, Tensor]:
    """Adds special tokens around each text and pads to the longest text.

    A text without any token, special ones included, becomes one token of padding.

    Args:
        prefix, suffix: special tokens before and after each text.
        pad: the padding token.

    Returns:
        ``input_ids`` and ``attention_mask``, int64 ``[B, len(prefix) + L' + len(suffix)]`` for ``L'`` tokens
        in the longest text.
    """
    lengths = (ids != PADDING).sum(1)
    longest = max(1, int(lengths.max()) + len(prefix) + len(suffix))
    out = ids.new_full((len(ids), longest), pad, dtype=torch.int64)
    out[:, : len(prefix)] = out.new_tensor(prefix)
    content = ids[:, : longest - len(prefix) - len(suffix)].long()
    out[:, len(prefix) : len(prefix) + content.shape[1]] = torch.where(content == PADDING, pad, content)
    ends = rearrange(lengths + len(prefix), "b -> b 1")
    for token in suffix:
        out.scatter_(1, ends, token)
        ends = ends + 1
    mask = torch.arange(longest, device=ids.device) < ends.clamp(min=1)
    return {"input_ids": out, "attention_mask": mask.long()}

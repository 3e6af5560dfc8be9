"""What is done to batches of tokens, on any device.

Legend: ``ids [B, L]`` integer tokens, -1 after the last of a text; ``u [B, L]`` uniform numbers in
[0, 1), one a token. Special tokens are not there yet, so none of these touches them.
"""

import torch
from torch import Tensor

from bt_multimodal.draws import uniforms

NOISE = 2**24  # seeds of a text's own noise are below it
PADDING = -1


def noise(seed: Tensor, purpose: int, length: int) -> Tensor:
    """Uniform numbers of texts with a seed each, ``[B]`` to ``[B, length]``; longer only adds numbers."""
    return uniforms(purpose, 0, seed, 0, length)


def delete(ids: Tensor, u: Tensor, rate: float) -> Tensor:
    """Without each token with probability ``rate``, but with one of them at least.

    The noise of TSDAE (Wang et al., 2021, section 3), there at 0.6.
    """
    there = ids != PADDING
    last = torch.where(there, u, -1.0).argmax(1, keepdim=True)  # what would be the last to go
    keep = there & ((u >= rate) | (torch.arange(ids.shape[1], device=ids.device) == last))
    order = (~keep).to(torch.uint8).argsort(dim=1, stable=True)
    return ids.masked_fill(~keep, PADDING).gather(1, order)


def shuffle(ids: Tensor, u: Tensor, distance: float) -> Tensor:
    """Locally shuffled: the order of ``position + distance * u`` (Lample et al., 2018, section 2.3).

    A token moves by less than ``distance`` places.
    """
    place = torch.arange(ids.shape[1], device=ids.device) + distance * u
    return ids.gather(1, place.masked_fill(ids == PADDING, torch.inf).argsort(dim=1, stable=True))


def mask(ids: Tensor, u: Tensor, rate: float, token: int, span: int = 1) -> Tensor:
    """Spans of ``span`` tokens in the place of which ``token`` stands; ``rate`` is the share of the tokens.

    A span begins at each token with the probability that covers that share.
    """
    begins = u < 1 - (1 - rate) ** (1 / span)
    covered = begins
    for k in range(1, span):
        covered = covered | torch.nn.functional.pad(begins, (k, 0))[:, : ids.shape[1]]
    return ids.masked_fill(covered & (ids != PADDING), token)


def assemble(ids: Tensor, prefix: list[int], suffix: list[int], pad: int) -> dict[str, Tensor]:
    """What an encoder takes: special tokens around each text, padded to the longest of them.

    A text of no tokens, where no special ones are wanted either, is one of padding.

    Returns:
        ``input_ids`` and ``attention_mask``, ``[B, len(prefix) + L' + len(suffix)]`` int64.
    """
    lengths = (ids != PADDING).sum(1)
    longest = max(1, int(lengths.max()) + len(prefix) + len(suffix))
    out = ids.new_full((len(ids), longest), pad, dtype=torch.int64)
    out[:, : len(prefix)] = out.new_tensor(prefix)
    content = ids[:, : longest - len(prefix) - len(suffix)].long()
    at = slice(len(prefix), len(prefix) + content.shape[1])
    out[:, at] = torch.where(content == PADDING, pad, content)
    whole = lengths + len(prefix)
    for token in suffix:
        out.scatter_(1, whole[:, None], token)
        whole = whole + 1
    attended = torch.arange(longest, device=ids.device) < whole.clamp(min=1)[:, None]
    return {"input_ids": out, "attention_mask": attended.long()}

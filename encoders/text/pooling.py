"""Pooling of a text's token states to one vector."""

from collections.abc import Sequence

from einops import rearrange
from torch import Tensor

POOLINGS = ("mean", "cls", "first_last")


def check_pooling(pooling: str, known: Sequence[str] = POOLINGS) -> None:
    """Raises ``ValueError`` unless ``pooling`` is one of ``known``."""
    if pooling not in known:
        raise ValueError(f"there is no pooling {pooling!r}; there are {', '.join(known)}")


def pool(states: Sequence[Tensor], mask: Tensor, pooling: str) -> Tensor:
    """Returns one vector per text, ``[B, F]`` in float32.

    Args:
        states: states ``[B, L, F]`` of the embeddings and of every layer, like transformers'
            ``hidden_states``. Only ``"first_last"`` needs more than the last.
        mask: ``[B, L]``, 1 where there is a token.
        pooling: ``"mean"``: the mean over the tokens of the last layer. ``"cls"``: its first token.
            ``"first_last"``: the mean over the tokens of the average of the first and the last layer
            ("avg_first_last" in the code of SimCSE; Gao et al., 2021, section 6.3).
    """
    if pooling == "cls":
        return states[-1][:, 0].float()
    if pooling == "first_last":
        return masked_mean((states[1].float() + states[-1].float()) / 2, mask)
    return masked_mean(states[-1], mask)


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean ``[B, F]`` in float32 of tokens ``[B, L, F]`` where ``mask [B, L]`` is 1."""
    weights = mask.float()
    # Multiplication by 0 would keep NaN.
    masked = tokens.float().masked_fill(rearrange(weights, "b l -> b l 1") == 0, 0.0)
    return masked.sum(1) / weights.sum(1, keepdim=True).clamp(min=1)

"""From the states of a text's tokens to one vector."""

from collections.abc import Sequence

from torch import Tensor

POOLINGS = ("mean", "cls", "first_last")


def check_pooling(pooling: str, known: Sequence[str] = POOLINGS) -> None:
    """Raise ``ValueError`` unless ``pooling`` is one of ``known``."""
    if pooling not in known:
        raise ValueError(f"there is no pooling {pooling!r}; there are {', '.join(known)}")


def pool(states: Sequence[Tensor], mask: Tensor, pooling: str) -> Tensor:
    """One vector a text, ``[B, F]`` in float32.

    Args:
        states: ``[B, L, F]`` of the embeddings and of every layer after it, as ``hidden_states`` of
            transformers; the last alone will do but for ``"first_last"``.
        mask: ``[B, L]``, 1 where there is a token.
        pooling: ``"mean"`` over the tokens of the last layer. ``"cls"``: its first token.
            ``"first_last"``: the mean over the tokens of the mean of the first and the last layer
            ("avg_first_last" in the code of SimCSE; Gao et al., 2021, section 6.3).
    """
    if pooling == "cls":
        return states[-1][:, 0].float()
    if pooling == "first_last":
        return masked_mean((states[1].float() + states[-1].float()) / 2, mask)
    return masked_mean(states[-1], mask)


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """``[B, L, F]`` and ``[B, L]`` to the mean where the mask is 1, ``[B, F]`` in float32."""
    weights = mask.float()
    # where the mask is 0 even a NaN must not count
    kept = tokens.float().masked_fill(weights.unsqueeze(2) == 0, 0.0)
    return kept.sum(1) / weights.sum(1, keepdim=True).clamp(min=1)

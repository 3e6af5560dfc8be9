"""Embeddings of a batch that is larger than memory holds with gradients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bt_multimodal.compat import tree_flatten, tree_unflatten


def embed_in_micro_batches(
    embed: Callable[[Any], Tensor], view: Any, count: int, module: nn.Module
) -> Tensor:
    """``embed(view)``, a micro-batch at a time, forward and backward.

    The forward pass keeps no activations; the backward pass makes them anew, with the same random
    numbers, for one micro-batch after another. The result is an ordinary tensor in the graph, so the
    loss is that of the whole batch (the gradient caching of Gao et al., 2021, arXiv 2101.06983),
    under DistributedDataParallel as well. Only what mixes samples within the network sees
    micro-batches: BatchNorm, each with the micro-batch's statistics.

    Args:
        view: a pytree of tensors ``[B, ...]``.
        count: micro-batches, as equal as ``B`` allows.
        module: what ``embed`` runs; its buffers (BatchNorm's running statistics) are updated once.

    Returns:
        ``[B, D]``.

    Raises:
        ValueError: tensors that differ in ``B``, or fewer samples than micro-batches.
    """
    if not torch.is_grad_enabled():
        return torch.cat([embed(part) for part in _split(view, count)])

    def contexts() -> tuple[Any, Any]:
        return nullcontext(), _restored_buffers(module)

    parts = [
        checkpoint(embed, part, use_reentrant=False, context_fn=contexts) for part in _split(view, count)
    ]
    return torch.cat(parts)


def _split(view: Any, count: int) -> list[Any]:
    leaves, form = tree_flatten(view)
    sizes = {len(leaf) for leaf in leaves}
    if len(sizes) != 1:
        raise ValueError(f"the tensors of a view differ in their batch size: {sorted(sizes)}")
    if not 1 <= count <= min(sizes):
        raise ValueError(f"{min(sizes)} samples do not make {count} micro-batches")
    parts = zip(*(leaf.tensor_split(count) for leaf in leaves), strict=True)
    return [tree_unflatten(part, form) for part in parts]


@contextmanager
def _restored_buffers(module: nn.Module) -> Iterator[None]:
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)

"""Embeddings of a batch whose activations do not fit into memory."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bt_multimodal.compat import tree_flatten, tree_unflatten


def embed_in_micro_batches(
    embed: Callable[[Any], Tensor], view: Any, count: int, module: nn.Module
) -> Tensor:
    """``embed(view)``, forward and backward, one micro-batch at a time.

    The forward pass stores no activations; the backward pass recomputes them with the same random
    numbers, one micro-batch after the other. The result is an ordinary tensor in the graph, so the loss
    is that of the whole batch, also under DistributedDataParallel. This is the gradient caching of Gao
    et al., 2021, arXiv 2101.06983. Only layers that mix samples see the micro-batches: BatchNorm uses
    the statistics of each.

    Args:
        embed: takes a view, returns embeddings ``[B, D]``.
        view: a pytree of tensors ``[B, ...]``.
        count: the number of micro-batches, of equal size as far as ``B`` allows.
        module: the network that ``embed`` runs; its buffers (BatchNorm's running statistics) are updated
            only once.

    Returns:
        ``[B, D]``.

    Raises:
        ValueError: tensors that differ in ``B``, or fewer samples than micro-batches.
    """
    if not torch.is_grad_enabled():
        return torch.cat([embed(micro_batch) for micro_batch in _split(view, count)])

    def contexts() -> tuple[Any, Any]:
        return nullcontext(), _RestoredBuffers(module)

    embeddings = [
        checkpoint(embed, micro_batch, use_reentrant=False, context_fn=contexts)
        for micro_batch in _split(view, count)
    ]
    return torch.cat(embeddings)


def _split(view: Any, count: int) -> list[Any]:
    leaves, form = tree_flatten(view)
    sizes = {len(leaf) for leaf in leaves}
    if len(sizes) != 1:
        raise ValueError(f"the tensors of a view differ in their batch size: {sorted(sizes)}")
    if not 1 <= count <= min(sizes):
        raise ValueError(f"{min(sizes)} samples cannot be split into {count} micro-batches")
    micro_batches = zip(*(leaf.tensor_split(count) for leaf in leaves), strict=True)
    return [tree_unflatten(micro_batch, form) for micro_batch in micro_batches]


class _RestoredBuffers:
    """Context that leaves a module's buffers as they were; second derivatives enter it more than once."""

    def __init__(self, module: nn.Module):
        self._module = module

    def __enter__(self) -> None:
        self._saved = [(buffer, buffer.clone()) for buffer in self._module.buffers()]

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        for buffer, value in self._saved:
            buffer.copy_(value)

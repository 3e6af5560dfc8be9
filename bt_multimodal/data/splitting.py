"""Splitting records into two parts at random."""

import math

import torch
from torch import Tensor


def stratified_split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Hold out ``ceil(share * N)`` of ``N`` samples at random, in proportion from each class.

    Args:
        labels: ``[N]`` integers. Every value is a class, so labels that are all -1 mean a plain random
            split.
        share: of the samples to hold out, from 0 to 1.
        seed: of the random order.

    Returns:
        Sorted indices ``(rest, held_out)``; they depend only on the arguments.

    Raises:
        ValueError: ``share`` is out of range.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, not {share}")
    n = len(labels)
    _, classes, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
    exact = sizes.double() * share
    quota = (exact + 1e-9).floor().long()  # the margins undo rounding: 0.07 * 100 is above 7 in binary
    missing = math.ceil(share * n - 1e-9) - int(quota.sum())
    quota[torch.argsort(exact - quota, descending=True, stable=True)[:missing]] += 1
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    order = order[torch.argsort(classes[order], stable=True)]
    place = torch.arange(n) - (sizes.cumsum(0) - sizes)[classes[order]]
    held_out = place < quota[classes[order]]
    return order[~held_out].sort().values, order[held_out].sort().values


def hold_out(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """`stratified_split` of the samples that have a label; all others stay. Of all, if none has one.

    Args:
        labels: ``[N]`` integers, -1 without a label.
        share, seed: as in `stratified_split`.

    Returns:
        Sorted indices ``(rest, held_out)``.
    """
    known = (labels >= 0).nonzero().flatten()
    if len(known) in (0, len(labels)):
        return stratified_split(labels, share, seed)
    rest, held_out = stratified_split(labels[known], share, seed)
    unlabelled = (labels < 0).nonzero().flatten()
    return torch.cat([unlabelled, known[rest]]).sort().values, known[held_out]

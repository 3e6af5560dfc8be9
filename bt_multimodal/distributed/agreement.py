"""Checks of embeddings on all ranks at once: what one rank alone has wrong ends in one line on every rank."""

from typing import Any

import torch
from torch import Tensor

from bt_multimodal.distributed.collectives import of_every_rank, world_size

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_TEXT = 240  # bytes of a message that are told to the other ranks


def _fault(z_first: Any, z_second: Any) -> str | None:
    """What is wrong with two batches of embeddings, as one rank sees them."""
    if not (isinstance(z_first, Tensor) and isinstance(z_second, Tensor)):
        kinds = f"{type(z_first).__name__} and {type(z_second).__name__}"
        return f"needs two batches of embeddings, tensors [n, D]; got {kinds}"
    if z_first.ndim != 2 or z_first.shape != z_second.shape:
        return (
            "needs two batches of embeddings [n, D] of the same shape, got "
            f"{list(z_first.shape)} and {list(z_second.shape)}"
        )
    if not (z_first.is_floating_point() and z_second.is_floating_point()):
        return f"embeddings must be floating point, got {z_first.dtype} and {z_second.dtype}"
    if z_first.shape[1] == 0:
        return f"embeddings must have a width of 1 or more, got {list(z_first.shape)}"
    if z_first.device != z_second.device:
        return f"both batches of embeddings must be on one device, got {z_first.device} and {z_second.device}"
    return None


def checked_sizes(z_first: Tensor, z_second: Tensor) -> list[int]:
    """The batch size ``n`` of every rank, in rank order; checks two batches of embeddings ``[n, D]``.

    Raises:
        ValueError: on every rank, whichever rank is at fault: shapes that differ or are not 2-D, a dtype that
            is not floating point, ranks that differ in width, in dtype or in what requires a gradient, or a
            global batch of fewer than 2 samples.
    """
    fault = _fault(z_first, z_second)
    if world_size() == 1:
        if fault is not None:
            raise ValueError(fault)
        sizes = [z_first.shape[0]]
    else:
        sizes = _agreed_sizes(z_first, z_second, fault)
    if sum(sizes) < 2:
        raise ValueError(f"a correlation needs 2 samples or more, got a global batch of {sum(sizes)}")
    return sizes


def _agreed_sizes(z_first: Tensor, z_second: Tensor, fault: str | None) -> list[int]:
    """One exchange of a fixed size, then every rank judges the same numbers."""
    text = (fault or "").encode()[:_TEXT]
    kinds = [0] * 4
    if fault is None:
        # A gradient on one side of one rank alone would pair its backward pass with another one elsewhere.
        graph = torch.is_grad_enabled()
        kinds = [_code(z) for z in (z_first, z_second)]
        kinds += [graph and z.requires_grad for z in (z_first, z_second)]
    shape = list(z_first.shape) if fault is None else [0, 0]
    device = next((z.device for z in (z_first, z_second) if isinstance(z, Tensor)), torch.device("cpu"))
    padded = text.ljust(_TEXT, b"\0")
    words = [int.from_bytes(padded[i : i + 6], "little") for i in range(0, _TEXT, 6)]
    ranks = of_every_rank([*shape, *kinds, *words], device)

    for rank, numbers in enumerate(ranks):
        if numbers[6]:
            told = b"".join(word.to_bytes(6, "little") for word in numbers[6:]).rstrip(b"\0")
            raise ValueError(f"rank {rank}: {told.decode(errors='ignore')}")
    widths = [numbers[1] for numbers in ranks]
    if len(set(widths)) > 1:
        raise ValueError(f"the ranks' embeddings differ in width: {widths}")
    for what, at, names in (
        ("dtype", 2, [*map(str, _DTYPES), "another"]),
        ("requires_grad", 4, ["no", "yes"]),
    ):
        pairs = [f"{names[numbers[at]]} and {names[numbers[at + 1]]}" for numbers in ranks]
        if len(set(pairs)) > 1:
            raise ValueError(f"the ranks' embeddings differ in {what}: {', '.join(pairs)}")
    return [numbers[0] for numbers in ranks]


def _code(z: Tensor) -> int:
    return _DTYPES.index(z.dtype) if z.dtype in _DTYPES else len(_DTYPES)

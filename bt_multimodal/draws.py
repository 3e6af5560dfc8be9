"""Random numbers that depend on their purpose, not on the order in which they are drawn.

The random parameters of a view come from a counter-based generator with the key (run seed, epoch) and
the counter (sample index, view). Views are therefore the same for any batch size, number of workers and
number of ranks, and resuming a run needs no random state.

The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
It is implemented on int64 tensors, so a whole batch is drawn at once, on any device.
"""

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def _multiply(constant: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of ``constant * x`` for 32-bit values held in int64."""
    # Split so that each partial product fits into the 63 bits of an int64.
    low = constant * (x & 0xFFFF)
    high = constant * (x >> 16) + (low >> 16)
    return (high >> 16) & _MASK, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Philox4x32-10: four random 32-bit words from four words of counter and two words of key."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return [c0, c1, c2, c3]


def uniforms(seed: int, epoch: int, index: Tensor, view: int, count: int) -> Tensor:
    """Uniform numbers in [0, 1) for each sample of a batch.

    Args:
        seed: the run's seed, a non-negative integer; its low 32 bits are used.
        epoch: the epoch.
        index: ``[B]`` integer sample indices within the data set.
        view: 0 for the first view, 1 for the second; other purposes use other numbers.
        count: the number of random numbers per sample.

    Returns:
        ``[B, count]`` float32 on the device of ``index``; each has 24 random bits.
    """
    index = index.to(torch.int64).unsqueeze(1)
    block = torch.arange((count + 3) // 4, device=index.device).unsqueeze(0)
    shape = (index.shape[0], block.shape[1])
    counter = (
        block.expand(shape),
        torch.full(shape, view, dtype=torch.int64, device=index.device),
        (index & _MASK).expand(shape),
        (index >> 32).expand(shape),
    )
    words = torch.stack(philox(counter, (seed & _MASK, epoch & _MASK)), dim=-1)
    return (words.flatten(1)[:, :count] >> 8).to(torch.float32) * 2.0**-24

"""Raw records to tensors, under one policy for damaged ones."""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bt_multimodal.records import DataError, Records

_STRIDE = 7919  # a prime: what replaces a damaged record is far from it, and always the same


class DecodedRecords:
    """Records as tensors. A damaged one is named in a warning, once, and counted.

    Training takes another record in its place (`batch`), evaluation leaves it out (`get`).

    Args:
        records: raw records.
        decode: raw content to a tensor, no randomness; an exception means a damaged record.
        cache: decode everything now and keep it in memory.
        allowed: the share of the records above which damage is an error.

    Attributes:
        labels: ``[N]`` int64, -1: none.
        classes: the class names.

    Raises:
        DataError: too many damaged records, here or in any later call.
    """

    def __init__(
        self,
        records: Records,
        decode: Callable[[Any], Tensor],
        cache: bool = False,
        allowed: float = 0.01,
    ):
        self.labels, self.classes = records.labels, records.classes
        self._records, self._decode, self._most = records, decode, allowed * len(records)
        # A subset shares all but `labels` and `_rows` with its origin: one count, one cache.
        self._rows = torch.arange(len(records))
        self._damaged: set[int] = set()
        self._cache: list[Tensor | None] | None = None
        if cache:
            self._cache = [self.get(i) for i in range(len(records))]

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, i: int) -> str:
        """How to name record ``i`` in a message."""
        return self._records.name(int(self._rows[i]))

    def subset(self, indices: Tensor | Sequence[int]) -> "DecodedRecords":
        """The records at ``indices``, in that order."""
        part = copy.copy(self)
        at = torch.as_tensor(indices, dtype=torch.int64)
        part._rows, part.labels = self._rows[at], self.labels[at]
        return part

    def get(self, i: int) -> Tensor | None:
        """Record ``i``, or ``None`` if it is damaged."""
        row = int(self._rows[i])
        if self._cache is not None:
            return self._cache[row]
        if row in self._damaged:
            return None
        try:
            return self._decode(self._records.raw(row))
        except Exception as error:  # decoders raise errors of any type
            self._note(row, error)
            return None

    def batch(self, indices: Tensor) -> tuple[list[Tensor], Tensor]:
        """Records and labels at ``indices [B]``, other ones in the place of the damaged."""
        decoded, sources = zip(*map(self._intact, indices.tolist()), strict=True)
        return list(decoded), self.labels[list(sources)]

    def _intact(self, i: int) -> tuple[Tensor, int]:
        for _ in range(len(self)):
            decoded = self.get(i)
            if decoded is not None:
                return decoded, i
            i = (i + _STRIDE) % len(self)
        raise DataError("every record is damaged")

    def _note(self, row: int, error: Exception) -> None:
        self._damaged.add(row)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        text = f"damaged record {self._records.name(row)}: {reason}"
        count, total = len(self._damaged), len(self._records)
        if count > self._most:
            raise DataError(
                f"{text} ({count} of {total} damaged so far, over the allowed {int(self._most)})"
            ) from error
        warnings.warn(text, stacklevel=3)

"""Undecoded records to tensors, under one policy for damaged ones."""

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor

from bt_multimodal.data.records import DataError, Records, shortened

T = TypeVar("T")

_STRIDE = 7919  # a prime: what replaces a damaged record is far from it, and always the same


class Tally:
    """How many records training has tried in this process, and how many of them were damaged."""

    tried = damaged = 0


class DecodedRecords:
    """Records as tensors. A damaged one is named in a warning, once, and counted.

    Training takes another record in its place (`batch`, `read`), evaluation leaves it out (`get`).
    Damage is an error once more records than allowed are damaged. Each of many loader processes sees a
    part of the records only, so damage is also an error once those that training has tried in one process
    have clearly more than their share.

    Args:
        records: undecoded records.
        decode: turns an undecoded content into a tensor, without randomness; an exception means that the
            record is damaged.
        cache: decode everything now and keep it in memory.
        allowed: the share of the records above which damage is an error.
        tally: the count over several sets of records, where ``records`` are one part of a whole of unknown
            size; then only the second rule holds.

    Attributes:
        records: the undecoded records, with their labels, classes and names.

    Raises:
        DataError: too many damaged records, here or in any later call.
    """

    def __init__(
        self,
        records: Records,
        decode: Callable[[Any], Tensor],
        cache: bool = False,
        allowed: float = 0.01,
        tally: Tally | None = None,
    ):
        self.records = records
        self._whole, self._decode, self._allowed = records, decode, allowed
        self._most = allowed * len(records) if tally is None else math.inf
        # A subset shares all but `records` and `_rows` with its origin: one count of damage, one cache.
        self._rows = torch.arange(len(records))
        self._damaged: set[int] = set()
        self._tried, self._tally = bytearray(len(records)), tally or Tally()
        self._cache: list[Tensor | None] | None = None
        if cache:
            self._cache = [self.get(i) for i in range(len(records))]

    def __len__(self) -> int:
        return len(self._rows)

    def subset(self, indices: Tensor | Sequence[int]) -> "DecodedRecords":
        """The records at ``indices``, in that order."""
        part = copy.copy(self)
        part.records = self.records.subset(indices)
        part._rows = self._rows[torch.as_tensor(indices, dtype=torch.int64)]
        return part

    @property
    def cached(self) -> bool:
        """Whether everything is in memory."""
        return self._cache is not None

    def get(self, i: int) -> Tensor | None:
        """Record ``i``, or ``None`` if it is damaged."""
        row = int(self._rows[i])
        if self._cache is not None:
            return self._cache[row]
        return self._guarded(row, lambda: self._decode(self._whole.raw(row)))

    def batch(self, indices: Tensor) -> tuple[list[Tensor], Tensor]:
        """Records and labels at ``indices [B]``; another record takes the place of a damaged one."""
        return self._intact(indices, lambda i, _: self.get(i))

    def read(self, indices: Tensor, read: Callable[[BinaryIO, int], T]) -> tuple[list[T], Tensor]:
        """What ``read(file, k)`` takes from the open file of each record, and the labels.

        ``k`` counts from 0 over ``indices [B]``; another record takes the place of a damaged one.
        """

        def opened(row: int, k: int) -> T:
            with self._whole.open(row) as file:
                return read(file, k)

        def guarded(i: int, k: int) -> T | None:
            row = int(self._rows[i])
            return self._guarded(row, lambda: opened(row, k))

        return self._intact(indices, guarded)

    def _guarded(self, row: int, take: Callable[[], T]) -> T | None:
        if row in self._damaged:
            return None
        try:
            return take()
        except Exception as error:  # decoders raise errors of any type
            self._note(row, error)
            return None

    def _intact(self, indices: Tensor, take: Callable[[int, int], T | None]) -> tuple[list[T], Tensor]:
        taken: list[T] = []
        sources: list[int] = []
        for k, i in enumerate(indices.tolist()):
            for _ in range(len(self)):
                item = take(i, k)
                self._count(i, item is None)
                if item is not None:
                    break
                i = (i + _STRIDE) % len(self)
            else:
                raise DataError("every record is damaged")
            taken.append(item)
            sources.append(i)
        return taken, self.records.labels[sources]

    def _count(self, i: int, damaged: bool) -> None:
        """Training tries records at random, so those tried speak for the others; in order they would not."""
        row, tally = int(self._rows[i]), self._tally
        if self._tried[row]:
            return
        self._tried[row] = True
        tally.tried += 1
        tally.damaged += damaged
        expected = self._allowed * tally.tried
        # Five standard deviations of chance, and five for the few.
        if damaged and tally.damaged > expected + 5 * math.sqrt(expected) + 5:
            raise DataError(
                f"{tally.damaged} of the {tally.tried} records tried so far are damaged, the last being "
                f"{self.records.name(i)}: clearly over the allowed {100 * self._allowed:.3g} %"
            )

    def _note(self, row: int, error: Exception) -> None:
        self._damaged.add(row)
        reason = shortened(" ".join(f"{type(error).__name__}: {error}".split()), 500)
        text = f"damaged record {self._whole.name(row)}: {reason}"
        count, total = len(self._damaged), len(self._whole)
        if count > self._most:
            raise DataError(
                f"{text} ({count} of {total} damaged so far, over the allowed {int(self._most)})"
            ) from error
        warnings.warn(text, stacklevel=4)

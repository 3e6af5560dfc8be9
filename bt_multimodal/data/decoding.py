"""Decoding records to tensors, with one policy for damaged records."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor

from bt_multimodal.data.columns import DataError, shortened
from bt_multimodal.data.damage import DamageLog
from bt_multimodal.data.progress import progressing
from bt_multimodal.data.records import Records

T = TypeVar("T")

_STRIDE = 7919  # a prime: a damaged record is always replaced by the same record, far away from it


class Tally:
    """The number of records that training has tried in this process, and how many were damaged."""

    tried = damaged = 0


class DecodedRecords:
    """Records as tensors. Each damaged or unsupported record is counted and named once.

    Training replaces a damaged record by another one (`batch`, `read`); evaluation skips it (`get`).
    Two rules turn damage into an error: more damaged records than ``allowed`` and ``least`` permit; or,
    because each loader process sees only a part of the records, clearly more than that share of those that
    training has tried in one process.

    Args:
        records: undecoded records.
        decode: decodes the content of a record to a tensor, without randomness; an exception means that
            the record is damaged, or unsupported where its message begins with that word.
        cache: decode everything now and keep it in memory.
        allowed: the share of damaged records, from 0 to 1, above which damage is an error.
        tally: a count shared by several sets of records, when ``records`` is one part of a whole of
            unknown size; then only the second rule applies.
        least: as many damaged records are no error whatever their share, if they are at most half of all.
        log: where damaged records are named; by default in a warning each.

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
        *,
        least: int = 5,
        log: DamageLog | None = None,
    ):
        self.records = records
        self._whole, self._decode, self._allowed = records, decode, allowed
        self._least = least if tally else min(least, len(records) // 2)
        self._most = math.inf if tally else max(allowed * len(records), self._least)
        self._log = log or DamageLog()
        # A subset has its own `records` and `_rows` and shares the rest: one count of damage, one cache.
        self._rows = torch.arange(len(records))
        self._damaged: set[int] = set()
        self._tried, self._tally = bytearray(len(records)), tally or Tally()
        self._cache: list[Tensor | None] | None = None
        if cache:
            self._cache = [self.get(i) for i in progressing(range(len(records)), "decoding")]

    def __len__(self) -> int:
        return len(self._rows)

    def subset(self, indices: Tensor | Sequence[int]) -> "DecodedRecords":
        """The records at ``indices``, in that order."""
        subset = copy.copy(self)
        subset.records = self.records.subset(indices)
        subset._rows = self._rows[torch.as_tensor(indices, dtype=torch.int64)]
        return subset

    def labelled(self) -> "DecodedRecords":
        """The records that have a label."""
        known = self.records.labels >= 0
        return self if known.all() else self.subset(known.nonzero().flatten())

    @property
    def cached(self) -> bool:
        """Whether all decoded records are in memory."""
        return self._cache is not None

    def get(self, i: int) -> Tensor | None:
        """Record ``i``, or ``None`` if it is damaged."""
        row = int(self._rows[i])
        if self._cache is not None:
            return self._cache[row]
        return self._guarded(row, lambda: self._decode(self._whole.raw(row)))

    def batch(self, indices: Tensor) -> tuple[list[Tensor], Tensor]:
        """Records and labels at ``indices [B]``; damaged records are replaced by others."""
        return self._intact(indices, lambda i, _: self.get(i))

    def read(self, indices: Tensor, read: Callable[[BinaryIO, int], T]) -> tuple[list[T], Tensor]:
        """What ``read(file, k)`` returns for the open file of each record, and the labels.

        ``k`` is the position in ``indices [B]``. Damaged records are replaced by others.
        """

        def opened(row: int, k: int) -> T:
            with self._whole.open(row) as file:
                return read(file, k)

        def guarded(i: int, k: int) -> T | None:
            row = int(self._rows[i])
            return self._guarded(row, lambda: opened(row, k))

        return self._intact(indices, guarded)

    def _guarded(self, row: int, load: Callable[[], T]) -> T | None:
        if row in self._damaged:
            return None
        try:
            return load()
        except Exception as error:  # decoders raise errors of any type
            self._note(row, error)
            return None

    def _intact(self, indices: Tensor, load: Callable[[int, int], T | None]) -> tuple[list[T], Tensor]:
        loaded: list[T] = []
        sources: list[int] = []
        for k, i in enumerate(indices.tolist()):
            for _ in range(len(self)):
                record = load(i, k)
                self._count(i, record is None)
                if record is not None:
                    break
                i = (i + _STRIDE) % len(self)
            else:
                raise DataError("every record is damaged")
            loaded.append(record)
            sources.append(i)
        return loaded, self.records.labels[sources]

    def _count(self, i: int, damaged: bool) -> None:
        """Count a record that training tries; training draws at random, so the count is representative."""
        row, tally = int(self._rows[i]), self._tally
        if self._tried[row]:
            return
        self._tried[row] = True
        tally.tried += 1
        tally.damaged += damaged
        expected = self._allowed * tally.tried
        # Five standard deviations, and five more for small counts.
        if damaged and tally.damaged > max(self._least, expected + 5 * math.sqrt(expected) + 5):
            raise DataError(
                f"{tally.damaged} of the {tally.tried} records tried so far are damaged, most recently "
                f"{self.records.name(i)}: clearly over the allowed {100 * self._allowed:.3g} %"
            )

    def _note(self, row: int, error: Exception) -> None:
        self._damaged.add(row)
        reason = shortened(" ".join(f"{type(error).__name__}: {error}".split()), 500)
        kind = "unsupported" if str(error).startswith("unsupported") else "damaged"
        text = f"{kind} record {self._whole.name(row)}: {reason}"
        count, total = len(self._damaged), len(self._whole)
        if count > self._most:
            self._log.keep(text)
            raise DataError(
                f"{text} ({count} of {total} {kind} so far, over the allowed {int(self._most)})"
            ) from error
        self._log.note(text)

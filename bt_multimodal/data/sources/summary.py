"""What was found in a source, in a few lines for the user."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from bt_multimodal.data.columns import printable, shortened
from bt_multimodal.launchers import is_first_rank

if TYPE_CHECKING:
    from bt_multimodal.data.records import Records, Splits

_MOST = 4  # classes, or lines of one kind, that are named


class Found(NamedTuple):
    """What a source is read as, and what is not read of it.

    Attributes:
        taken: the source and what is read of it.
        listed: what tables say of its files.
        left: what is left out, and why.
        notes: unusual choices and how to choose otherwise.
        unread: files of other endings, counted.
    """

    taken: str
    listed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unread: str = ""

    def lines(self) -> list[str]:
        """The source, then what is to be said of it, each line indented."""
        rest = [*self.listed, *(f"left out: {text.removeprefix('nothing: ')}" for text in _few(self.left))]
        rest += _few(self.notes)
        if self.unread:
            rest.append(f"not read: {self.unread}")
        return [printable(line) for line in (self.taken, *(f"  {line}" for line in rest))]


def _few(texts: Sequence[str]) -> list[str]:
    more = [f"and {len(texts) - 2 * _MOST} more of this kind"] if len(texts) > 2 * _MOST else []
    return [*texts[: 2 * _MOST], *more]


def summary(splits: "Splits") -> list[str]:
    """Lines that say what is trained and tested on: sources, records by split and class, what is left out."""
    lines = [line for found in splits.found for line in found.lines()]
    lines.append(f"  train: {_described(splits.train)}")
    if not len(splits.test):
        unlabelled = not (splits.train.labels >= 0).any()
        lines.append(
            "  test: nothing, "
            + ("for there are no labels to test by" if unlabelled else "for there is none")
        )
    else:
        drawn = ", held out of train (20 %)" if splits.held_out else ""
        lines.append(f"  test: {_described(splits.test)}{drawn}")
    return lines


def _described(records: "Records") -> str:
    """``1,200 records, 3 without a label; 12 classes: dog (300), cat (200) and 10 more``."""
    labels = records.labels
    missing = int((labels < 0).sum())
    text = _counted(len(records), "record")
    if missing == len(records):
        return f"{text} without labels"
    if missing:
        text += f", {missing:,} of them without a label"
    counts = labels[labels >= 0].bincount(minlength=len(records.classes))
    there = int((counts > 0).sum())
    largest = counts.argsort(descending=True, stable=True)[:_MOST].tolist()
    shown = ", ".join(f"{shortened(records.classes[i], 30)} ({counts[i]:,})" for i in largest if counts[i])
    more = f" and {there - _MOST:,} more" if there > _MOST else ""
    return f"{text}; {_counted(there, 'class')}: {shown}{more}"


def _counted(number: int, what: str) -> str:
    plural = {"record": "records", "class": "classes"}
    return f"{number:,} {what if number == 1 else plural[what]}"


def say(lines: Sequence[str]) -> None:
    """Print lines on standard error, once over all ranks."""
    if is_first_rank():
        print("\n".join(lines), file=sys.stderr, flush=True)

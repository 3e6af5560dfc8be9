"""What a stage that takes long shows: a bar on a terminal, a line elsewhere, nothing if it is short."""

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from bt_multimodal.launchers import is_first_rank

T = TypeVar("T")

_DELAY = 3.0  # seconds without a word
_said: set[str] = set()  # stages that have had their line, as the features of every epoch would


def progressing(iterable: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items of ``iterable``; if they take over three seconds, it is shown how far they are.

    On a terminal that is a bar on standard error, elsewhere one line on standard output for all stages of the
    same name; standard error has the errors alone. Ranks other than the
    first show nothing.

    Args:
        iterable: yields the items.
        what: the stage, such as ``"decoding"``.
        total: the number of items; by default ``len(iterable)``, where it has one.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if not is_first_rank():
        yield from iterable
    elif sys.stderr is not None and sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(iterable, what, total, delay=_DELAY, leave=False, dynamic_ncols=True)
    else:
        began: float | None = time.monotonic()
        for item in iterable:
            if began is not None and time.monotonic() - began > _DELAY:
                _say(what)
                began = None
            yield item


@contextmanager
def working(what: str) -> Iterator[None]:
    """Context of a stage without countable parts; after three seconds a line says what is done."""
    if not is_first_rank():
        yield
        return
    timer = threading.Timer(_DELAY, _say, (what,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _say(what: str) -> None:
    stream = sys.stderr if sys.stderr is not None and sys.stderr.isatty() else sys.stdout
    if what not in _said and stream is not None:
        _said.add(what)
        print(f"{what} ...", file=stream, flush=True)

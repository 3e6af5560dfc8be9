"""A rank that stops answering is noticed by the others, which end in bounded time and say which it was.

A collective waits for every rank. If a machine loses its power or its network, the others wait for the
process group's timeout, which is half an hour, and then name nobody. Here every rank posts, once a
period, how far it is to the process group's store and reads what the others post.

No two machines' clocks are compared: a rank is silent when its post has not changed for some periods of
the reader's own clock, and that clock stands still while the reader itself is stopped.
"""

import atexit
import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from bt_multimodal.compat import process_group_store
from bt_multimodal.distributed.collectives import world_size
from bt_multimodal.errors import TRY_AGAIN

_SILENT = 4  # periods without a new post: one of the poster, one of the reader, two to spare
_NAMED = 4  # ranks in one line
_FOR_EVER = timedelta(days=20)  # about what fits the milliseconds of an int
_TORCH = str(Path(torch.__file__).parents[1])
_WAITING = ("torch/distributed/", "torch/autograd/")  # where a rank stands that waits for the others

# Every rank makes its watches in the same order: keys of their own for each.
_watches = itertools.count()


class _Post(NamedTuple):
    """What a rank says of itself; a new ``sequence`` each time."""

    sequence: int
    step: int
    busy: bool
    ended: bool
    host: str
    place: str


class RankWatch:
    """Watches the other ranks from threads of its own, and ends this process when the run hangs.

    The process ends with status `TRY_AGAIN` and one line on stderr when its own step count has not
    changed for ``timeout`` seconds, unless that is as it should be: all ranks answer, and some rank is
    `busy` or has not made its first step yet (loading, compiling). What hangs before the first step,
    with every rank alive, is left to the process group's own timeout. A watch is used once.

    Args:
        timeout: seconds without progress. Longer than the longest step, and than whatever else all
            ranks do together between two calls of `progress`.
        period: seconds between posts; by default a tenth of the timeout, at most 5.

    Raises:
        ValueError: a period of which fewer than five fit the timeout.
    """

    def __init__(self, timeout: float, period: float | None = None):
        period = min(timeout / 10, 5.0) if period is None else period
        if not 0 < 5 * period <= timeout:
            raise ValueError(f"needs 0 < 5 * period <= timeout, got {timeout=}, {period=}")
        self._timeout, self._period = timeout, period
        self._step = self._busy = 0
        self._ended = self._blaming = False
        self._threads: list[threading.Thread] = []
        self._leave = threading.Event()

        self._now = 0.0  # seconds that this process was awake
        self._answered = 0.0  # when the store last did, by that clock, as all times here
        self._posts: dict[int, _Post] = {}
        self._changes: dict[int, int] = {}
        self._changed: dict[int, float] = {}
        self._moved: dict[int, float] = {}  # when its step last changed

    def start(self) -> None:
        """Watch from now on; all ranks come here at about the same time, with the process group made.

        In one process there is nobody to watch.
        """
        if world_size() == 1:
            return
        self._rank, self._others = dist.get_rank(), [r for r in range(world_size()) if r != dist.get_rank()]
        self._host = socket.gethostname()
        group: Any = dist.group.WORLD
        self._store = process_group_store(group)  # kept: the server ends with it where it is this process's
        client = self._store.clone()  # the main thread's calls may wait, and these must not wait for them
        self._keys = f"rank_watch/{next(_watches)}"
        # One thread talks to the store, and may wait for a machine that is gone; one judges and never waits.
        self._threads = [
            threading.Thread(target=self._exchange, args=(client,), daemon=True),
            threading.Thread(target=self._judge, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        atexit.register(self._stop_threads)  # a thread inside torch would abort the interpreter's end

    def progress(self) -> None:
        """A step is done: counts, nothing else."""
        self._step += 1

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While this rank does something long alone, no rank's deadline runs as long as all answer."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    def blame(self) -> str | None:
        """The ranks that are not heard of any more, in one line; None if all are.

        For a rank whose collective has failed: a dead rank is silent for some periods before it counts
        as such, so this waits up to eight of them.
        """
        if not self._threads:
            return None
        self._blaming = True
        try:
            # The last post may be read a period late, the silence after it another: six, and two to spare.
            before, until = dict(self._changes), self._now + 8 * self._period
            while self._now < until and self._threads[1].is_alive():
                if self._silent() or self._store_is_silent():
                    time.sleep(self._period)  # others that went with it become silent too
                    return self._cause()
                # One change may have been read before this call and one posted before it; the third was not.
                if all(self._changes.get(rank, 0) >= before.get(rank, 0) + 3 for rank in self._others):
                    return None
                time.sleep(self._period / 4)
            return self._cause() if self._gone() else None
        finally:
            self._blaming = False

    def stop(self) -> None:
        """The run has come to its normal end here; from now on nobody's deadline runs, at no rank.

        Rank 0, which may have the store, stays until the others have read that, for two periods at most.
        """
        self._ended = True
        self._stop_threads()

    def _stop_threads(self) -> None:
        atexit.unregister(self._stop_threads)
        self._leave.set()
        for thread in self._threads:
            thread.join(4 * self._period)  # not for ever: the store may not answer
        self._threads = []

    # The thread that talks to the store.

    def _exchange(self, store: Any) -> None:
        known: list[int] = []
        try:
            store.set_timeout(_FOR_EVER)  # a call that gave up would leave its answer for the next one
            for sequence in itertools.count():
                self._post(store, sequence)
                self._read(store, known)
                # Sooner until all have been heard of: who is lost early is to be named with its host.
                share = 1 if len(known) == len(self._others) else 10
                if self._leave.wait(self._period / share) or self._has_ended(0):
                    break
            if self._ended and not self._has_ended(0):
                self._post(store, sequence + 1)
                # The store may end with rank 0's process: the others have time to read that it has ended.
                until = time.monotonic() + 2 * self._period
                while self._rank == 0 and not all(map(self._has_ended, self._others)):
                    if time.monotonic() > until:
                        break
                    time.sleep(min(self._period / 4, 0.05))
                    self._read(store, known)
        except (RuntimeError, OSError):  # the connection is lost: the store is silent from here on
            return

    def _post(self, store: Any, sequence: int) -> None:
        post = _Post(sequence, self._step, self._busy > 0, self._ended, self._host, _place())
        store.set(f"{self._keys}/{self._rank}", json.dumps(post))

    def _read(self, store: Any, known: list[int]) -> None:
        """The others' posts; ``known`` are the ranks that have one (to ask for another's would wait)."""
        known += [r for r in self._others if r not in known and store.check([f"{self._keys}/{r}"])]
        values = store.multi_get([f"{self._keys}/{rank}" for rank in known]) if known else []
        for rank, value in zip(known, values, strict=True):
            post, last = _Post(*json.loads(value)), self._posts.get(rank)
            if last is None or post.step != last.step:
                self._moved[rank] = self._now
            if last is None or post.sequence != last.sequence:
                self._changed[rank] = self._now
                self._changes[rank] = self._changes.get(rank, 0) + 1
            self._posts[rank] = post
        self._answered = self._now

    def _has_ended(self, rank: int) -> bool:
        return rank in self._posts and self._posts[rank].ended

    # The thread that judges.

    def _judge(self) -> None:
        step, since, last = self._step, 0.0, time.monotonic()
        while not self._leave.wait(self._period / 4):
            awake = time.monotonic()
            self._now += min(awake - last, self._period)  # a longer wait is this process's own absence
            last = awake
            if self._step != step or self._is_excused():
                step, since = self._step, self._now
                self._moved[self._rank] = self._now
            elif any(map(self._has_ended, self._others)):
                return
            elif self._now - since > self._timeout:
                try:
                    said = f"ends, {self._now - since:.0f} s without a step: {self._cause()}"
                    # sys.stderr may be locked by the thread that hangs.
                    os.write(2, f"rank {self._rank} on {self._host} {said}\n".encode())
                finally:
                    os._exit(TRY_AGAIN)

    def _is_excused(self) -> bool:
        """Whether some rank may take its time, and all answer."""
        if self._blaming:
            return True
        if self._silent() or self._store_is_silent():
            return False
        holds = self._busy > 0 or self._step == 0
        return holds or any(post.busy or post.step == 0 for post in list(self._posts.values()))

    def _silent(self) -> list[int]:
        """Ranks not heard of while the store answered."""
        oldest = self._answered - _SILENT * self._period
        return [r for r in self._others if self._changed.get(r, 0.0) < oldest and not self._has_ended(r)]

    def _store_is_silent(self) -> bool:
        return self._now - self._answered > _SILENT * self._period and not self._has_ended(0)

    def _gone(self) -> list[int]:
        return [rank for rank in self._others if self._has_ended(rank)]

    # What is said.

    def _cause(self) -> str:
        """Who is to blame, as far as can be told from here."""
        if silent := self._silent():
            return _join([self._silence(rank) for rank in silent])
        if self._store_is_silent():
            return f"{self._silent_store()} for {self._now - self._answered:.0f} s"
        if gone := self._gone():
            return _join([f"{self._name(r)} has ended, at step {self._posts[r].step}" for r in gone])
        return self._laggards()

    def _name(self, rank: int) -> str:
        if rank == self._rank:
            return "this rank"
        return f"rank {rank} on {self._posts[rank].host}" if rank in self._posts else f"rank {rank}"

    def _silent_store(self) -> str:
        store = self._store
        while isinstance(store, dist.PrefixStore):
            store = store.underlying_store
        if isinstance(store, dist.TCPStore):
            return f"{self._name(0)}: its machine has not answered at {store.host}:{store.port}"
        return f"the ranks' store has not answered at {getattr(store, 'path', type(store).__name__)}"

    def _silence(self, rank: int) -> str:
        seconds = f"{self._now - self._changed.get(rank, 0.0):.0f} s"
        if rank not in self._posts:
            return f"rank {rank} has never been heard of, in {seconds}"
        step = self._posts[rank].step
        return f"{self._name(rank)} has not been heard of for {seconds}, last at step {step}"

    def _laggards(self) -> str:
        """All answer: those behind in steps, or else those that are not waiting for the others."""
        posts = dict(self._posts)
        steps = {self._rank: self._step} | {rank: post.step for rank, post in posts.items()}
        places = {self._rank: _place()} | {rank: post.place for rank, post in posts.items()}
        low, high = min(steps.values()), max(steps.values())
        stuck = [rank for rank, step in steps.items() if step == low]
        rest = f"the others at {high}"
        if low == high:
            stuck = [rank for rank in steps if not places[rank].startswith(_WAITING)] or stuck
            rest = "the others wait for it" if len(stuck) < len(steps) else "as all are"
        return _join(
            [
                f"{self._name(rank)} is alive but has been at step {low} for "
                f"{self._now - self._moved.get(rank, 0.0):.0f} s, {rest}; it is in {places[rank]}"
                for rank in sorted(stuck)
            ]
        )


def _join(parts: list[str]) -> str:
    more = [f"and {len(parts) - _NAMED} more ranks"] if len(parts) > _NAMED else []
    return "; ".join(parts[:_NAMED] + more)


def _place() -> str:
    """Where this process's main thread is: file, line and function."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None:
        return "no main thread"
    path = frame.f_code.co_filename
    path = path[len(_TORCH) + 1 :] if path.startswith(_TORCH) else Path(path).name
    return f"{path}:{frame.f_lineno}, {frame.f_code.co_name}"

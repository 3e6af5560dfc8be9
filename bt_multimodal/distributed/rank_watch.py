"""Detecting a rank that stops responding: the other ranks end within a bounded time and name it.

A collective waits for every rank. If a machine loses power or its network, the other ranks wait for the
process group's timeout of half an hour, and the error does not name the lost rank. Here every rank posts
its progress to the process group's store once per period, and reads the posts of the others.

Clocks of different machines are never compared. A rank is silent if its post has not changed for some
periods of the reader's clock, which stands still while the reader itself is stopped.
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
_NAMED = 4  # ranks to name in one message at most
_FOR_EVER = timedelta(days=20)  # close to the largest int of milliseconds
_TORCH = str(Path(torch.__file__).parents[1])
_WAITING = ("torch/distributed/", "torch/autograd/")  # files in which a rank waits for the others

# Every rank creates its watches in the same order, so the number identifies a watch on all of them.
_watches = itertools.count()


class _Post(NamedTuple):
    """The status of a rank; ``sequence`` is new in each post."""

    sequence: int
    step: int
    busy: bool
    ended: bool
    host: str
    place: str


class RankWatch:
    """Watches the other ranks from background threads and ends this process if the run hangs.

    The process ends with status `TRY_AGAIN` and one line on stderr if its step count has not changed for
    ``timeout`` seconds. The exception: all ranks respond, and some rank is `busy` or has not finished
    its first step (loading, compiling). A run that hangs before the first step with all ranks alive is
    left to the process group's own timeout. A watch is used once.

    Args:
        timeout: seconds without progress. It must be longer than the longest step and than anything else
            that all ranks do together between two calls of `progress`.
        period: seconds between posts; by default a tenth of the timeout, at most 5.

    Raises:
        ValueError: fewer than five periods fit into the timeout.
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

        # All times are on this clock: seconds that this process was awake.
        self._now = 0.0
        self._answered = 0.0  # when the store last answered
        self._posts: dict[int, _Post] = {}
        self._changes: dict[int, int] = {}  # number of new posts of a rank
        self._changed: dict[int, float] = {}  # when the last one was read
        self._moved: dict[int, float] = {}  # when its step last changed

    def start(self) -> None:
        """Start to watch. All ranks call this at about the same time, after the process group is initialised.

        Does nothing in a single process.
        """
        if world_size() == 1:
            return
        self._rank, self._others = dist.get_rank(), [r for r in range(world_size()) if r != dist.get_rank()]
        self._host = socket.gethostname()
        group: Any = dist.group.WORLD
        self._store = process_group_store(group)  # keeps the store's server alive, if it is in this process
        client = self._store.clone()  # calls of the main thread may block; these must not wait for them
        self._keys = f"rank_watch/{next(_watches)}"
        # One thread uses the store and may wait for a lost machine; the other judges and never waits.
        self._threads = [
            threading.Thread(target=self._exchange, args=(client,), daemon=True),
            threading.Thread(target=self._judge, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        atexit.register(self._stop_threads)  # a thread inside torch would crash the interpreter's shutdown

    def progress(self) -> None:
        """Count a finished step."""
        self._step += 1

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Context for long work on this rank alone: no rank's timeout runs as long as all ranks respond."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    def blame(self) -> str | None:
        """The ranks that no longer respond, in one line; ``None`` if all do.

        Call it after a failed collective. A dead rank counts as silent only after some periods, so this
        waits for up to eight periods.
        """
        if not self._threads:
            return None
        self._blaming = True
        try:
            # Four periods of silence, up to one more to read the last post and one to notice; two to spare.
            before, until = dict(self._changes), self._now + 8 * self._period
            while self._now < until and self._threads[1].is_alive():
                if self._silent() or self._store_is_silent():
                    time.sleep(self._period)  # ranks lost at the same time become silent too
                    return self._cause()
                # The first two new posts may be from before this call; the third is not.
                if all(self._changes.get(rank, 0) >= before.get(rank, 0) + 3 for rank in self._others):
                    return None
                time.sleep(self._period / 4)
            return self._cause() if self._gone() else None
        finally:
            self._blaming = False

    def stop(self) -> None:
        """End the watch after the normal end of the run on this rank; from now on no rank's timeout runs.

        Rank 0, which may host the store, waits until the others have read this, two periods at most.
        """
        self._ended = True
        self._stop_threads()

    def _stop_threads(self) -> None:
        atexit.unregister(self._stop_threads)
        self._leave.set()
        for thread in self._threads:
            thread.join(4 * self._period)  # bounded: the store may not answer
        self._threads = []

    # The thread that uses the store.

    def _exchange(self, store: Any) -> None:
        known: list[int] = []
        try:
            store.set_timeout(_FOR_EVER)  # after a timeout, the next call would read the late answer
            for sequence in itertools.count():
                self._post(store, sequence)
                self._read(store, known)
                # Faster until every rank has posted, so that a rank lost early is named with its host.
                factor = 1 if len(known) == len(self._others) else 10
                if self._leave.wait(self._period / factor) or self._has_ended(0):
                    break
            if self._ended and not self._has_ended(0):
                self._post(store, sequence + 1)
                # The store may end with rank 0's process: give the others time to read the last post.
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
        """Read the others' posts; ``known`` are the ranks that have posted (reading others would block)."""
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
            self._now += min(awake - last, self._period)  # a longer wait means that this process was stopped
            last = awake
            if self._step != step or self._is_excused():
                step, since = self._step, self._now
                self._moved[self._rank] = self._now
            elif any(map(self._has_ended, self._others)):
                return
            elif self._now - since > self._timeout:
                try:
                    message = f"ends, {self._now - since:.0f} s without a step: {self._cause()}"
                    # Not sys.stderr, which the hanging thread may have locked.
                    os.write(2, f"rank {self._rank} on {self._host} {message}\n".encode())
                finally:
                    os._exit(TRY_AGAIN)

    def _is_excused(self) -> bool:
        """Whether all ranks respond and some rank has a reason to be slow."""
        if self._blaming:
            return True
        if self._silent() or self._store_is_silent():
            return False
        excused = self._busy > 0 or self._step == 0
        return excused or any(post.busy or post.step == 0 for post in list(self._posts.values()))

    def _silent(self) -> list[int]:
        """Ranks without a new post although the store answered."""
        oldest = self._answered - _SILENT * self._period
        return [r for r in self._others if self._changed.get(r, 0.0) < oldest and not self._has_ended(r)]

    def _store_is_silent(self) -> bool:
        return self._now - self._answered > _SILENT * self._period and not self._has_ended(0)

    def _gone(self) -> list[int]:
        return [rank for rank in self._others if self._has_ended(rank)]

    # Messages.

    def _cause(self) -> str:
        """The most likely cause, as seen from this rank."""
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
            return f"rank {rank} has never been heard from, in {seconds}"
        step = self._posts[rank].step
        return f"{self._name(rank)} has not been heard from for {seconds}, last at step {step}"

    def _laggards(self) -> str:
        """If all ranks respond: those with the fewest steps, or else those that wait for no other rank."""
        posts = dict(self._posts)
        steps = {self._rank: self._step} | {rank: post.step for rank, post in posts.items()}
        places = {self._rank: _place()} | {rank: post.place for rank, post in posts.items()}
        low, high = min(steps.values()), max(steps.values())
        stuck = [rank for rank, step in steps.items() if step == low]
        rest = f"the others at {high}"
        if low == high:
            stuck = [rank for rank in steps if not places[rank].startswith(_WAITING)] or stuck
            rest = "the others wait for it" if len(stuck) < len(steps) else "like all the others"
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
    """The current position of the main thread: file, line and function."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None:
        return "no main thread"
    path = frame.f_code.co_filename
    path = path[len(_TORCH) + 1 :] if path.startswith(_TORCH) else Path(path).name
    return f"{path}:{frame.f_lineno}, {frame.f_code.co_name}"

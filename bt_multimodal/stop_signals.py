"""Signals that stop a process: the first one lets it save and end, the second one ends it at once.

They are SIGINT (Ctrl-C), SIGTERM, SIGUSR1 and SIGHUP: what terminals, ``timeout``, systemd and SLURM send.
A signal often reaches every process of a group; loader processes leave it to the main one.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bt_multimodal.errors import Stopped

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)
)
# Seconds. ``timeout`` and schedulers send the same signal to a process and, right after, to its group.
_ONE_SIGNAL = 0.5

_owner = 0  # the process that handles the signals
_first = 0  # the first signal that it got
_held = False  # whether a signal is only noted


@contextmanager
def stop_signals() -> Iterator[None]:
    """Context in which the first of `SIGNALS` raises `Stopped`, or is noted (`held`), and a second one exits.

    A signal that the process ignores, such as SIGHUP under ``nohup``, stays ignored. Within another such
    context, and in a thread, nothing is done.
    """
    global _owner, _first, _held
    if _owner == os.getpid() or threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    _owner, _first, _held = os.getpid(), 0, False
    threading.Thread(target=_end_at_once, args=(reader, handled), daemon=True).start()
    # Python's own handlers wait until a long call into C returns; this file descriptor does not.
    before_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    before = {number: signal.signal(number, _on_signal) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_fd)
        writer.close()
        _owner = 0


def received() -> int:
    """The signal that this process got within `stop_signals`, or 0."""
    return _first if _owner == os.getpid() else 0


@contextmanager
def held() -> Iterator[None]:
    """Context in which a signal is only noted: the caller asks `received`, and raises `Stopped` itself."""
    yield from _holding(True)


@contextmanager
def not_held() -> Iterator[None]:
    """Context within `held` in which a signal raises `Stopped` all the same, also one noted before."""
    if received():
        raise Stopped(received())
    yield from _holding(False)


def _holding(hold: bool) -> Iterator[None]:
    global _held
    before, _held = _held, hold
    try:
        yield
    finally:
        _held = before


def _on_signal(number: int, frame: Any) -> None:
    global _first
    if os.getpid() != _owner or _first:  # a forked process leaves it to the main one
        return
    _first = number
    if not _held:
        raise Stopped(number)


def _end_at_once(reader: socket.socket, handled: list[int]) -> None:
    """Wait for the second signal in a thread, because the main one may be in a long call."""
    since: float | None = None
    with reader:
        while data := reader.recv(64):
            for number in set(data) & set(handled):
                now = time.monotonic()
                since = now if since is None else since
                if now - since > _ONE_SIGNAL:
                    os.write(2, f"\nended at once by a second {signal.Signals(number).name}\n".encode())
                    os._exit(128 + number)


def _forget() -> None:
    """In a forked process: a signal to it must not count as one to its parent."""
    if _owner and threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def leave_to_main(_: int = 0) -> None:
    """Of `SIGNALS` a loader process obeys only a second SIGTERM; its main process ends it otherwise.

    The first one may have been sent to the whole group. The argument is a loader worker's number.
    """
    times = 0

    def on_terminate(number: int, frame: Any) -> None:
        nonlocal times
        times += 1
        if times > 1:
            os._exit(0)

    for number in SIGNALS:
        signal.signal(number, on_terminate if number == signal.SIGTERM else signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def blocked() -> Iterator[None]:
    """Context that starts processes in which `SIGNALS` wait until they call `leave_to_main`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

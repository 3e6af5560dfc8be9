"""Each case is a process of its own that gets real signals; it imports no torch, so it starts fast."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

from bt_multimodal.errors import TRY_AGAIN, Stopped
from bt_multimodal.stop_signals import SIGNALS, stop_signals

HEAD = """
import hashlib, os, signal, sys, threading, time
from bt_multimodal.errors import Stopped
from bt_multimodal.stop_signals import SIGNALS, held, leave_to_main, not_held, received, stop_signals

for number in SIGNALS:  # in the background of a shell some are ignored
    signal.signal(number, signal.SIG_DFL)

def send(number=signal.SIGTERM, to=None):
    os.kill(to or os.getpid(), number)
    time.sleep(0.02)

def long_call():
    print("in it", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # one call into C, minutes long
"""


def process(body, **options):
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def outcome(body):
    with process(body) as child:
        out, err = child.communicate(timeout=60)
    return child.returncode, out.split(), err


@pytest.mark.parametrize("name", [number.name for number in SIGNALS])
def test_the_first_one_is_raised_at_once(name):
    body = f"""
    with stop_signals():
        try:
            send(signal.{name})
            print("unreachable")
        except Exception:
            print("an error of the decoder")
        except Stopped as stopped:
            print(stopped.number == signal.{name}, received() == signal.{name})
    """
    assert outcome(body)[:2] == (0, ["True", "True"])


def test_held_it_is_noted_and_raised_where_asked():
    body = """
    with stop_signals():
        with held():
            send(); print(received())
            try:
                with not_held(): print("unreachable")
            except Stopped: print("raised")
            print("goes on")
        with held(), not_held():
            pass
    """
    status, out, _ = outcome(body.replace("with held(), not_held():\n            pass", "print('end')"))
    assert (status, out) == (0, [str(int(signal.SIGTERM)), "raised", "goes", "on", "end"])


def test_what_it_says_and_the_status():
    assert str(Stopped(signal.SIGTERM)) == "stopped by SIGTERM"
    assert str(Stopped(signal.SIGHUP, "at step 3")) == "stopped by SIGHUP at step 3"
    assert [Stopped(number).status for number in (signal.SIGTERM, signal.SIGHUP)] == [TRY_AGAIN] * 2
    assert Stopped(signal.SIGINT).status == 130
    assert not isinstance(Stopped(1), Exception)


@pytest.mark.parametrize("hold", ["held()", "not_held()"])
def test_the_second_one_ends_a_long_call_at_once(hold):
    with process(f"with stop_signals(), {hold}: long_call()") as child:
        try:
            assert child.stdout.readline() == "in it\n"
            time.sleep(0.5)  # until it is
            child.send_signal(signal.SIGINT)
            time.sleep(0.7)
            assert child.poll() is None
            child.send_signal(signal.SIGTERM)
            _, err = child.communicate(timeout=30)
        finally:
            child.kill()
    assert child.returncode == 128 + signal.SIGTERM
    assert err.split("\n")[-2] == "ended at once by a second SIGTERM"


def test_one_that_arrives_twice_is_one():
    """As `timeout` sends it, to the process and to its group."""
    body = """
    with stop_signals(), held():
        send(); send(); time.sleep(0.1); print("alive")
    """
    assert outcome(body)[:2] == (0, ["alive"])


def test_one_that_is_ignored_stays_ignored():
    """As SIGHUP under nohup."""
    body = """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_signals():
        send(signal.SIGHUP); print(received())
    """
    assert outcome(body)[:2] == (0, ["0"])


def test_a_forked_process_leaves_it_to_its_parent():
    body = """
    with stop_signals():
        child = os.fork()
        if not child:
            try:
                time.sleep(0.5); os._exit(7)
            except BaseException: os._exit(8)
        time.sleep(0.1); send(to=child); time.sleep(0.7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), received())
    """
    assert outcome(body)[:2] == (0, ["7", "0"])


@pytest.mark.parametrize(
    ("signals", "status"),
    [("INT HUP USR1", 7), ("TERM", 7), ("TERM INT HUP", 7), ("TERM TERM", 0), ("INT TERM TERM", 0)],
)
def test_a_loader_process_obeys_a_second_sigterm(signals, status):
    body = f"""
    child = os.fork()
    if not child:
        leave_to_main()
        for _ in range(20): time.sleep(0.05)
        os._exit(7)
    time.sleep(0.2)
    for name in {signals!r}.split(): send(getattr(signal, "SIG" + name), child); time.sleep(0.1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert outcome(body)[:2] == (0, [str(status)])


def test_the_handlers_are_given_back():
    kept = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    before = [signal.getsignal(number) for number in SIGNALS]
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    with pytest.raises(Stopped), stop_signals(), stop_signals():
        signal.raise_signal(signal.SIGUSR1)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert signal.set_wakeup_fd(fd) == fd
    signal.signal(signal.SIGUSR1, kept)


def test_in_a_thread_nothing_is_done():
    body = """
    seen = []
    def work():
        with stop_signals(): seen.append(signal.getsignal(signal.SIGTERM))
    thread = threading.Thread(target=work); thread.start(); thread.join()
    print(seen == [signal.SIG_DFL])
    """
    assert outcome(body)[:2] == (0, ["True"])

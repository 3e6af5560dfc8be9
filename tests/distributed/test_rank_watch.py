"""A rank that stops answering: the others end in bounded time and say which one it was.

Processes over gloo; rank 0's holds the store. What a rank writes to stderr, and what `blame` says, is read
from files.
"""

import multiprocessing
import os
import re
import signal
import socket
import time
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist

from bt_multimodal.distributed.rank_watch import RankWatch
from bt_multimodal.errors import TRY_AGAIN

TIMEOUT, STEPS, AT = 2.5, 16, 8  # seconds; steps of 0.1 s; the step at which something happens
FAILED = 9  # status of a rank whose collective has failed
BOUND = 3 * TIMEOUT  # seconds from what happens to the end of the last process: a loaded machine is slow

contexts = multiprocessing.get_context("forkserver")
contexts.set_forkserver_preload(["torch", "bt_multimodal.distributed.rank_watch"])


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def freeze():
    os.kill(os.getpid(), signal.SIGSTOP)


def freeze_after_a_post():
    time.sleep(TIMEOUT / 5)
    freeze()


def go_on():
    pass


def fall_behind():
    """Not now, but after the step's all-reduce."""


def sleep_on():
    time.sleep(60)


def rank_main(rank, world, port, folder, victim, act, busy):
    """Steps of one all-reduce; before step `AT` rank ``victim`` does ``act``, within `busy` if told so."""
    os.dup2(os.open(folder / f"{rank}.err", os.O_CREAT | os.O_WRONLY), 2)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    watch = RankWatch(TIMEOUT)
    watch.start()
    try:
        for step in range(STEPS):
            if step == AT and rank == victim:
                (folder / "time").write_text(str(time.time()))
                with watch.busy() if busy else nullcontext():
                    act()
            dist.all_reduce(torch.ones(1))
            if step == AT and rank == victim and act is fall_behind:
                sleep_on()
            watch.progress()
            time.sleep(0.1)
    except RuntimeError:
        (folder / f"{rank}.blame").write_text(str(watch.blame()))
        os._exit(FAILED)
    watch.stop()
    dist.destroy_process_group()


class Ended(NamedTuple):
    """A rank's exit status (a signal's is negative), its stderr and what `blame` said, if it was asked."""

    status: int
    stderr: str
    blame: str | None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(folder, world, victim=None, act=None, busy=False, main=rank_main):
    arguments = (world, free_port(), folder, victim, act, busy)
    ranks = [contexts.Process(target=main, args=(rank, *arguments)) for rank in range(world)]
    for process in ranks:
        process.start()
    return ranks


def end(folder, ranks, frozen=None):
    """Waits for all ranks but the ``frozen`` one, which is killed, and at most a minute."""
    until = time.time() + 60
    waited = [process for rank, process in enumerate(ranks) if rank != frozen]
    for process in waited:
        process.join(max(0.0, until - time.time()))
    hang = [process.is_alive() for process in waited]
    for process in ranks:
        process.kill()
        process.join()
    assert not any(hang), f"did not end: {hang}, {[f.read_text() for f in folder.glob('*.err')]}"
    took = time.time() - float((folder / "time").read_text()) if (folder / "time").exists() else 0.0
    result = []
    for rank, process in enumerate(ranks):
        blame = folder / f"{rank}.blame"
        stderr = (folder / f"{rank}.err").read_text()
        result.append(Ended(process.exitcode, stderr, blame.read_text() if blame.exists() else None))
    return result, took


def named_by(ended: Ended) -> str:
    """What a rank said, by the way in which it has learnt of it: its deadline or its collective's failure."""
    if ended.status == FAILED:
        assert ended.blame is not None
        return ended.blame
    assert ended.status == TRY_AGAIN, ended
    lines = [line for line in ended.stderr.splitlines() if " ends, " in line]
    assert len(lines) == 1, ended.stderr
    return lines[0].split(" without a step: ")[1]


HERE = socket.gethostname()


@pytest.mark.parametrize("victim", [1, 0], ids=["rank", "with-the-store"])
def test_a_killed_rank_is_blamed(tmp_path, victim):
    ended, took = end(tmp_path, start(tmp_path, 3, victim, kill))
    assert took < BOUND
    assert ended[victim].status == -signal.SIGKILL
    for rank, other in enumerate(ended):
        if rank != victim:
            assert other.status == FAILED
            assert other.blame is not None
            assert other.blame.startswith(f"rank {victim} on {HERE}")
            assert f"rank {3 - victim - rank} " not in other.blame, "another one is blamed as well"


@pytest.mark.parametrize(("act", "busy"), [(freeze, False), (freeze_after_a_post, True)], ids=["", "busy"])
def test_a_frozen_rank_ends_the_others(tmp_path, act, busy):
    """The first to reach its deadline ends by it, the others by theirs or by their failed collective."""
    ended, took = end(tmp_path, start(tmp_path, 3, 1, act, busy), frozen=1)
    assert 0.9 * TIMEOUT < took < BOUND
    assert TRY_AGAIN in (ended[0].status, ended[2].status)
    for other in (ended[0], ended[2]):
        silence = rf"rank 1 on {HERE} has not been heard from for (\d+) s, last at step (\d)"
        said = re.fullmatch(silence, named_by(other))
        assert said is not None, named_by(other)
        assert TIMEOUT - 1 < int(said[1]) < 2 * TIMEOUT
        assert AT - 5 <= int(said[2]) <= AT, "older than a post can be"


@pytest.mark.parametrize(
    ("act", "others"), [(sleep_on, "the others wait for it"), (fall_behind, f"the others at {AT + 1}")]
)
def test_a_rank_that_answers_but_is_stuck(tmp_path, act, others):
    ended, took = end(tmp_path, start(tmp_path, 2, 1, act))
    assert took < BOUND
    assert ended[0].status == TRY_AGAIN or ended[1].status == TRY_AGAIN
    for rank, said in ((r, named_by(e)) for r, e in enumerate(ended) if e.status == TRY_AGAIN):
        who = f"rank 1 on {HERE}" if rank == 0 else "this rank"
        assert said.startswith(f"{who} is alive but has been at step {AT} for ")
        line = sleep_on.__code__.co_firstlineno + 1
        assert said.endswith(f" s, {others}; it is in {Path(__file__).name}:{line}, sleep_on")


def absent_main(rank, world, port, folder, *_):
    """Rank 1 never begins."""
    os.dup2(os.open(folder / f"{rank}.err", os.O_CREAT | os.O_WRONLY), 2)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    if rank == 1:
        freeze()
    watch = RankWatch(1.0)
    watch.start()
    dist.all_reduce(torch.ones(1))


def test_a_rank_never_heard_of(tmp_path):
    """Before the first step too, which may take its time only where all answer."""
    ended, _ = end(tmp_path, start(tmp_path, 2, main=absent_main), frozen=1)
    assert re.fullmatch(r"rank 1 has never been heard from, in \d s", named_by(ended[0]))


def evaluate():
    time.sleep(TIMEOUT + 1)


def test_busy_holds_the_deadline(tmp_path):
    ended, _ = end(tmp_path, start(tmp_path, 2, 0, evaluate, busy=True))
    assert ended == [Ended(0, "", None)] * 2


def slow_main(rank, world, port, folder, *_):
    """A first step longer than the timeout, and ranks that end longer than it apart, the store's first."""
    os.dup2(os.open(folder / f"{rank}.err", os.O_CREAT | os.O_WRONLY), 2)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    watch, longer = RankWatch(2.0), 3.0
    watch.start()
    if rank == 1:
        time.sleep(longer)
    dist.all_reduce(torch.ones(1))
    watch.progress()
    (folder / f"{rank}.blame").write_text(str(watch.blame()))
    time.sleep(rank * longer)
    watch.stop()
    if rank == 0:
        dist.destroy_process_group()


def test_a_slow_start_and_a_staggered_end_are_silent(tmp_path):
    """Nor is anybody to blame in between, where all answer."""
    ended, _ = end(tmp_path, start(tmp_path, 2, main=slow_main))
    assert ended == [Ended(0, "", "None")] * 2


def test_a_suspended_run_goes_on(tmp_path):
    """Stopped as a job scheduler does it, all ranks together, for longer than the timeout."""
    ranks = start(tmp_path, 2, 0, go_on)
    while not (tmp_path / "time").exists():
        time.sleep(0.05)
    for process in ranks:
        os.kill(process.pid, signal.SIGSTOP)
    time.sleep(TIMEOUT + 1)
    for process in ranks:
        os.kill(process.pid, signal.SIGCONT)
    ended, _ = end(tmp_path, ranks)
    assert ended == [Ended(0, "", None)] * 2


@pytest.mark.parametrize(("timeout", "period"), [(0.0, None), (-1.0, None), (5.0, 0.0), (5.0, 1.1)])
def test_wrong_periods(timeout, period):
    with pytest.raises(ValueError, match="period"):
        RankWatch(timeout, period)


def test_one_process_has_nobody_to_watch():
    watch = RankWatch(5)
    watch.start()
    watch.progress()
    assert watch.blame() is None
    watch.stop()

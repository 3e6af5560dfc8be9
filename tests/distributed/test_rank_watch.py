"""A rank that stops answering: the others end in bounded time and say which one it was.

Processes over gloo; rank 0's holds the store. What a rank writes to stderr, and what `blame` says, is read
from files. How long something took is asserted nowhere but in a rank's own words, and there from below: a
machine may be slow. Bounded time means here that it ends at all: what a rank waits for without its watch is
gloo's timeout, half an hour, or an hour's sleep.
"""

import json
import multiprocessing
import os
import re
import signal
import socket
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist

from bt_multimodal.distributed.rank_watch import RankWatch
from bt_multimodal.errors import TRY_AGAIN

pytestmark = pytest.mark.slow

TIMEOUT, STEPS, AT = 4.0, 16, 8  # seconds; steps of 0.1 s; the step at which something happens
SILENT = int(0.4 * TIMEOUT)  # seconds after which a rank counts as silent: four periods of a tenth
FAILED = 9  # status of a rank whose collective has failed
HANG = 300  # seconds after which a test gives up
FOR_EVER = timedelta(hours=1)  # gloo's timeout: what hangs in a collective does not end by it

contexts = multiprocessing.get_context("forkserver")
contexts.set_forkserver_preload(["torch", "bt_multimodal.distributed.rank_watch"])


def kill(watch):
    os.kill(os.getpid(), signal.SIGKILL)


def freeze(watch=None):
    os.kill(os.getpid(), signal.SIGSTOP)


def freeze_after_a_post(watch):
    """Once the store has a post of this step, busy if it is."""
    key = f"{watch._keys}/{dist.get_rank()}"
    while json.loads(watch._store.get(key))[1:3] != [AT, watch._busy > 0]:
        time.sleep(0.01)
    freeze()


def go_on(watch):
    pass


def fall_behind(watch):
    """Not now, but after the step's all-reduce."""


def sleep_on(watch):
    time.sleep(3600)


def joined(rank, world, folder):
    """Make the process group; the store's port is one that rank 0 finds free, told by a file."""
    os.dup2(os.open(folder / f"{rank}.err", os.O_CREAT | os.O_WRONLY), 2)
    torch.set_num_threads(1)
    path = folder / "port"
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        (folder / "partial").write_text(str(store.port))
        (folder / "partial").rename(path)
    else:
        while not path.exists():
            time.sleep(0.01)
        store = dist.TCPStore("127.0.0.1", int(path.read_text(encoding="utf-8")))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=FOR_EVER)


def rank_main(rank, world, folder, victim, act, busy):
    """Steps of one all-reduce; before step `AT` rank ``victim`` does ``act``, within `busy` if told so."""
    joined(rank, world, folder)
    watch = RankWatch(TIMEOUT)
    watch.start()
    try:
        for step in range(STEPS):
            if step == AT and rank == victim:
                (folder / "reached").touch()
                with watch.busy() if busy else nullcontext():
                    act(watch)
            dist.all_reduce(torch.ones(1))
            if step == AT and rank == victim and act is fall_behind:
                sleep_on(watch)
            watch.progress()
            time.sleep(0.1)
    except RuntimeError:
        (folder / f"{rank}.blame").write_text(str(watch.blame()))
        if act is kill and rank == 0:  # whose end would end the store, and so be what a slow rank sees first
            survivors = {f"{other}.blame" for other in range(world) if other != victim}
            while survivors - {path.name for path in folder.glob("*.blame")}:
                watch.progress()
                time.sleep(0.1)
        os._exit(FAILED)
    watch.stop()
    dist.destroy_process_group()


class Ended(NamedTuple):
    """A rank's exit status (a signal's is negative), its stderr and what `blame` said, if it was asked."""

    status: int
    stderr: str
    blame: str | None


def start(folder, world, victim=None, act=None, busy=False, main=rank_main):
    arguments = (world, folder, victim, act, busy)
    ranks = [contexts.Process(target=main, args=(rank, *arguments)) for rank in range(world)]
    for process in ranks:
        process.start()
    return ranks


def end(folder, ranks, frozen=None):
    """Waits for all ranks but the ``frozen`` one, which is killed."""
    until = time.monotonic() + HANG
    waited = [process for rank, process in enumerate(ranks) if rank != frozen]
    for process in waited:
        process.join(max(0.0, until - time.monotonic()))
    hang = [process.is_alive() for process in waited]
    for process in ranks:
        process.kill()
        process.join()
    said = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.err"))]
    assert not any(hang), f"did not end: {hang}, {said}"
    result = []
    for rank, process in enumerate(ranks):
        blame = folder / f"{rank}.blame"
        stderr = (folder / f"{rank}.err").read_text(encoding="utf-8")
        result.append(
            Ended(process.exitcode, stderr, blame.read_text(encoding="utf-8") if blame.exists() else None)
        )
    return result


def named_by(ended: Ended) -> str:
    """What a rank said, by the way in which it has learnt of it: its deadline or its collective's failure."""
    if ended.status == FAILED:
        assert ended.blame is not None
        return ended.blame
    assert ended.status == TRY_AGAIN, ended
    lines = [line for line in ended.stderr.splitlines() if " ends, " in line]
    assert len(lines) == 1, ended.stderr
    said = re.fullmatch(r".* ends, (\d+) s without a step: (.*)", lines[0])
    assert said is not None, lines[0]
    assert int(said[1]) >= 1, "the shortest timeout of these tests"
    return said[2]


HERE = socket.gethostname()


@pytest.mark.parametrize("victim", [1, 0], ids=["rank", "with-the-store"])
def test_a_killed_rank_is_blamed(tmp_path, victim):
    ended = end(tmp_path, start(tmp_path, 3, victim, kill))
    assert ended[victim].status == -signal.SIGKILL
    for rank, other in enumerate(ended):
        if rank != victim:
            assert other.status == FAILED
            assert other.blame is not None
            assert other.blame.startswith(f"rank {victim} on {HERE}")
            assert f"rank {3 - victim - rank} " not in other.blame, "another one is blamed as well"


@pytest.mark.parametrize("busy", [False, True], ids=["", "busy"])
def test_a_frozen_rank_ends_the_others(tmp_path, busy):
    """The first to reach its deadline ends by it, the others by theirs or by their failed collective."""
    ended = end(tmp_path, start(tmp_path, 3, 1, freeze_after_a_post, busy), frozen=1)
    assert TRY_AGAIN in (ended[0].status, ended[2].status)
    for other in (ended[0], ended[2]):
        silence = rf"rank 1 on {HERE} has not been heard from for (\d+) s, last at step {AT}"
        said = re.fullmatch(silence, named_by(other))
        assert said is not None, named_by(other)
        assert int(said[1]) >= SILENT


@pytest.mark.parametrize(
    ("act", "others"), [(sleep_on, "the others wait for it"), (fall_behind, f"the others at {AT + 1}")]
)
def test_a_rank_that_answers_but_is_stuck(tmp_path, act, others):
    ended = end(tmp_path, start(tmp_path, 2, 1, act))
    assert ended[0].status == TRY_AGAIN or ended[1].status == TRY_AGAIN
    for rank, said in ((r, named_by(e)) for r, e in enumerate(ended) if e.status == TRY_AGAIN):
        who = f"rank 1 on {HERE}" if rank == 0 else "this rank"
        assert said.startswith(f"{who} is alive but has been at step {AT} for ")
        line = sleep_on.__code__.co_firstlineno + 1
        assert said.endswith(f" s, {others}; it is in {Path(__file__).name}:{line}, sleep_on")


def absent_main(rank, world, folder, *_):
    """Rank 1 never begins."""
    joined(rank, world, folder)
    if rank == 1:
        freeze()
    watch = RankWatch(1.0)
    watch.start()
    dist.all_reduce(torch.ones(1))


def test_a_rank_never_heard_of(tmp_path):
    """Before the first step too, which may take its time only where all answer."""
    ended = end(tmp_path, start(tmp_path, 2, main=absent_main), frozen=1)
    assert re.fullmatch(r"rank 1 has never been heard from, in \d+ s", named_by(ended[0]))


def evaluate(watch):
    time.sleep(TIMEOUT + 1)


def test_busy_holds_the_deadline(tmp_path):
    ended = end(tmp_path, start(tmp_path, 2, 0, evaluate, busy=True))
    assert ended == [Ended(0, "", None)] * 2


def slow_main(rank, world, folder, *_):
    """A first step longer than the timeout, and ranks that end longer than it apart, the store's first."""
    joined(rank, world, folder)
    watch, longer = RankWatch(TIMEOUT), TIMEOUT + 1
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
    ended = end(tmp_path, start(tmp_path, 2, main=slow_main))
    assert ended == [Ended(0, "", "None")] * 2


def test_a_suspended_run_goes_on(tmp_path):
    """Stopped as a job scheduler does it, all ranks together, for longer than the timeout."""
    ranks = start(tmp_path, 2, 0, go_on)
    while not (tmp_path / "reached").exists():
        time.sleep(0.05)
    for process in ranks:
        os.kill(process.pid, signal.SIGSTOP)
    time.sleep(TIMEOUT + 1)
    for process in ranks:
        os.kill(process.pid, signal.SIGCONT)
    ended = end(tmp_path, ranks)
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

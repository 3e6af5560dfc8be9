"""A run on two hosts, each a network namespace, loses one of them: both ends end by themselves and say why,
and the same command then continues the run to the weights of one that was not interrupted.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.namespaces import INTERFACE, hosts, why_not
from bt_multimodal.errors import TRY_AGAIN

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT, STEPS, CUT_AT = 5, 30, 8  # seconds, steps of a tenth, the checkpoint after which the link is cut
# Seconds after which a test gives up. Without its watch a run that has lost a host waits half an hour for it.
HANG = 600

SCRIPT = f"""
import os, sys, time
from pathlib import Path

import torch
from safetensors.torch import load_file
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bt_multimodal import LARS, BarlowTwins, Headless, Projector
from bt_multimodal.optim import parameter_groups
from bt_multimodal.distributed.rank_watch import RankWatch

torch.set_num_threads(1)
folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
dist.init_process_group("gloo")
watch = RankWatch({TIMEOUT})
watch.start()

torch.manual_seed(0)
twins = BarlowTwins(Headless(nn.Linear(8, 16), 16), Projector([16, 32, 32]))
optimizer = LARS(parameter_groups(twins), lr=0.1)
begin, checkpoint = 0, folder / "checkpoint.pt"
if checkpoint.exists():
    saved = torch.load(checkpoint)
    begin = saved["step"]
    twins.load_state_dict(saved["twins"])
    optimizer.load_state_dict(saved["optimizer"])
if rank == 0:
    print("begins at step", begin, flush=True)
model = DistributedDataParallel(twins)
for step in range(begin, {STEPS}):
    generator = torch.Generator().manual_seed(1000 * step + rank)
    x = torch.randn(6 + rank, 8, generator=generator) * (1 + rank)
    views = [x + 0.1 * torch.randn(x.shape, generator=generator) for _ in range(2)]
    loss = model(*views).total
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    watch.progress()
    while step == {CUT_AT} and not (folder / "cut").exists():  # the step after: nobody comes too late
        time.sleep(0.01)
    if rank == 0:
        state = dict(step=step + 1, twins=twins.state_dict(), optimizer=optimizer.state_dict())
        torch.save(state, folder / "partial")
        os.replace(folder / "partial", checkpoint)
    time.sleep(0.1)
watch.stop()
dist.destroy_process_group()
"""


def torchrun(on, port, command, log):
    """``command`` under torchrun on each of the hosts, whose first has the store; their processes."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GLOO_SOCKET_IFNAME": INTERFACE,
        "OMP_NUM_THREADS": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "TMPDIR": str(log.parent),  # each launch leaves a folder
    }
    processes = []
    for node, host in enumerate(on):
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(len(on))]
        launcher += ["--nproc-per-node", "1", "--node-rank", str(node)]
        launcher += ["--master-addr", on[0].address, "--master-port", str(port)]
        with Path(f"{log}.{node}").open("w", encoding="utf-8") as file:
            process = host.run([*launcher, *command], env=environment, stdout=file, stderr=subprocess.STDOUT)
        processes.append(process)
    return processes


def wait(processes, log):
    """Exit statuses; the run's output is told if it does not end."""
    until = time.monotonic() + HANG
    try:
        return [process.wait(max(0.0, until - time.monotonic())) for process in processes]
    except subprocess.TimeoutExpired:
        pytest.fail(f"does not end in {HANG} s:\n{said(log, 0)}\n{said(log, 1)}")


def wait_for_step(step, processes, log):
    """Until a run has saved the step `CUT_AT`; ``step()`` is its newest checkpoint's."""
    until = time.monotonic() + HANG
    while step() < CUT_AT:
        assert time.monotonic() < until, said(log, 0)
        assert all(process.poll() is None for process in processes), said(log, 0)
        time.sleep(0.05)


def said(log, node):
    return Path(f"{log}.{node}").read_text(encoding="utf-8")


def step_of(folder):
    """Of the checkpoint; 0 before there is one."""
    path = folder / "checkpoint.pt"
    return torch.load(path)["step"] if path.exists() else 0


@pytest.fixture(autouse=True)
def _namespaces():
    if reason := why_not():
        pytest.skip(reason)


def test_hosts_leave_nothing_behind():
    """Not even what its parent has lost sight of, after a failure inside."""
    processes = []

    def fail():
        with hosts(2) as (_, second):
            command = ["sh", "-c", "setsid sleep 100000 & echo; exec sleep 100000"]
            processes.append(second.run(command, stdout=subprocess.PIPE))
            assert processes[0].stdout is not None
            processes[0].stdout.readline()  # it has begun
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    processes[0].communicate(timeout=HANG)  # its output ends: nobody holds the pipe any more


@pytest.fixture
def four_hosts(_namespaces):
    with hosts(4) as made:
        yield made


def test_a_host_that_is_cut_off_ends_the_run_which_then_continues(four_hosts, tmp_path):
    pair, other_pair = four_hosts[:2], four_hosts[2:]
    script, folder, whole = tmp_path / "train.py", tmp_path / "cut", tmp_path / "whole"
    script.write_text(SCRIPT)
    for path in (folder, whole):
        path.mkdir()
    (whole / "cut").touch()  # nothing is

    def command(folder):
        return [str(script), str(folder)]

    uninterrupted = torchrun(other_pair, 29501, command(whole), tmp_path / "whole.log")
    log = tmp_path / "first.log"
    first = torchrun(pair, 29500, command(folder), log)
    wait_for_step(lambda: step_of(folder), first, log)
    pair[1].cut()
    (folder / "cut").touch()
    statuses = wait(first, log)
    assert all(statuses), "torchrun's own status"
    assert "rank 0 on host-0 ends, " in said(log, 0)
    assert ": rank 1 on host-1 has not been heard from for " in said(log, 0)
    assert "rank 1 on host-1 ends, " in said(log, 1)
    assert f": rank 0 on host-0: its machine has not answered at {pair[0].address}:29500 for " in said(log, 1)
    for node in (0, 1):
        assert f"exitcode  : {TRY_AGAIN}" in said(log, node)
    reached = step_of(folder)
    assert reached in (CUT_AT, CUT_AT + 1)

    pair[1].restore()
    log = tmp_path / "second.log"
    assert wait(torchrun(pair, 29500, command(folder), log), log) == [0, 0], said(log, 0)
    assert f"begins at step {reached}\n" in said(log, 0)
    assert wait(uninterrupted, tmp_path / "whole.log") == [0, 0]

    continued, expected = (torch.load(path / "checkpoint.pt") for path in (folder, whole))
    assert continued["step"] == expected["step"] == STEPS
    for name, tensor in expected["twins"].items():
        assert torch.equal(continued["twins"][name], tensor), name


def test_the_command_line_on_two_hosts(four_hosts, tmp_path):
    pair, other_pair = four_hosts[:2], four_hosts[2:]
    folder, whole = tmp_path / "cut", tmp_path / "whole"

    def command(folder):
        words = ["fit", "--config", "configs/image/digits.yaml", "--run_dir", str(folder)]
        words += ["--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", "ddp"]
        words += ["--trainer.max_epochs", "40", "--probe.table", "false", "--probe.every", "100"]
        words += ["--model.projector", "[32, 32]", "--model.encoder.widths", "[8, 16]"]
        words += ["--checkpoint.steps", "1", "--rank_timeout", "10"]
        return [str(ROOT / "tasks" / "image_pretrain.py"), *words]

    def newest(folder):
        steps = [int(path.stem[5:]) for path in (folder / "checkpoints").glob("step=*.ckpt")]
        return max(steps, default=0)

    log = tmp_path / "first.log"
    first = torchrun(pair, 29500, command(folder), log)
    wait_for_step(lambda: newest(folder), first, log)
    pair[1].cut()
    assert all(wait(first, log)), "torchrun's own status"
    assert "rank 1 on host-1 has not been heard from for " in said(log, 0)
    assert "rank 0 on host-0: its machine has not answered at " in said(log, 1)
    assert CUT_AT <= newest(folder) < 200

    pair[1].restore()
    for hosts_of_run, out in ((pair, folder), (other_pair, whole)):
        log = tmp_path / f"{out.name}.log"
        assert wait(torchrun(hosts_of_run, 29500, command(out), log), log) == [0, 0], said(log, 0)
    found, expected = (load_file(path / "encoder.safetensors") for path in (folder, whole))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name

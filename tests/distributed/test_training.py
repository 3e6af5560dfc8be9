"""The command line on two ranks: signals, kills and what continues, and the same result as on one."""

import csv
import itertools
import os
import shutil
import signal
import sys

import pytest
import torch
from safetensors.torch import load_file

from bt_multimodal.errors import TRY_AGAIN
from tasks import audio_pretrain, image_pretrain
from tests.tasks.test_resume import IMAGES, MY_LAB, SOUNDS

pytestmark = pytest.mark.slow

WORLD = 2
runs = itertools.count()


def run(argv, out, *words):
    task = image_pretrain if argv is IMAGES else audio_pretrain
    words = ("--run_dir", str(out), "--trainer.devices", str(WORLD), "--checkpoint.steps", "1", *words)
    # A store of its own for each run, inside the one that the tests' process serves.
    os.environ["TORCHELASTIC_RESTART_COUNT"] = str(next(runs))
    return task.main([*argv, *words])


def rank_main(rank, folder):
    """Runs one after another in the same processes, which a launcher has told who they are."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "ROLE_RANK": str(rank),
                   "WORLD_SIZE": str(WORLD), "LOCAL_WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": (folder / "port").read_text(encoding="utf-8"),
                   "TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "True"}  # fmt: skip
    sys.path.insert(0, str(folder))
    import my_lab

    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
    status = {"whole": [run(IMAGES, folder / "whole")]}
    if rank == 1:  # the signal reaches one rank alone
        my_lab.count, my_lab.kill_at, my_lab.how = 0, 2 * 6, signal.SIGTERM
    status["parts"] = [run(IMAGES, folder / "parts")]
    my_lab.kill_at = None
    status["parts"].append(run(IMAGES, folder / "parts"))
    # It reaches both, at the end of an epoch.
    my_lab.count, my_lab.kill_at, my_lab.how = 0, 2 * 4, signal.SIGHUP
    status["both"] = [run(IMAGES, folder / "both")]
    my_lab.kill_at = None
    status["both"].append(run(IMAGES, folder / "both"))
    status["sounds"] = [run(SOUNDS, folder / "sounds")]
    if rank == 0:
        my_lab.count, my_lab.kill_at, my_lab.how = 0, 2 * 9, signal.SIGUSR1
    status["sounds parts"] = [run(SOUNDS, folder / "sounds parts")]
    my_lab.kill_at = None
    status["sounds parts"].append(run(SOUNDS, folder / "sounds parts"))
    if rank == 0:  # machines that do not share the run directory
        shutil.copytree(folder / "whole", folder / "own 0")
    status["not shared"] = [run(IMAGES, folder / f"own {rank}")]
    torch.save(status, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    (folder / "my_lab.py").write_text(MY_LAB)
    # Served from here, so that its port stays taken; the ranks ask as they ask a launcher's.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    (folder / "port").write_text(str(store.port))
    torch.multiprocessing.spawn(rank_main, (folder,), nprocs=WORLD)
    del store
    return folder


def left(out):
    with (out / "metrics.csv").open(encoding="utf-8") as file:
        rows = [{**row, "samples_per_s": ""} for row in csv.DictReader(file)]
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*"))
    return (
        names,
        {name: value.tolist() for name, value in load_file(out / "encoder.safetensors").items()},
        rows,
    )


def test_a_signal_to_one_rank_ends_all_and_the_run_continues_bit_for_bit(folder):
    for rank in range(WORLD):
        status = torch.load(folder / f"{rank}.pt")
        assert status["parts"] == status["sounds parts"] == status["both"] == [TRY_AGAIN, 0]
        assert status["whole"] == status["sounds"] == [0]
    assert left(folder / "parts") == left(folder / "both") == left(folder / "whole")
    assert left(folder / "sounds parts") == left(folder / "sounds")


def test_ranks_draw_different_numbers(folder):
    newest = max((folder / "whole" / "checkpoints").iterdir())
    states = torch.load(newest, weights_only=True)["random_states"]
    assert not torch.equal(states[0]["torch"], states[1]["torch"])  # what dropout draws from
    assert not torch.equal(states[0]["numpy"][1], states[1]["numpy"][1])


def test_ranks_that_would_continue_from_different_checkpoints_end(folder):
    assert [torch.load(folder / f"{rank}.pt")["not shared"] for rank in range(WORLD)] == [[1], [1]]

"""Time from an audio file to two views by stage, and the time that training waits for data.

    python benchmarks/audio_views.py --source ../shared/data/speech_commands
    python benchmarks/audio_views.py                    # the embedded synthetic sounds

All stages run on one core, over the same clips: ``read`` (the file's bytes), ``decode`` (soundfile, to mono
at the views' rate), ``draw`` (random parameters), ``cut`` (the segment of both views), ``log-mel`` (once for
both views) and ``views`` (mixup with 2,048 past clips, resize crop and fader, for both views). Each figure is
the median over ``--rounds`` rounds that run all stages in turn.

Waiting is the share of time that a training loop (AudioConvNet, projector 1024-1024, AdamW) on all cores
spends in the loader: with the decoded clips in memory (``cache``), or read each time by the main process or
by one worker.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.stages import BATCH, print_stages, timed


def waiting(records: Any, views: Any, cache: bool, workers: int, steps: int) -> tuple[float, float]:
    """Returns the share of time spent in the loader, and clips per second."""
    import torch

    from bt_multimodal import BarlowTwins, BarlowTwinsLoss, Projector
    from bt_multimodal.data.batches import TwinDataset, training_loader
    from bt_multimodal.data.decoding import DecodedRecords
    from bt_multimodal.optim import parameter_groups
    from bt_multimodal.views import finish_views
    from encoders.audio.encoders import AudioConvNet

    encoder = AudioConvNet()
    twins = BarlowTwins(encoder, Projector([encoder.features_dim, 1024, 1024]), BarlowTwinsLoss(lambd=0.005))
    optimizer = torch.optim.AdamW(parameter_groups(twins), lr=1e-3)
    dataset = TwinDataset(DecodedRecords(records, views.decode, cache), views, seed=0)
    loader = training_loader(dataset, BATCH, num_workers=workers)
    waited, began, done = 0.0, 0.0, -2  # the first two steps warm up
    while done < steps:
        batches = iter(loader)
        while done < steps:
            if done == 0:
                waited, began = 0.0, time.perf_counter()
            seconds, batch = timed(lambda batches=batches: next(batches, None))
            waited += seconds
            if batch is None:
                break
            finished = finish_views(views, batch)
            total = twins(finished.first, finished.second).total
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            done += 1
    took = time.perf_counter() - began
    return waited / took, BATCH * steps / took


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", default="synthetic")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=30, help="training steps of each loop")
    arguments = parser.parse_args()

    import torch

    from bt_multimodal.commands.memory import keep_freed_memory
    from bt_multimodal.data.decoding import DecodedRecords
    from bt_multimodal.data.records import open_source
    from encoders.audio.modality import AUDIO
    from encoders.audio.views import SpectrogramViews

    keep_freed_memory()
    cores = torch.get_num_threads()
    records = open_source(arguments.source, AUDIO).train
    views = SpectrogramViews()
    views.measure(DecodedRecords(records, views.decode))
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(0))

    torch.set_num_threads(1)
    print(f"{len(records)} clips of {arguments.source}, batches of {BATCH}, one core")
    full = 2048 // BATCH + 1  # batches until the memory of past clips is full
    print_stages(records, views, order, arguments.rounds, warm_up=full, common="log-mel")

    torch.set_num_threads(cores)
    print(f"\ntraining on {cores} cores, {arguments.steps} steps")
    print(f"{'clips are':<32}{'waiting':>10}{'clips/s':>10}")
    for name, cache, workers in (
        ("in memory", True, 0),
        ("read by the main process", False, 0),
        ("read by one worker", False, 1),
    ):
        share, rate = waiting(records, views, cache, workers, arguments.steps)
        print(f"{name:<32}{100 * share:>9.1f}%{rate:>10,.0f}")


if __name__ == "__main__":
    main()

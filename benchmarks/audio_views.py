"""The way of a clip from disk to two views, stage by stage, and what a training step waits for.

    python benchmarks/audio_views.py --source ../shared/data/speech_commands
    python benchmarks/audio_views.py                    # the embedded synthetic sounds

Stages run on one core, each over the same clips: ``read`` (the file's bytes), ``decode`` (soundfile,
mono, the views' rate), ``draw`` (random parameters), ``cut`` (the stretch of both views), ``log-mel``
(once for both views), ``views`` (mixup with 2,048 past clips, resize crop, fader, both views). Each
figure is the median over ``--rounds`` rounds that run all stages in turn.

Waiting: of a training loop (AudioConvNet, projector 1024-1024, AdamW) on all cores, the share of the
time spent in the loader, with the decoded clips in memory (``cache``) and read anew every time, by the
main process or by one worker.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

BATCH = 256


def timed(make: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    made = make()
    return time.perf_counter() - began, made


def stages(records: Any, views: Any, index: Any) -> dict[str, float]:
    """Seconds of each stage for the clips at ``index``."""
    import torch

    from bt_multimodal.views import Views, collate_views, draw_parameters, finish_views, record_parameters

    seconds: dict[str, float] = {}
    rows = index.tolist()
    seconds["read"], raw = timed(lambda: [records.raw(i) for i in rows])
    seconds["decode"], decoded = timed(lambda: [views.decode(r) for r in raw])
    seconds["draw"], parameters = timed(lambda: draw_parameters(views, 0, 0, index))

    def cut() -> Views:
        asked = record_parameters(views, parameters)
        made = [[views.on_record(one, p) for p in own] for one, own in zip(decoded, asked, strict=True)]
        return collate_views(views, parameters, made, torch.zeros(len(rows)))

    seconds["cut"], batch = timed(cut)
    seconds["log-mel"], _ = timed(lambda: views.common(batch.first.data))
    both, _ = timed(lambda: finish_views(views, batch))
    seconds["views"] = both - seconds["log-mel"]
    return seconds


def waiting(records: Any, views: Any, cache: bool, workers: int, steps: int) -> tuple[float, float]:
    """Share of the time spent in the loader, and clips per second."""
    import torch

    from bt_multimodal import BarlowTwins, BarlowTwinsLoss, Projector
    from bt_multimodal.data import TwinDataset, training_loader
    from bt_multimodal.decoding import DecodedRecords
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
            made = finish_views(views, batch)
            total = twins(made.first, made.second).total
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

    from bt_multimodal.decoding import DecodedRecords
    from bt_multimodal.memory import keep_freed_memory
    from encoders.audio.modality import AUDIO
    from encoders.audio.views import SpectrogramViews

    keep_freed_memory()
    cores = torch.get_num_threads()
    records = AUDIO.open(
        arguments.source,
    ).train
    views = SpectrogramViews()
    views.measure(DecodedRecords(records, views.decode))
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(0))

    torch.set_num_threads(1)
    rounds = []
    for i in range(arguments.rounds + 2048 // BATCH + 1):  # until the memory of past clips is full
        index = order[torch.arange(i * BATCH, (i + 1) * BATCH) % len(order)]
        rounds.append(stages(records, views, index))
    rounds = rounds[-arguments.rounds :]
    print(f"{len(records)} clips of {arguments.source}, batches of {BATCH}, one core")
    print(f"{'stage':<10}{'ms a batch':>12}{'clips/s per core':>20}")
    medians = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    for name, seconds in (*medians.items(), ("all", sum(medians.values()))):
        print(f"{name:<10}{1000 * seconds:>12.1f}{BATCH / seconds:>20,.0f}")

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

"""Twenty steps of training through the loader, the same global batches on 1, 2 and 4 ranks.

The curve is that of the loss, with LARS, synchronised BatchNorm and the schedule of a real run, in float32.
Ranks sum in another order than one process, and training amplifies rounding; how much is measured by a run
that begins with every parameter moved by one unit in the last place.
"""

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from bt_multimodal import LARS, BarlowTwins, BarlowTwinsLoss, Projector
from bt_multimodal.data.batches import TwinDataset, training_loader
from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.data.records import open_source
from bt_multimodal.distributed.batch_norm import synchronise_batch_norm
from bt_multimodal.draws import uniforms
from bt_multimodal.optim import parameter_groups, schedule
from bt_multimodal.views import finish_views
from encoders.audio.views import SpectrogramViews
from encoders.image.encoders import ConvNet
from encoders.image.modality import IMAGES
from encoders.image.views import DigitViews

pytestmark = pytest.mark.slow

BATCH, STEPS, WIDTH = 66, 20, 48  # 66 does not divide by 4: shards of 17 and 16


def train(rank=0, world=1, synchronise=True, move=False):
    """The losses of `STEPS` steps; moved, every other parameter begins a unit larger, the rest smaller."""
    views = DigitViews()
    records = DecodedRecords(open_source("sklearn:digits", IMAGES).train, views.decode, cache=True)
    loader = training_loader(TwinDataset(records, views, seed=3), BATCH, rank, world)
    torch.manual_seed(0)
    encoder = ConvNet([8, 16], in_channels=1)
    twins = BarlowTwins(
        encoder, Projector([encoder.features_dim, WIDTH, WIDTH]), BarlowTwinsLoss(scale=1 / 32)
    )
    if move:
        with torch.no_grad():
            for p in twins.parameters():
                up = torch.arange(p.numel()).view_as(p) % 2 == 0
                p.copy_(torch.nextafter(p, torch.where(up, torch.inf, -torch.inf)))
    optimizer = LARS(parameter_groups(twins, 0.024), lr=0.2, eta=0.05)  # 20 steps are to learn something
    scheduler = schedule(optimizer, BATCH, 5, 4 * len(loader))
    model = twins
    if world > 1:
        model = DistributedDataParallel(synchronise_batch_norm(twins, "cpu") if synchronise else twins)
    losses = []
    while True:
        for batch in loader:
            batch = finish_views(views, batch)
            total = model(batch.first, batch.second).total
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            scheduler.step()
            losses.append(total.item())
            if len(losses) == STEPS:
                return torch.tensor(losses, dtype=torch.float64)


def sounds(rank=0, world=1):
    """Both views of this rank's clips in three batches; 9 clips do not divide by 2 or 4."""
    views = SpectrogramViews(seconds=0.1, memory=20, mean=0.0, std=1.0)
    found = []
    for step in range(3):
        waves = torch.randn(9, views.samples, generator=torch.Generator().manual_seed(step))
        own = torch.arange(9)[rank::world]
        data = views.common(waves[own])
        for view in (0, 1):
            parameters = views.draw(uniforms(0, step, own, view, views.draws), view)
            found.append(views.on_batch(data, parameters, view))
    return found


def rank_main(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    results = {"losses": train(rank, world), "sounds": sounds(rank, world)}
    results["batch norm per rank"] = train(rank, world, synchronise=False)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 4], ids=["W2", "W4"])
def ranks(request, tmp_path_factory):
    world, folder = request.param, tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(rank_main, (world, folder), nprocs=world)
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]


@pytest.fixture(scope="module")
def alone():
    return train()


@pytest.fixture(scope="module")
def allowed(alone):
    """Relative difference of a loss: 30 times what one unit in the last place does, the largest up to it."""
    changed = (train(move=True) / alone - 1).abs().cummax(0).values
    return (30 * changed).clamp(min=30 * torch.finfo(torch.float32).eps)


def test_the_curve_is_that_of_one_process(ranks, alone, allowed):
    assert alone[-1] < 0.5 * alone[0]  # it learns
    for result in ranks:
        assert ((result["losses"] / alone - 1).abs() <= allowed).all()


def test_the_curve_shows_batch_norm_per_rank(ranks, alone, allowed):
    for result in ranks:
        assert ((result["batch norm per rank"] / alone - 1).abs() > 10 * allowed).any()


def test_past_clips_are_those_of_all_ranks(ranks):
    for rank, result in enumerate(ranks):
        for found, whole in zip(result["sounds"], sounds(), strict=True):
            # Logarithms of powers, each with the rounding of its frame's largest.
            torch.testing.assert_close(found, whole[rank :: len(ranks)], atol=1e-4, rtol=0)

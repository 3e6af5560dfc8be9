"""Twenty steps of training through the loader, the same global batches on 1, 2 and 4 ranks; what they send.

The curve is that of the loss, float32, with LARS, synchronised BatchNorm and the schedule of a real run.
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

BATCH, STEPS, WIDTH = 66, 20, 48  # 66 does not divide by 4: shards of 17 and 16


def train(rank=0, world=1, synchronise=True):
    """The losses of `STEPS` steps."""
    views = DigitViews()
    records = DecodedRecords(open_source("sklearn:digits", IMAGES).train, views.decode, cache=True)
    loader = training_loader(TwinDataset(records, views, seed=3), BATCH, rank, world)
    torch.manual_seed(0)
    encoder = ConvNet([8, 16], in_channels=1)
    twins = BarlowTwins(
        encoder, Projector([encoder.features_dim, WIDTH, WIDTH]), BarlowTwinsLoss(scale=1 / 32)
    )
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


class Counted:
    """The bytes that a rank hands to each collective."""

    def __init__(self, monkeypatch):
        self.bytes = {}
        for name, at in (("all_reduce", 0), ("all_gather_into_tensor", 1), ("all_gather", 1)):
            original = getattr(dist, name)

            def counted(*args, original=original, name=name, at=at, **options):
                self.bytes[name] = self.bytes.get(name, 0) + args[at].numel() * args[at].element_size()
                return original(*args, **options)

            monkeypatch.setattr(dist, name, counted)


def communication(rank, world):
    """What one step of the loss hands to the collectives, by form and dtype."""
    n, d = 12, 40
    found = {}
    for form in ("gram", "direct"):
        for dtype in (torch.float32, torch.bfloat16):
            z = [torch.randn(n, d).to(dtype).requires_grad_() for _ in range(2)]
            with pytest.MonkeyPatch.context() as patch:
                counted = Counted(patch)
                BarlowTwinsLoss(form=form)(*z).total.backward()
            found[form, dtype] = counted.bytes
    return found


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
    results = {"losses": train(rank, world), "bytes": communication(rank, world)}
    results["sounds"] = sounds(rank, world)
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


def test_the_curve_is_that_of_one_process(ranks, alone):
    assert alone[-1] < 0.5 * alone[0]  # it learns
    for result in ranks:
        assert (result["losses"] / alone - 1).abs().max() < 1e-6


def test_the_curve_shows_batch_norm_per_rank(ranks, alone):
    for result in ranks:
        assert (result["batch norm per rank"] / alone - 1).abs().max() > 1e-3


def test_past_clips_are_those_of_all_ranks(ranks):
    for rank, result in enumerate(ranks):
        for found, whole in zip(result["sounds"], sounds(), strict=True):
            torch.testing.assert_close(found, whole[rank :: len(ranks)])


def test_what_a_step_sends(ranks):
    n, d, sizes = 12, 40, 16
    for result in ranks:
        for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
            gram = result["bytes"]["gram", dtype]
            assert gram == {
                "all_gather": sizes, "all_gather_into_tensor": 2 * n * d * size,
                "all_reduce": 4 * (d + 1) + 4 * 2 * d,
            }  # fmt: skip
            direct = result["bytes"]["direct", dtype]
            # C once, forward; two means and variances, forward and backward.
            assert direct == {"all_gather": sizes, "all_reduce": 4 * d * d + 8 * 4 * d}

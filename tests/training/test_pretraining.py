"""The Lightning loop and a bare PyTorch loop over the same parts give the same weights."""

import itertools

import lightning.pytorch as pl
import pytest
import torch

from bt_multimodal import BarlowTwins, BarlowTwinsLoss, Projector
from bt_multimodal.data.batches import GlobalBatches, TwinDataset, training_loader
from bt_multimodal.data.records import DataError
from bt_multimodal.optim import LARS, parameter_groups, schedule
from bt_multimodal.training.first_look import check_first_batch
from bt_multimodal.training.pretraining import Pretraining
from bt_multimodal.training.pretraining_data import PretrainingData
from bt_multimodal.views import Views, draw_views, finish_views
from encoders.image.encoders import ConvNet
from encoders.image.modality import IMAGES
from encoders.image.views import DigitViews, SmallImageViews


def parts():
    torch.manual_seed(3)
    return ConvNet([8, 16], in_channels=1), [32, 32], BarlowTwinsLoss(), DigitViews()


def test_lightning_equals_a_bare_loop_bit_for_bit(tmp_path):
    encoder, projector, loss, views = parts()
    data = PretrainingData(views, IMAGES, seed=7, source="sklearn:digits", batch_size=256, cache=True)
    model = Pretraining(views, encoder, projector, loss, LARS, warmup_epochs=1)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)

    encoder, projector, loss, views = parts()
    start = [p.clone() for p in encoder.parameters()]
    twins = BarlowTwins(encoder, Projector([encoder.features_dim, *projector]), loss)
    loader = training_loader(TwinDataset(data.samples.train, views, seed=7), batch_size=256)
    optimizer = LARS(parameter_groups(twins, 0.024))
    rates = schedule(optimizer, 256, warmup_steps=len(loader), total_steps=2 * len(loader))
    for epoch in range(2):
        loader.batch_sampler.set_epoch(epoch)
        for batch in loader:
            batch = finish_views(views, batch)
            terms = twins(batch.first, batch.second)
            optimizer.zero_grad()
            terms.total.backward()
            optimizer.step()
            rates.step()

    state = model.twins.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in twins.state_dict().items())
    moved = zip(start, encoder.parameters(), strict=True)
    assert not any(torch.equal(was, now) for was, now in moved if was.ndim > 1)


class PartlyFrozen(torch.nn.Module):
    """A head on a part that was loaded in evaluation mode, and one that stays in it."""

    class Frozen(torch.nn.BatchNorm1d):
        def train(self, mode=True):
            return super().train(False)

    def __init__(self):
        super().__init__()
        self.features_dim = 8
        self.loaded = torch.nn.Dropout().eval()
        self.frozen = self.Frozen(8).eval()

    def forward(self, x):
        return self.frozen(self.loaded(x.flatten(1)[:, :8]))


def test_loaded_parts_train_and_the_check_of_the_first_batch_changes_nothing():
    model = Pretraining(DigitViews(), PartlyFrozen(), [16], BarlowTwinsLoss(), LARS)
    assert [name for name, part in model.named_modules() if not part.training] == ["twins.encoder.frozen"]
    model.twins.encoder.loaded.eval()
    modes = [(name, part.training) for name, part in model.named_modules()]
    before = torch.random.get_rng_state(), {name: x.clone() for name, x in model.state_dict().items()}
    image = torch.zeros(4, 1, 8, 8)
    check_first_batch(model, model._augmentations, Views(image, image, torch.arange(4)))
    assert [(name, part.training) for name, part in model.named_modules()] == modes
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert all(torch.equal(x, before[1][name]) for name, x in model.state_dict().items())


@pytest.mark.parametrize("world", [1, 2, 3])
def test_global_batches_are_the_same_for_any_number_of_ranks(world):
    parts = [GlobalBatches(103, 10, seed=5, rank=r, world=world) for r in range(world)]
    for part in parts:
        part.set_epoch(4)
    together = [sorted(itertools.chain(*batches)) for batches in zip(*parts, strict=True)]
    alone = GlobalBatches(103, 10, seed=5)
    alone.set_epoch(4)
    assert together == [sorted(batch) for batch in alone]
    seen = [index for batch in together for _, index in batch]
    assert len(set(seen)) == len(seen) == 100
    alone.set_epoch(3)
    assert together != [sorted(batch) for batch in alone]


@pytest.mark.parametrize("batch_size", [1, 301])
def test_a_batch_that_does_not_fit_is_refused(batch_size):
    with pytest.raises(DataError, match=f"batch_size {batch_size} does not work with 300"):
        GlobalBatches(300, batch_size, seed=0)


def test_views_are_made_in_full_precision_under_autocast():
    views = SmallImageViews(size=8, output_size=8)
    picture = torch.arange(2 * 3 * 64, dtype=torch.uint8).view(2, 3, 8, 8)
    batch = draw_views(views, picture, torch.zeros(2), seed=0, epoch=0, index=torch.arange(2))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = finish_views(views, batch)
    assert torch.equal(mixed.first, finish_views(views, batch).first)


@pytest.mark.parametrize(
    ("epochs", "steps", "total", "warmup"), [(2, 5, 11, 10), (0, 5, 1, 0), (0.5, 5, 10, 2), (10, 5, 51, 50)]
)
def test_a_warmup_that_fits(epochs, steps, total, warmup):
    encoder, projector, loss, views = parts()
    model = Pretraining(views, encoder, projector, loss, warmup_epochs=epochs)
    assert model.warmup_steps(steps, total) == warmup


@pytest.mark.parametrize(
    ("epochs", "steps", "total", "warmup"),
    [(2, 5, 10, 1), (10, 5, 20, 2), (10, 1000, 4000, 400), (1, 5, 1, 0)],
)
def test_a_warmup_that_is_too_long_is_a_tenth_of_the_run(epochs, steps, total, warmup):
    encoder, projector, loss, views = parts()
    model = Pretraining(views, encoder, projector, loss, warmup_epochs=epochs)
    with pytest.warns(UserWarning, match=f"shortened to a tenth of the run, {warmup} of {total} steps"):
        assert model.warmup_steps(steps, total) == warmup

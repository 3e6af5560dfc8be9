"""The online probe: its bank holds every class of data that are sorted by class, and it looks when asked."""

import csv
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bt_multimodal.augmentation_set import AugmentationSet
from bt_multimodal.data.records import open_source
from bt_multimodal.data.whole_samples import WholeSamples
from bt_multimodal.modality import Modality
from bt_multimodal.training.callbacks import MetricsFile, OnlineProbe
from bt_multimodal.training.pretraining_data import PretrainingData

NUMBERS = Modality("numbers", (".num",), ("number",), {}, inline=True)
CLASSES = 6


class Numbers(AugmentationSet):
    """A number as the two coordinates of an angle: numbers of one class point in one direction."""

    def decode(self, raw):
        angle = torch.tensor(float(raw))
        return torch.stack([angle.cos(), angle.sin()])

    def draw(self, u, view):
        return {}

    def on_batch(self, data, parameters, view):
        return data

    def clean_batch(self, data):
        return data


class Identity(nn.Module):
    features_dim = 2

    def forward(self, view):
        return view


@pytest.fixture
def samples(tmp_path):
    """600 records, sorted by class as those of a folder are."""
    rows = [f"{c + 0.001 * i},{c}" for c in range(CLASSES) for i in range(100)]
    (tmp_path / "numbers.csv").write_text("\n".join(["number,label", *rows]) + "\n")
    splits = open_source(str(tmp_path / "numbers.csv"), NUMBERS)
    return WholeSamples(splits, Numbers(), seed=0, batch_size=8, validation=0.2, cache=False)


def look(samples, folder, epoch=0, every=1, **options):
    """The rows that the probe writes at the end of an epoch."""
    probe = OnlineProbe(MetricsFile(folder / "metrics.csv"), Numbers(), every=every, **options)
    trainer = SimpleNamespace(
        datamodule=SimpleNamespace(samples=samples, labelled=True),
        current_epoch=epoch, max_epochs=10, max_steps=-1, global_step=7, is_global_zero=True,
    )  # fmt: skip
    model = SimpleNamespace(twins=SimpleNamespace(encoder=Identity()), device=torch.device("cpu"))
    probe.on_train_epoch_end(trainer, model)
    if not (folder / "metrics.csv").exists():
        return []
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("bank", [60, 100, 10_000])
def test_the_bank_holds_every_class(samples, tmp_path, bank):
    (row,) = look(samples, tmp_path, bank=bank)
    assert float(row["knn"]) == 100


def test_a_bank_of_the_first_records_would_not(samples):
    """What the test above guards: the first 60 training records are of one class."""
    assert samples.train.records.labels[:60].unique().tolist() == [0]


def test_it_looks_every_few_epochs_and_at_the_last(samples, tmp_path):
    for epoch in range(10):
        look(samples, tmp_path, epoch, every=4)
    with (tmp_path / "metrics.csv").open() as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [4, 8, 10]


def test_records_without_a_label_are_left_out(tmp_path):
    rows = [f"{c + 0.001 * i},{c if i % 3 else ''}" for c in range(CLASSES) for i in range(100)]
    (tmp_path / "numbers.csv").write_text("\n".join(["number,label", *rows]) + "\n")
    splits = open_source(str(tmp_path / "numbers.csv"), NUMBERS)
    samples = WholeSamples(splits, Numbers(), seed=0, batch_size=8, validation=0.2, cache=False)
    assert (samples.train.records.labels < 0).sum() == 6 * 34
    (row,) = look(samples, tmp_path)
    assert float(row["knn"]) == 100


@pytest.mark.parametrize(
    ("labels", "labelled", "trained", "validated"),
    [("abab", True, 36, 4), ("ab.b", True, 39, 3), ("....", False, 50, 0), ("aaaa", False, 36, 4)],
)
def test_what_is_labelled_is_probed_and_what_is_not_is_trained_on(
    tmp_path, labels, labelled, trained, validated
):
    rows = [f"{i},{labels[i % 4].strip('.')}" for i in range(50)]
    (tmp_path / "numbers.csv").write_text("\n".join(["number,label", *rows]) + "\n")
    data = PretrainingData(Numbers(), NUMBERS, 0, str(tmp_path / "numbers.csv"), batch_size=8)
    assert data.labelled is labelled
    assert (len(data.samples.train), len(data.samples.validation)) == (trained, validated)
    asked = PretrainingData(
        Numbers(), NUMBERS, 0, str(tmp_path / "numbers.csv"), batch_size=8, validation=0.2
    )
    assert len(asked.samples.validation) > validated
    assert any("train: " in line for line in data.found)

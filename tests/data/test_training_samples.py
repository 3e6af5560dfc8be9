"""The samples of a run, whole and streamed: the same members, one opening, no process before training."""

import multiprocessing
from itertools import chain

import pytest
import torch

from bt_multimodal.data.records import DataError, open_source
from bt_multimodal.data.streamed_samples import StreamedSamples
from bt_multimodal.data.streams import open_stream
from bt_multimodal.data.whole_samples import WholeSamples
from bt_multimodal.modality import Modality
from bt_multimodal.views import AugmentationSet, finish_views

NUMBERS = Modality("numbers", (".num",), ("number",), {}, inline=True)


class Numbers(AugmentationSet):
    """A row of a text file as a number, with a random share below 1 added."""

    draws = 1

    def __init__(self):
        super().__init__()
        self.learnt: list[bytes] = []

    def learn(self, contents):
        self.learnt = list(contents)

    def decode(self, raw):
        return torch.tensor([float(raw)])

    def draw(self, u, view):
        return {"share": u}

    def on_batch(self, data, parameters, view):
        return data + parameters["share"]

    def clean_batch(self, data):
        return data


@pytest.fixture
def source(tmp_path):
    (tmp_path / "train.csv").write_text("number,label\n" + "".join(f"{i},{i % 2}\n" for i in range(40)))
    (tmp_path / "test.csv").write_text("number,label\n" + "".join(f"{i},{i % 2}\n" for i in range(100, 110)))
    return str(tmp_path)


def whole(source, augmentations, **options):
    options = {"seed": 3, "batch_size": 8, "validation": 0.1, "cache": False, **options}
    return WholeSamples(open_source(source, NUMBERS), augmentations, **options)


def streamed(source, augmentations, **options):
    options = {"seed": 3, "batch_size": 8, "records": 20, **options}
    return StreamedSamples(open_stream(source, NUMBERS), augmentations, **options)


def numbers(loader, augmentations):
    views = [finish_views(augmentations, batch) for batch in loader]
    return torch.cat([view.first for view in views]).flatten().tolist()


def test_whole_samples(source):
    augmentations = Numbers()
    samples = whole(source, augmentations)
    assert augmentations.learnt == [b"%d" % i for i in range(40)]
    assert (len(samples.train), len(samples.validation), len(samples.test)) == (36, 4, 10)
    assert (samples.steps, samples.test_is_held_out) == (4, False)
    rest, held = (
        {int(part.get(i)) for i in range(len(part))} for part in (samples.train, samples.validation)
    )
    assert rest | held == {*range(40)}
    assert not rest & held
    seen = numbers(samples.loader(0, 1, (0, 0), 0, False), augmentations)
    assert len(seen) == 32
    assert {int(number) for number in seen} <= rest


def test_streamed_samples(source):
    augmentations = Numbers()
    samples = streamed(source, augmentations)
    assert len(augmentations.learnt) == 40
    assert (samples.steps, len(samples.validation), len(samples.test)) == (2, 0, 0)
    assert len(numbers(samples.loader(0, 1, (0, 0), 0, False), augmentations)) == 16


@pytest.mark.parametrize("kind", [whole, streamed])
def test_the_first_batch_is_the_loaders_and_starts_no_process(source, kind):
    augmentations = Numbers()
    samples = kind(source, augmentations)
    before = {*multiprocessing.active_children()}  # those of another test may still be ending
    first = finish_views(augmentations, samples.first_batch())
    assert {*multiprocessing.active_children()} <= before
    loader = samples.loader(0, 1, (0, 0), 0, False)
    again = finish_views(augmentations, next(iter(loader)))
    assert torch.equal(first.first, again.first)
    assert torch.equal(first.second, again.second)


@pytest.mark.filterwarnings("ignore:.*every file is read 3 times")
@pytest.mark.parametrize("kind", [whole, streamed])
def test_ranks_share_a_batch(source, kind):
    augmentations = Numbers()
    samples = kind(source, augmentations)
    parts = [numbers(samples.loader(rank, 3, (0, 0), 0, False), augmentations) for rank in range(3)]
    sizes = [len(part) // samples.steps for part in parts]
    assert sizes == [3, 3, 2]
    if kind is whole:
        assert sorted(chain(*parts)) == sorted(numbers(samples.loader(0, 1, (0, 0), 0, False), augmentations))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (whole, {"batch_size": 37}, "batch_size 37 does not work with 36 training samples"),
        (whole, {"batch_size": 1}, "batch_size 1 does not work .* choose one from 2 to 36"),
        (streamed, {"batch_size": 21}, "batch_size 21 does not work with 20 records per epoch"),
        (streamed, {"batch_size": 1}, "batch_size 1 does not work with 20 records per epoch"),
    ],
)
def test_batches_that_do_not_fit(source, kind, options, message):
    augmentations = Numbers()
    with pytest.raises(DataError, match=message):
        kind(source, augmentations, **options)
    assert not augmentations.learnt, "refused before long work"

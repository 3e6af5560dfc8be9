"""Labelled data: one view to train on, clean records to test on, lists of names."""

import pytest
import torch

from bt_multimodal.data.records import DataError
from bt_multimodal.modality import Modality
from bt_multimodal.training.classification_data import ClassificationData, listed
from bt_multimodal.views import draw_views, finish_view, finish_views


class Letters:
    """A text file's first letter as a number; the first view adds a random number below 1."""

    draws = 1
    on_record = None

    def decode(self, raw):
        if raw == b"?":
            raise ValueError("no letter")
        return torch.tensor([float(raw[0])])

    def draw(self, u, view):
        return {"u": u[:, 0] - view}

    def on_batch(self, data, parameters, view):
        return data + parameters["u"][:, None]

    def clean(self, decoded):
        return decoded

    def clean_batch(self, data):
        return data


MODALITY = Modality("letters", (".txt",), ("text",), {})


@pytest.fixture
def folder(tmp_path):
    """Two classes; letters a to j, and test letters A to E of which one is damaged."""
    for split, letters in (("train", "abcdefghij"), ("test", "ABCDE" * 30)):
        for i, letter in enumerate(letters):
            path = tmp_path / split / ("even" if i % 2 else "odd") / f"{split}{i}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("?" if (split, i) == ("test", 3) else letter)
    return tmp_path


def opened(folder, **options):
    return ClassificationData(Letters(), MODALITY, 0, str(folder), **{"batch_size": 4, **options})


def test_training_sees_the_first_view_of_every_sample(folder):
    data = opened(folder)
    loader = data.train_dataloader()
    batches = list(loader)
    assert len(batches) == 2
    index = torch.tensor([i for keys in loader.batch_sampler for _, i in keys])
    decoded, label = data.train.batch(index)
    both = finish_views(Letters(), draw_views(Letters(), decoded, label, 0, 0, index))
    found = torch.cat([finish_view(Letters(), batch.view) for batch in batches])
    assert torch.equal(found, both.first)
    assert torch.equal(torch.cat([batch.label for batch in batches]), label)
    loader.batch_sampler.set_epoch(1)
    assert not torch.equal(torch.cat([batch.view.data for batch in loader]), torch.stack(decoded))


def test_testing_sees_every_intact_record_once(folder):
    data = opened(folder)
    with pytest.warns(UserWarning, match="damaged record .*test3.txt"):
        batches = list(data.val_dataloader())
    assert sum(len(batch.label) for batch in batches) == 149
    letters = torch.cat([batch.view for batch in batches])[:, 0].long()
    assert letters.bincount()[65:].tolist() == [30, 30, 30, 29, 30]
    assert data.tested_on == "test"
    held = opened(folder, validation=0.2)
    assert (held.tested_on, len(held.train), len(held.test)) == ("validation", 8, 2)


def test_lists_and_few_labels(folder):
    (folder / "list.txt").write_text("train3.txt\n\ntrain0.txt\ntrain8.txt\ntrain1.txt\n")
    data = opened(folder, subset=str(folder / "list.txt"))
    assert sorted(float(data.train.get(i)) for i in range(4)) == [ord(c) for c in "abdi"]
    few = opened(folder, per_class=2)
    assert few.train.records.labels.bincount().tolist() == [2, 2]
    (folder / "list.txt").write_text("train3.txt\nnowhere.txt\n")
    with pytest.raises(DataError, match=r"1 of 2 names .* are no records; first: \['nowhere.txt'\]"):
        opened(folder, subset=str(folder / "list.txt"))
    with pytest.raises(DataError, match="cannot read the list"):
        listed(few.train.records, folder / "no list")
    with pytest.raises(DataError, match="batch_size 20"):
        opened(folder, batch_size=20)

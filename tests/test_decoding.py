"""One policy for damage: named once, counted over all subsets, replaced in training, left out otherwise."""

import io
import warnings

import pytest
import torch

from bt_multimodal.data import TwinDataset
from bt_multimodal.decoding import DecodedRecords
from bt_multimodal.records import DataError
from encoders.image.views import DigitViews, ReferenceViews


class Words:
    """Records of which some are damaged."""

    def __init__(self, n, damaged=()):
        self.labels, self.classes, self.damaged = torch.arange(n) % 3, ["a", "b", "c"], damaged
        self.reads = 0

    def __len__(self):
        return len(self.labels)

    def raw(self, i):
        self.reads += 1
        return -1 if i in self.damaged else i

    def open(self, i):
        return io.BytesIO(bytes([self.raw(i) % 256]))

    def name(self, i):
        return f"word {i}"


def decode(raw):
    if raw < 0:
        raise RuntimeError("not\na word")
    return torch.full((1, 8, 8), raw % 256, dtype=torch.uint8)


@pytest.mark.parametrize("cache", [False, True])
def test_training_takes_another_record_of_the_same_subset(cache):
    words = Words(400, damaged={4, 9})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        records = DecodedRecords(words, decode, cache)
        kept = records.subset(torch.arange(100))
        for _ in range(2):
            decoded, labels = kept.batch(torch.tensor([4, 5]))
    messages = [str(warning.message) for warning in caught]
    assert messages[0] == "damaged record word 4: RuntimeError: not a word"
    assert len(set(messages)) == len(messages)  # each once
    replacement = (4 + 7919) % 100
    assert [int(d[0, 0, 0]) for d in decoded] == [replacement, 5]
    assert labels.tolist() == [replacement % 3, 5 % 3]
    assert kept.get(4) is None
    assert kept.name(4) == "word 4"
    assert records.subset([7, 3]).subset([1]).labels.tolist() == [0]


class Parts:
    """Views of one number each that read no more of a file than that; 255 is damage in the second only."""

    draws = 1

    def draw(self, u, view):
        return {"view": torch.full((len(u),), view), "u": u[:, 0]}

    def decode(self, raw):
        raise AssertionError("is not needed")

    on_record = decode

    def read(self, file, parameters):
        file.seek(0)
        value = file.read()[0]
        if value == 255 and parameters["view"]:
            raise ValueError("damaged further on")
        return torch.tensor([value, float(parameters["u"])])


def test_parts_of_files_are_read_under_the_same_policy():
    views = Parts()
    dataset = TwinDataset(DecodedRecords(Words(200, damaged={4}), views.decode), views, seed=0)
    with pytest.warns(UserWarning, match="damaged record word 4: ValueError: damaged further on"):
        batch = dataset.__getitems__([(0, 4), (0, 5)])
    replacement = (4 + 7919) % 200
    for half in (batch.first, batch.second):
        assert half.data[:, 0].tolist() == [replacement, 5]  # both views of one record
        torch.testing.assert_close(half.data[:, 1], half.parameters["u"])
    assert batch.label.tolist() == [replacement % 3, 5 % 3]


def test_the_count_is_one_over_all_subsets():
    records = DecodedRecords(Words(200, {4, 109, 117}), decode)
    first, last = records.subset(torch.arange(100)), records.subset(torch.arange(100, 200))
    with pytest.warns(UserWarning, match="damaged"):
        assert [first.get(4), last.get(9)] == [None, None]
    with pytest.raises(DataError, match=r"word 117.*3 of 200 damaged so far, over the allowed 2"):
        last.get(17)


def test_a_cache_reads_once():
    words = Words(10)
    records = DecodedRecords(words, decode, cache=True)
    assert words.reads == 10
    dataset = TwinDataset(records.subset([2, 3, 5]), DigitViews(), seed=0)
    batch = dataset.__getitems__([(0, 2), (0, 0)])
    assert batch.first.data[:, 0, 0, 0].tolist() == [5, 2]
    assert batch.label.tolist() == [2, 2]
    assert words.reads == 10


def test_cached_records_are_still_cropped():
    """Records of one shape are no reason to skip what a set does record by record."""
    views = ReferenceViews(size=8)
    words = DecodedRecords(Words(4), lambda raw: torch.randint(256, (3, 20, 20)).to(torch.uint8), cache=True)
    batch = TwinDataset(words, views, seed=0).__getitems__([(0, 1), (0, 2)])
    assert batch.first.data.shape == (2, 3, 8, 8)


def test_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nothing = DecodedRecords(Words(3, {0, 1, 2}), decode, allowed=1)
        with pytest.raises(DataError, match="every record is damaged"):
            nothing.batch(torch.tensor([0]))

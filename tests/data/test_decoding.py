"""One policy for damage: named once, counted over all subsets, replaced in training, left out otherwise."""

import copy
import io
import warnings

import pytest
import torch

from bt_multimodal.data.batches import TwinDataset
from bt_multimodal.data.decoding import DecodedRecords, Tally
from bt_multimodal.data.records import DataError
from encoders.image.views import DigitViews, ReferenceViews


class Words:
    """Records of which some are damaged."""

    def __init__(self, n, damaged=()):
        self.labels, self.classes, self.damaged = torch.arange(n) % 3, ["a", "b", "c"], damaged
        self.rows, self.reads = torch.arange(n), 0

    def __len__(self):
        return len(self.labels)

    def raw(self, i):
        self.reads += 1
        return -1 if i in self.damaged else i

    def open(self, i):
        return io.BytesIO(bytes([self.raw(i) % 256]))

    def name(self, i):
        return f"word {self.rows[i]}"

    def subset(self, indices):
        part = copy.copy(self)
        at = torch.as_tensor(indices)
        part.rows, part.labels = self.rows[at], self.labels[at]
        return part


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
    assert kept.records.name(4) == "word 4"
    assert records.subset([7, 3]).subset([1]).records.labels.tolist() == [0]


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
    records = DecodedRecords(Words(200, {4, 109, 117}), decode, least=0)
    first, last = records.subset(torch.arange(100)), records.subset(torch.arange(100, 200))
    with pytest.warns(UserWarning, match="damaged"):
        assert [first.get(4), last.get(9)] == [None, None]
    with pytest.raises(DataError, match=r"word 117.*3 of 200 damaged so far, over the allowed 2"):
        last.get(17)


def train(records, generator, batches=None):
    """An epoch's batches in random order, or some of them as one of many processes has them."""
    for index in torch.randperm(len(records), generator=generator).split(50)[:batches]:
        records.batch(index)


def test_little_damage_passes_and_is_named_once_in_any_number_of_epochs():
    words = Words(4000, set(range(7, 4000, 200)))  # 0.5 %
    records = DecodedRecords(words, decode)
    generator = torch.Generator().manual_seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            train(records, generator)
    messages = sorted(str(warning.message) for warning in caught)
    assert messages == sorted(f"damaged record word {i}: RuntimeError: not a word" for i in words.damaged)


@pytest.mark.filterwarnings("ignore:damaged record")
def test_much_damage_ends_training_where_a_process_sees_but_a_part():
    words = Words(100_000, set(range(0, 100_000, 20)))  # 5 %, and the 1,000 that are allowed are far away
    records = DecodedRecords(words, decode)
    message = (
        r"^\d+ of the (\d+) records tried so far are damaged, most recently word \d+: clearly over .* 1 %$"
    )
    with pytest.raises(DataError, match=message):
        train(records, torch.Generator().manual_seed(0), batches=20)
    assert 100 < words.reads < 1000
    # As many as are allowed of each part are no reason to end.
    just = DecodedRecords(Words(100_000, set(range(0, 100_000, 100))), decode)
    train(just, torch.Generator().manual_seed(0), batches=1000)


@pytest.mark.filterwarnings("ignore:damaged record")
def test_damage_in_one_place_is_no_sign_of_more_when_all_is_read_in_order():
    records = DecodedRecords(Words(10_000, set(range(60))), decode)
    assert [records.get(i) is None for i in range(100)] == [True] * 60 + [False] * 40


@pytest.mark.filterwarnings("ignore:damaged record")
def test_parts_of_a_whole_of_unknown_size_are_counted_together():
    tally = Tally()
    for _ in range(50):  # 1 of 100 each time; alone, the second would be over the allowed share
        train(DecodedRecords(Words(100, {3}), decode, tally=tally), torch.Generator().manual_seed(0))
    assert (tally.tried, tally.damaged) == (5000, 50)
    bad = DecodedRecords(Words(300, set(range(200))), decode, tally=tally)
    with pytest.raises(DataError, match=r"^\d+ of the 5\d\d\d records"):
        train(bad, torch.Generator().manual_seed(0))


def test_a_long_reason_is_shortened():
    def fail(raw):
        raise ValueError("x" * 10**6)

    with pytest.warns(UserWarning, match=r"damaged record word 0: ValueError: x+ \.\.\. x+$") as caught:
        DecodedRecords(Words(100), fail).get(0)
    assert len(str(caught[0].message)) < 600


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

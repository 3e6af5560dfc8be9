"""A source read as it is trained on: each record once a pass, over workers and ranks; damage replaced."""

import io
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from bt_multimodal import streams
from bt_multimodal.records import DataError
from bt_multimodal.streams import Stream, StreamLoader, TwinStream


class Numbers:
    """A record is one number, a view that number and a random one."""

    draws = 1
    on_record = None

    def decode(self, raw):
        if raw == b"bad":
            raise ValueError("no number")
        return torch.tensor([int(raw)])

    def draw(self, u, view):
        return {"u": u[:, 0]}


@pytest.fixture
def folder(tmp_path):
    """100 numbers in four files."""
    for i in range(4):
        rows = {"text": [str(n).encode() for n in range(25 * i, 25 * i + 25)], "label": [0] * 25}
        pq.write_table(pa.table(rows), tmp_path / f"train-{i}-of-4.parquet")
    pq.write_table(pa.table({"text": [b"1000"], "label": [0]}), tmp_path / "test-0-of-1.parquet")
    return tmp_path


def twins(folder, steps, batch_size=10, **options):
    return TwinStream(Stream(str(folder), ("text",)), Numbers(), 0, batch_size, steps, **options)


def numbers(batches):
    return [int(n) for batch in batches for n in batch.first.data]


@pytest.mark.parametrize(("workers", "chunk"), [(0, 2048), (0, 30), (2, 2048)])
def test_a_pass_has_every_record_once(folder, monkeypatch, workers, chunk):
    monkeypatch.setattr(streams, "CHUNK", chunk)
    loader = StreamLoader(twins(folder, 10), workers)
    assert len(loader) == 10
    first, second = numbers(loader), numbers(loader)
    assert sorted(first) == list(range(100))
    assert sorted(second) == list(range(100))
    assert first != second
    third = numbers([next(iter(loader))])  # a pass that is not finished counts as well
    assert third == numbers(StreamLoader(twins(folder, 10, epoch=2), workers))[:10]
    again = StreamLoader(twins(folder, 10, epoch=1), workers)
    assert numbers(again) == second  # an epoch is the same in a run that is continued


def test_ranks_share_the_records(folder):
    parts = [numbers(twins(folder, 5, rank=rank, world=2)) for rank in (0, 1)]
    assert sorted(parts[0] + parts[1]) == list(range(100))


def test_a_stream_begins_anew_with_other_views(folder):
    batches = list(twins(folder, 20))
    found = numbers(batches)
    assert sorted(found[:100]) == sorted(found[100:]) == list(range(100))
    assert found[:100] != found[100:]
    drawn = [float(u) for batch in batches for u in batch.first.parameters["u"]]
    assert len(set(drawn)) == 200
    assert not torch.equal(batches[0].first.parameters["u"], batches[0].second.parameters["u"])
    assert batches[0].label.tolist() == [-1] * 10


def test_every_pass_takes_the_files_in_another_order(folder, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK", 25)
    found = numbers(twins(folder, 12, batch_size=25))
    passes = [[n // 25 for n in found[start : start + 100 : 25]] for start in (0, 100, 200)]
    assert [sorted(files) for files in passes] == [[0, 1, 2, 3]] * 3
    assert passes[0] != passes[1] != passes[2]


def test_damage_is_replaced_and_bounded(tmp_path):
    def write(bad):
        rows = [b"bad"] * bad + [str(n).encode() for n in range(200 - bad)]
        pq.write_table(pa.table({"text": rows}), tmp_path / "train.parquet")
        return twins(tmp_path, 20)

    with pytest.warns(
        UserWarning, match=r"damaged record .*train chunk.* row 0: ValueError: no number"
    ) as caught:
        found = numbers(write(1))
    assert len(found) == 200
    assert len(caught) == 1
    batches = write(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match="over the allowed 2"):
            numbers(batches)


def test_a_hub_name_is_streamed(folder, monkeypatch):
    import datasets

    load = datasets.load_dataset

    def load_dataset(name, config, split, streaming):
        assert (name, config, split, streaming) == ("someone/set", "small", "train.clean", True)
        return load("parquet", data_files=str(folder / "train-*"), split="train", streaming=True)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (records,) = Stream("someone/set:small", ("text",), split="train.clean").chunks(0, 0)
    assert sorted(int(records.raw(i)) for i in range(len(records))) == list(range(100))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: 1 / 0)
    with pytest.raises(DataError, match="cannot stream 'someone/set': division by zero"):
        Stream("someone/set", ("text",))


def test_files_that_lie_elsewhere_are_fetched(tmp_path):
    (tmp_path / "a").write_bytes(b"7")
    assert streams._held({"bytes": None, "path": f"file://{tmp_path}/a"}) == b"7"
    assert streams._held({"bytes": None, "path": f"file://{tmp_path}/b"}) is None
    assert streams._held({"bytes": b"8", "path": "b"}) == b"8"


def test_audio_columns_are_not_decoded(tmp_path):
    from datasets import Audio, Dataset

    buffer = io.BytesIO()
    soundfile.write(buffer, torch.zeros(100).numpy(), 8000, format="WAV")
    rows = Dataset.from_dict({"audio": [{"bytes": buffer.getvalue(), "path": "a.wav"}]})
    rows.cast_column("audio", Audio(decode=False)).to_parquet(tmp_path / "train.parquet")
    (records,) = Stream(str(tmp_path), ("audio",)).chunks(0, 0)
    assert records.raw(0) == buffer.getvalue()


def test_wrong_sources_are_one_line(folder, tmp_path):
    with pytest.raises(DataError, match=r"no content column 'sound'.*there are: text, label"):
        Stream(str(folder), ("sound",))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no Parquet file to stream"):
        Stream(str(tmp_path / "empty"), ("text",))
    with pytest.raises(DataError, match="fewer than a batch of 200 records"):
        next(iter(twins(folder, 1, batch_size=200)))

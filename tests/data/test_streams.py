"""A source read as it is trained on: each record once a pass, over workers and ranks; damage replaced."""

import io
import tarfile
import warnings
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from torch.utils import _pytree as pytree

from bt_multimodal.data import streams
from bt_multimodal.data.records import DataError
from bt_multimodal.data.streams import Stream, StreamLoader, TwinStream


class Numbers:
    """A record is one number, a view that number and a random one."""

    draws = 1
    on_record = None

    def __init__(self):
        self.decoded = 0

    def decode(self, raw):
        self.decoded += 1
        if raw == b"bad":
            raise ValueError("no number")
        return torch.tensor([int(raw)])

    def draw(self, u, view):
        return {"u": u[:, 0]}


def write_parquet(path, contents):
    pq.write_table(pa.table({"text": contents, "label": [0] * len(contents)}), path)


def write_tar(path, *members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def folder(tmp_path):
    """100 numbers in four files."""
    for i in range(4):
        write_parquet(
            tmp_path / f"train-{i}-of-4.parquet", [str(n).encode() for n in range(25 * i, 25 * i + 25)]
        )
    write_parquet(tmp_path / "test-0-of-1.parquet", [b"1000"])
    return tmp_path


@pytest.fixture
def shards(tmp_path):
    """The same as tar files, each number beside a caption."""
    for i in range(4):
        pairs = [
            ((f"{n:03}.num", str(n).encode()), (f"{n:03}.txt", b"\xe9")) for n in range(25 * i, 25 * i + 25)
        ]
        write_tar(tmp_path / f"numbers-train-{i:06}.tar", *(member for pair in pairs for member in pair))
    write_tar(tmp_path / "numbers-test-000000.tar", ("0.num", b"1000"))
    return tmp_path


def stream(folder, **options):
    return Stream(str(folder), ("text",), extensions=(".num", ".nbr"), **options)


def twins(folder, steps, batch_size=10, **options):
    return TwinStream(stream(folder), Numbers(), 0, batch_size, steps, **options)


def numbers(batches):
    return [int(n) for batch in batches for n in batch.first.data]


def contents(found, seed=0, epoch=0, **part):
    return [int(row.cell) for row in found.rows(seed, epoch, **part)]


@pytest.mark.parametrize("kind", ["folder", "shards"])
@pytest.mark.parametrize(("workers", "chunk"), [(0, 2048), (0, 30), (2, 2048)])
def test_a_pass_has_every_record_once(request, kind, monkeypatch, workers, chunk):
    folder = request.getfixturevalue(kind)
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


@pytest.mark.parametrize("batch_size", [7, 40])
def test_what_a_chunk_leaves_over_goes_into_the_next(folder, monkeypatch, batch_size):
    monkeypatch.setattr(streams, "CHUNK", 30)
    found = numbers(twins(folder, 100 // batch_size, batch_size))
    assert len(set(found)) == len(found) == 100 - 100 % batch_size


def test_ranks_share_the_records(folder):
    parts = [numbers(twins(folder, 5, rank=rank, world=2)) for rank in (0, 1)]
    assert sorted(parts[0] + parts[1]) == list(range(100))


def test_parts_share_any_number_of_files():
    for n in range(1, 14):
        for parts in range(1, 14):
            taken = Counter()
            shares = [streams._share(list(range(n)), part, parts) for part in range(parts)]
            for share in shares:
                taken.update((file, i) for file, first, step in share for i in range(first, 60, step))
            assert taken == {(file, i): 1 for file in range(n) for i in range(60)}
            sizes = [sum(1 / step for _, _, step in share) for share in shares]
            assert max(sizes) == pytest.approx(min(sizes))
            if n % parts == 0:
                assert all(step == 1 for share in shares for _, _, step in share)


@pytest.mark.parametrize(("world", "workers"), [(1, 3), (3, 2), (2, 4)])
def test_every_process_reads_its_own_part(folder, world, workers):
    parts = world * workers
    found = [
        contents(stream(folder), part=rank * workers + w, parts=parts)
        for rank in range(world)
        for w in range(workers)
    ]
    assert sorted(n for part in found for n in part) == list(range(100))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # As many batches as every part has for sure: none begins anew.
        steps = min(map(len, found)) // 4 * workers
        loaded = [
            numbers(StreamLoader(twins(folder, steps, 4, rank=rank, world=world), workers))
            for rank in range(world)
        ]
    assert len({n for rank in loaded for n in rank}) == steps * 4 * world


def test_fewer_files_than_processes_are_read_several_times(folder):
    with pytest.warns(
        UserWarning, match=r"4 file\(s\) for 3 rank\(s\) with 2 .*: every file is read 3 times"
    ):
        StreamLoader(twins(folder, 10, world=3), 2)
    StreamLoader(twins(folder, 10, world=3, rank=1), 2)  # said once
    StreamLoader(twins(folder, 10, world=2), 2)


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


def assert_same(batches, expected):
    batches, expected = list(batches), list(expected)
    assert len(batches) == len(expected)
    for one, other in zip(batches, expected, strict=True):
        (leaves, shape), (others, other_shape) = (pytree.tree_flatten(views) for views in (one, other))
        assert shape == other_shape
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(leaves, others, strict=True))


@pytest.mark.filterwarnings("ignore:.*suggested max number of worker")
@pytest.mark.parametrize(("workers", "world"), [(0, 1), (1, 1), (2, 1), (3, 1), (2, 2)])
def test_a_pass_is_continued_bit_for_bit(folder, monkeypatch, workers, world):
    monkeypatch.setattr(streams, "CHUNK", 30)
    steps = 17  # which the parts of 4 files and 3 processes do not divide, and beyond the end of a pass
    for rank in range(world):
        whole = list(StreamLoader(twins(folder, steps, 9, epoch=3, rank=rank, world=world), workers))
        for start in (1, 4, 16, 17):
            dataset = twins(folder, steps, 9, epoch=3, rank=rank, world=world, start=start)
            loader = StreamLoader(dataset, workers)
            assert len(loader) == steps
            assert_same(loader, whole[start:])
            if start == 4:  # only the first pass has a start
                assert_same(
                    loader, StreamLoader(twins(folder, steps, 9, epoch=4, rank=rank, world=world), workers)
                )


def test_what_is_passed_over_is_not_decoded(folder):
    batches = twins(folder, 10, start=7)
    assert len(list(batches)) == 3
    assert batches.augmentations.decoded == 30
    for start in (-1, 11):
        with pytest.raises(ValueError, match=f"from 0 to 10, not {start}"):
            twins(folder, 10, start=start)


@pytest.mark.filterwarnings("ignore:damaged record")
def test_damage_is_replaced_the_same_way_when_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK", 50)
    write_parquet(
        tmp_path / "train.parquet", [b"bad" if n % 40 == 7 else str(n).encode() for n in range(200)]
    )
    whole = list(twins(tmp_path, 20))
    assert len(numbers(whole)) == 200
    for start in (3, 11):
        assert_same(twins(tmp_path, 20, start=start), whole[start:])


def damaged(tmp_path, n, every):
    for i in range(4):
        rows = [b"bad" if k % every == 3 else str(k).encode() for k in range(i * n // 4, (i + 1) * n // 4)]
        write_parquet(tmp_path / f"train-{i}-of-4.parquet", rows)
    return tmp_path


def test_little_damage_is_named_once_however_small_the_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK", 50)  # of which one record would be over 1 %
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = numbers(twins(damaged(tmp_path, 800, 200), 80))
    assert len(found) == 800
    row = "damaged record train-{}-of-4.parquet row 3: ValueError: no number"
    assert sorted(str(warning.message) for warning in caught) == [row.format(i) for i in range(4)]


@pytest.mark.filterwarnings("ignore:damaged record")
@pytest.mark.parametrize("workers", [0, 2])
def test_much_damage_ends_a_pass_soon_even_where_each_process_sees_a_part(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(streams, "CHUNK", 50)
    loader = StreamLoader(twins(damaged(tmp_path, 4000, 20), 400), workers)
    seen = []
    message = r"^\d+ of the \d+ records tried so far .* row \d+: clearly over the allowed 1 %$"
    with pytest.raises(DataError, match=message):
        seen.extend(loader)
    assert 10 < len(seen) < 120


def serve(monkeypatch, *name, **files):
    """Files in the place of a hub dataset."""
    import datasets

    load = datasets.load_dataset

    def load_dataset(*asked, split, streaming):
        assert (*asked, split, streaming) == (*name, True)
        return load(**files, split="train", streaming=True)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_hub_name_is_streamed(folder, monkeypatch, workers):
    serve(
        monkeypatch, "someone/set", "small", "train.clean", path="parquet", data_files=str(folder / "train-*")
    )
    found = Stream("someone/set:small", ("text",), split="train.clean")
    assert found.files == 4
    assert sorted(contents(found)) == list(range(100))
    assert next(found.rows(0, 0)).name.startswith("someone/set:small train.clean file ")
    loader = StreamLoader(TwinStream(found, Numbers(), 0, 10, 10), workers)
    assert sorted(numbers(loader)) == list(range(100))


def test_tar_files_on_the_hub_are_streamed(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", *((f"{n}.jpg", str(n).encode()) for n in range(6)))
    serve(monkeypatch, "someone/set", None, "train", path="webdataset", data_files=str(tmp_path / "*.tar"))
    found = Stream("someone/set", ("image",), extensions=(".png", ".jpg"))
    records = found.first(0)
    assert [int(records.raw(i)) for i in range(len(records))] == list(range(6))


def test_the_first_records(folder, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK", 30)
    records = stream(folder).first(0)
    assert len(records) == 30
    assert [int(records.raw(i)) for i in range(30)] == contents(stream(folder))[:30]
    assert records.open(3).read() == records.raw(3)
    assert records.subset([4]).name(0) == records.name(4)
    assert records.labels.tolist() == [-1] * 30


def test_contents_that_lie_elsewhere_are_fetched(tmp_path, monkeypatch):
    import fsspec

    class Endless(io.RawIOBase):
        def read(self, n):
            return b"x" * n

    (tmp_path / "a").write_bytes(b"7")
    there = {
        "https://host/a": io.BytesIO(b"8"),
        "zip://a::hf://datasets/o/n/b.zip": io.BytesIO(b"9"),
        "https://host/endless": Endless(),
    }
    monkeypatch.setattr(fsspec, "open", lambda path, mode: there[path])
    monkeypatch.setattr(streams, "_LARGEST", 10)
    rows = [streams.Row("one", {"bytes": None, "path": path}) for path in ("a", *there)]
    write_parquet(tmp_path / "train.parquet", [b"0"])
    records = stream(tmp_path).records(rows)
    assert [records.raw(i) for i in range(3)] == [b"7", b"8", b"9"]
    with pytest.raises(OSError, match="more than 10 bytes"):
        records.raw(3)


def test_audio_columns_are_not_decoded(tmp_path, monkeypatch):
    from datasets import Audio, Dataset

    buffer = io.BytesIO()
    soundfile.write(buffer, torch.zeros(100).numpy(), 8000, format="WAV")
    rows = Dataset.from_dict({"audio": [{"bytes": buffer.getvalue(), "path": "a.wav"}]})
    rows.cast_column("audio", Audio(decode=False)).to_parquet(tmp_path / "train.parquet")
    assert Stream(str(tmp_path), ("audio",)).first(0).raw(0) == buffer.getvalue()
    serve(monkeypatch, "set", None, "train", path="parquet", data_files=str(tmp_path / "*"))
    assert Stream("set", ("audio",)).first(0).raw(0) == buffer.getvalue()


def test_the_content_of_a_sample_is_the_first_extension_there_is(tmp_path):
    write_tar(
        tmp_path / "all.tar",
        ("a/0.json", b"[" * 10_000),  # is not read
        ("a/0.nbr", b"2"),
        ("a/0.num", b"1"),
        ("b/0.txt", b"no number"),
        ("b/1.NBR", b"3"),
        ("b/2.mask.num", b"4"),
        ("b/.num", b"5"),
    )
    write_parquet(tmp_path / ".hidden.parquet", [b"6"])
    found = list(stream(tmp_path).rows(0, 0))
    assert [row.cell for row in found] == [b"1", None, b"3", None]
    assert found[2].name == "all.tar row 2"
    with pytest.raises(OSError, match=r"^all.tar row 1 is empty$"):
        stream(tmp_path).records(found).raw(1)
    chosen = stream(tmp_path / "all.tar", content_column="mask.num")
    assert [row.cell for row in chosen.rows(0, 0)] == [None, None, None, b"4"]


@pytest.mark.filterwarnings("ignore:damaged record")
def test_a_sample_without_content_is_damaged(tmp_path):
    members = [(f"{n}.{'txt' if n == 4 else 'num'}", str(n).encode()) for n in range(20)]
    write_tar(tmp_path / "train.tar", *members)
    with pytest.warns(UserWarning, match="damaged record train.tar row 4: OSError: train.tar row 4 is empty"):
        found = numbers(twins(tmp_path, 2))
    assert len(found) == 20
    assert 4 not in found


def test_splits_are_in_the_names_of_files_or_folders(tmp_path):
    for i, name in enumerate(("train/0000", "train/0001", "validation/0000", "other/test_1")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_parquet(tmp_path / f"{name}.parquet", [str(i).encode()])
    assert sorted(contents(stream(tmp_path))) == [0, 1]
    assert contents(stream(tmp_path, split="validation")) == [2]
    assert contents(stream(tmp_path, split="test")) == [3]
    with pytest.raises(DataError, match=r"no split 'trian'; available splits: .*; did you mean 'train'"):
        stream(tmp_path, split="trian")
    assert contents(stream(tmp_path / "validation")) == [2]  # the only one there


def test_wrong_sources_are_one_line(folder, tmp_path, monkeypatch):
    import datasets

    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no content column 'sound'.*available columns: text, label"):
        Stream(str(folder), ("sound",))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no Parquet or tar file to stream"):
        stream(tmp_path / "empty")
    with pytest.raises(DataError, match=r"fewer than a batch of 200 records"):
        next(iter(twins(folder, 1, batch_size=200)))
    with pytest.raises(DataError, match="'empty/er' does not exist"):
        stream("empty/er")
    (tmp_path / "torn").mkdir()
    for name in ("train-0.parquet", "train-1.parquet"):
        write_parquet(tmp_path / "torn" / name, [b"1"] * 100)
    (tmp_path / "torn" / "train-1.parquet").write_bytes(b"PAR1 is torn")
    with pytest.raises(DataError, match=r"^cannot read train-1.parquet: ArrowInvalid: [^\n]+$"):
        list(stream(tmp_path / "torn").rows(0, 0))
    write_tar(tmp_path / "text.tar", ("0.txt", b"text"))
    with pytest.raises(
        DataError, match=r"text.tar has no content column 'num' or 'nbr'; available columns: txt$"
    ):
        stream(tmp_path / "text.tar")
    write_parquet(tmp_path / "zero.parquet", [])
    with pytest.raises(DataError, match="has no records"):
        stream(tmp_path / "zero.parquet").first(0)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: 1 / 0)
    with pytest.raises(DataError, match="cannot stream 'someone/set': division by zero"):
        stream("someone/set")

"""The list of damaged records: all of them, each once, by any number of processes; few warnings."""

import os
import pickle
import warnings

import pytest
import torch

from bt_multimodal.data.damage import DamageLog, Tolerance, tolerance
from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.data.records import DataError
from bt_multimodal.data.streams import Row, TwinStream
from bt_multimodal.safe_files import open_regular, read_regular
from encoders.image.views import DigitViews
from tests.data.test_decoding import Words, decode


def warned(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    return [str(warning.message) for warning in caught]


def note(log, lines):
    return warned(lambda: [log.note(line) for line in lines])


def listed(path):
    header, *lines = path.read_text().splitlines()
    assert header.startswith("# Damaged")
    return lines


def test_all_are_listed_once_and_ten_are_shown(tmp_path):
    lines = [f"damaged record {i}: why" for i in range(30)]
    log = DamageLog(tmp_path / "damaged.txt")
    log.begin()
    shown = note(log, [*lines[:20], *lines])
    assert shown[:9] == lines[:9]
    assert shown[9:] == [f"{lines[9]}; any more are only named in {log.file}"]
    assert listed(log.file) == lines


def test_nothing_is_written_before_it_begins_and_nothing_without_damage(tmp_path):
    log = DamageLog(tmp_path / "run" / "damaged.txt")
    assert note(log, ["a", "b", "a"]) == []  # a run that is refused says so in one line
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    assert warned(log.begin) == ["a", "b"]
    assert listed(log.file) == ["a", "b"]
    quiet = DamageLog(tmp_path / "damaged.txt")
    quiet.begin()
    assert not quiet.file.exists()


def test_a_continued_run_and_other_processes_do_not_repeat(tmp_path):
    logs = [DamageLog(tmp_path / "damaged.txt") for _ in range(3)]
    for log in logs:
        log.begin()
    copies = [pickle.loads(pickle.dumps(log)) for log in logs]  # as loader workers have it
    for k, line in enumerate("abcabcacbd"):
        note(copies[k % 3], [line])
    assert listed(tmp_path / "damaged.txt") == list("abcd")
    again = DamageLog(tmp_path / "damaged.txt")
    assert note(again, ["a", "e"]) == []
    assert warned(again.begin) == ["e"]
    assert note(again, ["b", "f"]) == ["f"]
    assert listed(tmp_path / "damaged.txt") == list("abcdef")


def test_a_line_that_another_process_has_not_finished_is_no_line(tmp_path):
    path = tmp_path / "damaged.txt"
    path.write_text("# Damaged\nwhole\npar")
    log = DamageLog(path)
    log.begin()
    assert note(log, ["whole"]) == []


def test_names_that_are_not_utf_8(tmp_path):
    log = DamageLog(tmp_path / "damaged.txt")
    log.begin()
    note(log, ["damaged record \udcff: why", "damaged record \udcff: why"])
    assert listed(log.file) == ["damaged record \\udcff: why"]


def test_a_list_that_cannot_be_kept_becomes_warnings(tmp_path):
    log = DamageLog(tmp_path / "missing" / "damaged.txt")
    log.begin()
    shown = note(log, [str(i) for i in range(20)])
    assert "cannot be kept" in shown[0]
    assert shown[1:] == [str(i) for i in range(20)]


@pytest.mark.parametrize(
    ("n", "allowed", "least", "most"),
    [
        (97, 0.01, 5, 5), (97, 0.01, 0, 0), (97, 0.1, 5, 9), (1000, 0.01, 5, 10), (600, 0.01, 5, 6),
        (10, 0.01, 5, 5), (9, 0.01, 5, 4), (3, 0.01, 5, 1), (2, 0.01, 5, 1), (1, 0.01, 5, 0),
        (97, 0.0, 20, 20), (97, 0.0, 0, 0), (97, 1.0, 0, 97),
    ],
)  # fmt: skip
def test_a_share_and_a_least_number(n, allowed, least, most):
    def damaged(count):
        records = DecodedRecords(Words(n, set(range(count))), decode, allowed=allowed, least=least)
        return sum(records.get(i) is None for i in range(n))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert damaged(most) == most
        if most < n:
            with pytest.raises(DataError, match=f"over the allowed {most}"):
                damaged(most + 1)


def test_unsupported_is_not_damaged(tmp_path):
    def refuse(raw):
        raise ValueError("unsupported picture: 13 bands")

    records = DecodedRecords(Words(100), refuse)
    assert warned(lambda: records.get(3)) == [
        "unsupported record word 3: ValueError: unsupported picture: 13 bands"
    ]


def test_the_log_of_a_run_reaches_every_subset(tmp_path):
    tolerated = tolerance(0.5, 0, tmp_path)
    tolerated.log.begin()
    records = DecodedRecords(Words(100, {3, 5}), decode, **tolerated._asdict())
    with pytest.warns(UserWarning, match="word 3"):
        records.subset([3]).get(0)
    with pytest.warns(UserWarning, match="word 5"):
        pickle.loads(pickle.dumps(records)).batch(torch.tensor([5, 3]))
    assert [line.split(":")[0] for line in listed(tmp_path / "damaged.txt")] == [
        "damaged record word 3", "damaged record word 5",
    ]  # fmt: skip
    assert Tolerance() == (0.01, 5, None)


def test_the_record_that_ends_a_run_is_listed(tmp_path):
    tolerated = tolerance(0.0, 1, tmp_path)
    tolerated.begin()
    records = DecodedRecords(Words(100, {3, 5}), decode, **tolerated._asdict())
    with pytest.warns(UserWarning, match="word 3") as caught:
        records.get(3)
    shown = warnings.formatwarning(caught[0].message, UserWarning, caught[0].filename, caught[0].lineno)
    assert len(shown.splitlines()) == 1
    with pytest.raises(DataError, match="word 5"):
        records.get(5)
    assert len(listed(tmp_path / "damaged.txt")) == 2


@pytest.mark.parametrize(("share", "least"), [(-0.1, 5), (1.1, 5), (float("nan"), 5), (0.1, -1)])
def test_tolerances_out_of_range(share, least):
    with pytest.raises(ValueError, match="damaged_"):
        tolerance(share, least)


def test_only_regular_files_of_a_sane_size_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    os.symlink(tmp_path / "file", tmp_path / "link")
    assert [read_regular(tmp_path / name, 3) for name in ("file", "link")] == [b"abc"] * 2
    with pytest.raises(OSError, match="3 bytes are over the limit of 2"):
        read_regular(tmp_path / "file", 2)
    os.symlink("/dev/zero", tmp_path / "zeros")
    os.mkfifo(tmp_path / "pipe")
    os.truncate(os.open(tmp_path / "sparse", os.O_CREAT | os.O_WRONLY), 2**33)
    for name, kind in (("zeros", "device"), ("pipe", "pipe"), ("", "folder"), ("sparse", "over the limit")):
        with pytest.raises(OSError, match=kind):
            read_regular(tmp_path / name, 2**20)
        if name != "sparse":
            with pytest.raises(OSError, match=kind):
                open_regular(tmp_path / name)


class Flow:
    """A stream of words, of which every third is damaged."""

    source = "words"

    def rows(self, seed, epoch, part=0, parts=1):
        return (Row(f"row {i}", -1 if i % 3 == 0 else i) for i in range(30))

    def records(self, rows):
        words = Words(len(rows), {i for i, row in enumerate(rows) if row.cell < 0})
        words.name = lambda i: rows[i].name
        return words


def test_a_stream_has_the_same_tolerance_and_list(tmp_path):
    views = DigitViews()
    views.decode = decode
    tolerated = tolerance(0.0, 5, tmp_path)
    tolerated.begin()
    batches = iter(TwinStream(Flow(), views, 0, 4, 7, tolerance=tolerated))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=r"6 of the .* records tried so far are damaged"):
            list(batches)
    assert len(listed(tmp_path / "damaged.txt")) == 6
    batches = iter(TwinStream(Flow(), views, 0, 4, 7, tolerance=Tolerance(0.9)))
    with pytest.warns(UserWarning, match="damaged record row"):
        assert len(list(batches)) == 7

"""Inputs that want to harm: refused in one line, or a damaged record, in little memory and time.

Run as a script, it opens the files that `hostile` made and prints what that came to.
"""

import contextlib
import csv
import io
import json
import os
import re
import resource
import struct
import subprocess
import sys
import tarfile
import time
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from bt_multimodal.data.records import DataError, file_records, open_records
from bt_multimodal.data.streams import Stream
from encoders.audio.decode import decode_audio
from encoders.image import ops

ROOT = Path(__file__).parents[2]
# What a file of 25 MB at most may take: a multiple of the largest, and of what counting to ten million does
# in the same process. A bomb of these would take hundreds of times as much of either.
MOST_MEMORY, MOST_TIME = 24 * 25e6, 50
HANG = 1200  # seconds after which all of them together are given up


def opened(source, **options):
    return open_records(str(source), extensions=(".jpg",), content_columns=("image",), **options)


def streamed(source):
    return Stream(str(source), ("image",), extensions=(".jpg",))


def black_png(width, height):
    """One bit a pixel, packed without ever being whole."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    row = bytes(1 + (width + 7) // 8)
    pixels = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def wav(rate, data, channels=1, claimed=None):
    size = len(data) if claimed is None else claimed
    kind = struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * 2 % 2**32, 2, 16)
    return (
        b"RIFF" + struct.pack("<I", 2**32 - 1) + b"WAVEfmt " + kind + b"data" + struct.pack("<I", size) + data
    )


def flac(claimed):
    """A short file whose header claims so many samples."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(4096, np.int16), 16_000, format="FLAC")
    raw = bytearray(buffer.getvalue())
    raw[18:26] = (int.from_bytes(raw[18:26]) >> 36 << 36 | claimed).to_bytes(8)
    return bytes(raw)


def header(name, size, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info.tobuf(tarfile.GNU_FORMAT)


def sealed(raw):
    """A tar header with its checksum made right."""
    return raw[:148] + b"%06o\0 " % sum(raw[:148] + b" " * 8 + raw[156:512]) + raw[156:]


def sparse(name, claimed):
    """512 bytes that are a file of ``claimed`` zeros."""
    raw = bytearray(header(name, 0, tarfile.GNUTYPE_SPARSE))
    raw[386:410] = b"00000000000\0" * 2
    raw[482:495] = b"\0%011o\0" % claimed
    return sealed(bytes(raw))


def padded(content):
    return content + bytes(-len(content) % 512)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder of them."""
    folder = tmp_path_factory.mktemp("hostile")
    one = header("1.jpg", 0)
    files = {
        "30000.png": black_png(30_000, 30_000),
        "12000.png": black_png(12_000, 12_000),
        "narrow.png": black_png(1, 40_000),
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n",
        "long.flac": flac(2**31 - 1),
        "endless.flac": flac(2**36 - 1),
        "long.wav": wav(16_000, bytes(2000), claimed=2**32 - 2),
        "channels.wav": wav(16_000, bytes(2**18), channels=2**16 - 1),
        "4GHz.wav": wav(4_000_000_000, bytes(2000)),
        "2GHz.wav": wav(2_000_000_011, bytes(2000)),
        "odd.wav": wav(44_101, bytes(2000)),
        "slow.wav": wav(1, bytes(200_000)),
        "sparse.tar": sparse("0.jpg", 2**32) + header("1.jpg", 1) + padded(b"1") + bytes(1024),
        "huge.tar": header("0.jpg", 2**33 - 1) + padded(b"0"),
        # A size of -512: what follows the member is the member.
        "negative.tar": header("0.jpg", 0) + sealed(one[:124] + b"\xff" * 10 + b"\xfe\0" + one[136:]),
        "garbage.tar": header("0.jpg", 1) + padded(b"0") + b"no header" * 500,
        "chain.tar": header("././@LongLink", 5, tarfile.GNUTYPE_LONGNAME) + padded(b"0.jpg"),
        "wide.csv": b"image,label\n" + b"x" * 2**24 + b",a\n",
        "deep.jsonl": b'{"image": ' + b"[" * 10**6 + b"]" * 10**6 + b"}\n",
        "deeper.jsonl": b'{"image": ' + b'{"a": ' * 10**5 + b"1" + b"}" * 10**5 + b"}\n",
        "long.jsonl": json.dumps({"image": "x" * 10**7, "label": "y" * 10**7}).encode(),
    }
    files["chain.tar"] *= 5000
    for name, content in files.items():
        (folder / name).write_bytes(content)
    label = pa.DictionaryArray.from_arrays(np.zeros(1000, np.int32), ["y" * 10**7])
    pq.write_table(
        pa.table({"image": [b"0"] * 1000, "label": label}), folder / "label.parquet", store_schema=False
    )
    numbers = pa.array([{"path": 10**10}] * 2, pa.struct({"path": pa.int64()}))
    pq.write_table(pa.table({"image": numbers}), folder / "number.parquet")
    return folder


def lengths(rows):
    return [row.cell if row.cell is None else len(row.cell) for row in rows]


def attempts(folder):
    """What is done with each file; the first line of its error, or its result, is looked at."""

    def read(name):
        return (folder / name).read_bytes()

    pictures = ("30000.png", "12000.png", "narrow.png", "script.eps")
    sounds = (
        "long.flac",
        "endless.flac",
        "long.wav",
        "channels.wav",
        "4GHz.wav",
        "2GHz.wav",
        "odd.wav",
        "slow.wav",
    )
    shards = ("sparse.tar", "huge.tar", "garbage.tar")
    tables = (
        "negative.tar",
        "chain.tar",
        "wide.csv",
        "deep.jsonl",
        "deeper.jsonl",
        "long.jsonl",
        "label.parquet",
    )
    return {
        **{name: lambda name=name: ops.decode_rgb(read(name)).shape for name in pictures},
        **{name: lambda name=name: len(decode_audio(read(name), 16_000)) for name in sounds},
        **{name: lambda name=name: lengths(streamed(folder / name).rows(0, 0)) for name in shards},
        **{name: lambda name=name: len(opened(folder / name).train) for name in tables},
        "number.parquet": lambda: opened(folder / "number.parquet").train.open(0),
    }


@pytest.fixture(scope="module")
def outcomes(hostile):
    done = subprocess.run(
        [sys.executable, __file__, str(hostile)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=HANG, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


PICTURE = "ValueError: cannot decode the picture: "
LABEL = "has a label of 10,000,000 characters; at most 1,000 are allowed"
EXPECTED = {
    "30000.png": PICTURE + "DecompressionBombError: ",
    "12000.png": PICTURE + "ValueError: 12000 x 12000 pixels are over the limit of 134,217,728",
    "narrow.png": PICTURE + "ValueError: 1 x 40000 pixels: one side is over 1,000 times the other",
    "script.eps": "ValueError: unsupported picture: a file (PostScript, 69 bytes); JPEG, ",
    "long.flac": "4096",  # as many as there are
    "endless.flac": "4096",
    "long.wav": "1000",  # there is no more of it
    "channels.wav": "ValueError: cannot decode the audio: ",
    "4GHz.wav": "ValueError: cannot decode the audio: ",
    "2GHz.wav": "1",
    "odd.wav": "363",
    "slow.wav": "ValueError: 100,000 samples of 1 channel(s), 1,600,000,000 at 16000 Hz, are over the limit",
    "sparse.tar": "[1]",
    "huge.tar": "DataError: cannot stream '{}/huge.tar': a member of 8589934591 bytes at byte 0 of 1024",
    "negative.tar": "DataError: cannot read negative.tar: ",
    "garbage.tar": "DataError: cannot stream '{}/garbage.tar': no header at byte 1024",
    "chain.tar": "DataError: cannot read chain.tar: ",
    "wide.csv": "DataError: cannot read '{}/wide.csv': field larger than field limit (131072)",
    "deep.jsonl": "DataError: cannot read '{}/deep.jsonl': maximum recursion depth exceeded",
    "deeper.jsonl": "DataError: cannot read '{}/deeper.jsonl': maximum recursion depth exceeded",
    "long.jsonl": "DataError: column 'label' of long.jsonl " + LABEL,
    "label.parquet": "DataError: column 'label' of label.parquet " + LABEL,
    "number.parquet": "OSError: number.parquet row ",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_little_memory_and_time_and_one_line(hostile, outcomes, name):
    assert (hostile / name).stat().st_size < 25e6
    text, grown, took = outcomes[name]
    assert text.startswith(EXPECTED[name].replace("{}", str(hostile)))
    assert "\n" not in text
    assert len(text) < 500
    assert grown < MOST_MEMORY
    assert took < MOST_TIME


# A sample that is looked for outside the archive would be this.
SECRET = b"secret"


def test_a_tar_file_names_nothing_outside_itself(tmp_path, monkeypatch):
    home = tmp_path / "a" / "b"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    (tmp_path / "x.jpg").write_bytes(SECRET)
    (home / "target.jpg").write_bytes(SECRET)
    names = ["../../x.jpg", "/etc/passwd.jpg", "../../new.jpg"]
    raw = b"".join(header(name, 4) + padded(b"mine") for name in names)
    for i, (kind, link) in enumerate(
        [(tarfile.SYMTYPE, "../../x.jpg"), (tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "target.jpg")]
    ):
        raw += header(f"link{i}.jpg", 0, kind, link) + header(f"link{i}.txt", 1) + padded(b"t")
    raw += header("pipe.jpg", 0, tarfile.FIFOTYPE) + header("last.jpg", 4) + padded(b"last") + bytes(1024)
    (home / "set.tar").write_bytes(raw)
    before = sorted(tmp_path.rglob("*"))
    content = [b"mine"] * 3 + [None] * 3 + [b"last"]
    rows = list(streamed(home / "set.tar").rows(0, 0))
    assert [row.cell for row in rows] == content
    splits = opened(home / "set.tar", content_column="jpg")
    found = {}
    for part in splits[:2]:
        for i in range(len(part)):
            with contextlib.suppress(OSError):
                found[part.name(i)] = part.raw(i)
    assert sorted(found.values()) == [b"last", b"mine", b"mine", b"mine"]
    assert all(name.startswith(f"{home}/set.tar at byte ") for name in found)
    assert sorted(tmp_path.rglob("*")) == before


PATHS = ["../secret", "sub/../../secret", "{}/secret", "/etc/passwd", "folder2/secret", "file:///etc/passwd"]


@pytest.mark.parametrize("kind", ["path", "struct"])
def test_paths_in_a_table_stay_in_its_folder(tmp_path, kind):
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    for name in ("secret", "folder/own", "folder/sub/own"):
        (tmp_path / name).write_bytes(SECRET if name == "secret" else b"own")
    (tmp_path / "folder2").mkdir()
    (tmp_path / "folder2" / "secret").write_bytes(SECRET)
    good = ["own", "sub/own", "sub/../own", f"{tmp_path}/folder/own"]
    bad = [path.replace("{}", str(tmp_path)) for path in PATHS]
    bad += [f"../{'x' * 10**6}", f"{tmp_path}/folder2/secret"]
    paths = good + bad
    cells = paths if kind == "path" else [{"bytes": None, "path": path} for path in paths]
    pq.write_table(pa.table({"image": cells}), tmp_path / "folder" / "train.parquet")
    pq.write_table(pa.table({"image": cells[:1]}), tmp_path / "folder" / "test.parquet")
    found = streamed(tmp_path / "folder")
    held = found.records(list(found.rows(0, 0)))
    for records in (opened(tmp_path / "folder").train, held):
        assert [records.raw(i) for i in range(len(good))] == [b"own"] * len(good)
        with records.open(1) as file:
            assert file.read() == b"own"
        for i in range(len(good), len(paths)):
            for take in (records.raw, records.open):
                with pytest.raises(
                    OSError, match=r"leads out of the folder|there is no local folder|No such file"
                ) as caught:
                    take(i)
                assert len(str(caught.value)) < 400
            assert len(records.name(i)) < 400


def test_paths_in_the_rows_of_a_hub_dataset_are_refused(tmp_path, monkeypatch):
    import datasets

    (tmp_path / "own").write_bytes(b"own")
    monkeypatch.chdir(tmp_path)
    paths = ["own", str(tmp_path / "own"), "../own", f"file://{tmp_path}/own", "local:own", "memory://own",
             f"zip://own::file://{tmp_path}/own", "zip://a::file:///own::https://host/b"]  # fmt: skip
    rows = datasets.Dataset.from_dict({"image": paths})
    hub = datasets.DatasetDict(train=rows, test=rows)
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *_, streaming=False, split=None: rows.to_iterable_dataset() if streaming else hub,
    )
    found = streamed("someone/set")
    for records in (opened("someone/set").train, found.records(list(found.rows(0, 0)))):
        for i, path in enumerate(paths):
            with pytest.raises(
                PermissionError, match=r"instead of contents: there is no local folder"
            ) as caught:
                records.raw(i)
            assert path[:20] in str(caught.value)
            assert records.name(i).startswith("someone/set train ")


def test_the_users_own_lists_may_name_files_anywhere(tmp_path):
    (tmp_path / "lists").mkdir()
    for i in range(2):
        (tmp_path / f"{i}.jpg").write_bytes(b"own")
    with open(tmp_path / "lists" / "m.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image"], ["../0.jpg"], [tmp_path / "1.jpg"]])
    splits = opened(tmp_path / "lists" / "m.csv")
    assert splits.train.raw(0) == splits.train.raw(1) == b"own"
    assert file_records(tmp_path / "lists", ["../0.jpg"], splits.train.labels, []).raw(0) == b"own"


def test_long_names_are_shortened_in_messages(tmp_path):
    name = "n" * 10**6
    pq.write_table(pa.table({name: [b"0"], "label": ["a"]}), tmp_path / "names.parquet")
    (tmp_path / "names.jsonl").write_text(
        json.dumps({name: "0", "split": name}) + "\n" + json.dumps({"split": "b"})
    )
    for source, options in (
        ("names.parquet", {}),
        ("names.parquet", {"content_column": name}),
        ("names.parquet", {"content_column": "m" * 10**6}),
        ("names.jsonl", {}),
        ("names.jsonl", {"train_split": name}),
    ):
        with pytest.raises(DataError) as caught:
            opened(tmp_path / source, **options)
        assert len(str(caught.value)) < 600
    pq.write_table(pa.table({"image": [name, name]}), tmp_path / "paths.parquet")
    assert len(opened(tmp_path / "paths.parquet").train.name(0)) < 400
    assert len(str(DataError("x " * 10**6))) < 3000


def test_a_picture_of_the_largest_size_is_decoded(monkeypatch):
    monkeypatch.setattr(ops, "MOST_PIXELS", 100 * 100)
    assert ops.decode_rgb(black_png(100, 100)).shape == (3, 100, 100)
    assert ops.decode_grey(black_png(1, 1000)).shape == (1, 1000, 1)
    for array in (np.zeros((100, 101), np.uint8), np.zeros((1, 1001), np.uint8)):
        with pytest.raises(ValueError, match="pixels"):
            ops.decode_grey(array)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # whatever others make of PIL's own limit
    with pytest.raises(ValueError, match="100 x 101 pixels are over the limit of 10,000"):
        ops.decode_rgb(black_png(100, 101))


def peak():
    """The most memory that this process has ever held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss begins with that of the process that has started this one
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))[1])
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest


def main(folder):
    """Print of each attempt what came of it, by how much memory has grown, and its time in countings."""
    start = time.process_time()
    for _ in range(10**7):
        pass
    counting = time.process_time() - start
    outcomes = {}
    for name, attempt in attempts(Path(folder)).items():
        before, start = peak(), time.process_time()
        try:
            text = str(attempt())
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
        outcomes[name] = (text, peak() - before, (time.process_time() - start) / counting)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(sys.argv[1])

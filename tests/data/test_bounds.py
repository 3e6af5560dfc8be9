"""Sources that are small and would be large: read, or refused in one line, in little memory and time.

Run as a script, it opens each source of a folder in a process of its own and prints what that came to.
"""

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bt_multimodal.data.records import open_source
from bt_multimodal.data.streams import open_stream
from encoders.image.modality import IMAGES
from encoders.text.modality import TEXTS

ROOT = Path(__file__).parents[2]
MOST_MEMORY, MOST_TIME = 2e9, 60  # bytes; seconds, three times those of the slowest on two busy cores
HANG = 900

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="memory is measured, and devices are, as on Linux"
)


def repeated(value: bytes, rows: int, **columns: pa.Array) -> pa.Table:
    """A column of one value, stored once."""
    cells = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value.decode()]))
    return pa.table({"text": cells, **columns})


def sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(8 * 2**30)


def make(folder: Path) -> None:
    def parquet(name: str, table: pa.Table, **options) -> None:
        pq.write_table(table, folder / name, store_schema=False, **options)

    parquet("dictionary.parquet", repeated(b"x" * 1000, 10**7), compression="zstd")
    parquet("rows.parquet", pa.table({"text": pa.nulls(5 * 10**7, pa.string())}), compression="zstd")
    parquet("long.parquet", repeated(b"y" * 10**7, 900), compression="zstd")
    image = pa.StructArray.from_arrays([repeated(b"z" * 10**6, 5000)["text"].combine_chunks()], ["bytes"])
    parquet("image.parquet", pa.table({"image": image}), compression="zstd")
    parquet(
        "lists.parquet",
        pa.table({"text": ["a"], "n": pa.array([[0] * (3 * 10**7)], pa.list_(pa.int64()))}),
        compression="zstd",
    )
    (folder / "line.jsonl").write_bytes(b'{"text": "' + b"x" * 50_000_000 + b'"}\n')
    (folder / "objects.jsonl").write_bytes(b'{"text": "a", "n": [' + b"{}," * 11_000_000 + b"{}]}\n")
    keys = [json.dumps({"text": "a", f"key {i}": i}) for i in range(30_000)]
    (folder / "keys.jsonl").write_text("\n".join(keys))
    (folder / "onekey.jsonl").write_text(json.dumps({"text": "a", **{f"key {i}": i for i in range(30_000)}}))
    few = json.dumps({"text": "a", **{f"k{i}": i for i in range(4000)}})
    (folder / "empty.jsonl").write_text(few + "\n" + '{"text": "a"}\n' * 300_000)
    (folder / "header.csv").write_text(",".join(f"c{i}" for i in range(100_000)) + "\n")
    (folder / "field.csv").write_text("text\n" + "é" * 70_000_000 + "\n")
    (folder / "quote.csv").write_text('text\n"' + "a\n" * 40_000_000)
    for name in (
        "sparse.csv",
        "sparse.tsv",
        "sparse.jsonl",
        "sparse.txt",
        "sparse.parquet",
        "sparse.tar",
        "sparse.json",
    ):
        sparse(folder / name)
    bomb = (b"text\n" + b"a\n" * 10**7, 60)
    with gzip.open(folder / "bomb.csv.gz", "wb", 9) as file:
        for _ in range(bomb[1]):
            file.write(bomb[0])
    (folder / "bomb.jsonl.bz2").write_bytes(bz2.compress(b"{}\n" * 2 * 10**7))
    (folder / "bomb.txt.xz").write_bytes(lzma.compress(b"a\n" * 3 * 10**7, preset=1))
    with pa.CompressedOutputStream(str(folder / "bomb.txt.zst"), "zstd") as file:
        for _ in range(300):
            file.write(b"a" * 10**7)
    (folder / "zero.csv").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.csv")
    for name, target in {
        "zero.jpg": "/dev/zero",
        "loop.jpg": "loop.jpg",
        "gone.jpg": "nowhere",
        "here.jpg": "0.jpg",
    }.items():
        (folder / "odd").mkdir(exist_ok=True)
        (folder / "odd" / name).symlink_to(target)
    os.mkfifo(folder / "odd" / "pipe.jpg")
    (folder / "odd" / "0.jpg").write_bytes(b"0")
    deep = folder / "deep"
    deep.mkdir()
    here = os.open(deep, os.O_RDONLY)
    for _ in range(1200):  # one by one: the path grows too long otherwise
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("1.jpg", os.O_CREAT, dir_fd=here))
    os.close(here)
    (deep / "2.jpg").write_bytes(b"2")
    circle = folder / "circle"
    for name in ("a", "b"):
        (circle / name).mkdir(parents=True)
        (circle / name / "1.jpg").write_bytes(b"1")
        (circle / name / "up").symlink_to(circle)
        (circle / name / "again").symlink_to(circle / name)
    (folder / "huge").mkdir()
    sparse(folder / "huge" / "0.jpg")
    (folder / "huge" / "1.jpg").write_bytes(b"1")
    (folder / "table.csv").write_text("path\nzero.csv\npipe.csv\nhuge/0.jpg\nodd/0.jpg\n")
    wide = folder / "many"
    for c in range(100):
        (wide / f"c{c}").mkdir(parents=True)
        for i in range(300):
            os.close(os.open(wide / f"c{c}" / f"{i}.jpg", os.O_CREAT))


def contents(splits) -> str:
    """What reading each record came to: its length, or its error."""
    found = []
    for part in splits[:2]:
        for i in range(min(len(part), 5)):
            try:
                found.append(str(len(part.raw(i))))
            except OSError as error:
                found.append(str(error).rpartition("/")[2])
    return ", ".join(found)


def attempt(folder: Path, name: str) -> str:
    path = folder / name.removeprefix("stream ")
    if name.startswith("stream "):
        return f"{sum(1 for _ in open_stream(str(path), TEXTS).rows(0, 0))} rows"
    pictures = path.is_dir() or name in ("table.csv", "image.parquet")
    splits = open_source(str(path), IMAGES if pictures else TEXTS)
    return f"{len(splits.train) + len(splits.test)} records: {contents(splits)}"


EXPECTED = {
    "dictionary.parquet": "it holds 10,000,000 rows, over the limit of",
    "rows.parquet": "it holds 50,000,000 rows, over the limit of 1,1",
    "long.parquet": "it holds more than",
    "image.parquet": "it holds more than",
    "lists.parquet": "1 record and no test split",
    "line.jsonl": "line 1 has more than the limit of 33,554,432 characters",
    "objects.jsonl": "1 record and no test split",
    "keys.jsonl": "has more columns than the limit of 4,096",
    "onekey.jsonl": "has more columns than the limit of 4,096",
    "empty.jsonl": "over the limit of 16,777,216 empty ones",
    "header.csv": "it has 100,000 columns, over the limit of 4,096",
    "field.csv": "line 2 has more than the limit of 67,108,864 characters",
    "quote.csv": "field larger than field limit (67108864)",
    "sparse.csv": "line 1 has more than the limit of 67,108,864 characters",
    "sparse.tsv": "line 1 has more than the limit of 67,108,864 characters",
    "sparse.jsonl": "line 1 has more than the limit of 33,554,432 characters",
    "sparse.txt": "line 1 has more than the limit of 67,108,864 characters",
    "sparse.json": "it has more than the limit of 33,554,432 characters",
    "sparse.parquet": "cannot read",
    "sparse.tar": "has no",
    "bomb.csv.gz": "it unpacks to more than the limit of 2,",
    "bomb.jsonl.bz2": "it unpacks to more than the limit of 1,0",
    "bomb.txt.xz": "it unpacks to more than the limit of 1,0",
    "bomb.txt.zst": "it unpacks to more than the limit of 16,777,216 bytes",
    "zero.csv": "is not a folder, Parquet file, tar file or manifest",
    "pipe.csv": "is not a folder, Parquet file, tar file or manifest",
    "odd": "2 records: 1, 1",
    "deep": "2 records: 1, 0",
    "circle": "2 records: 1, 1",
    "huge": "2 records: 8,589,934,592 bytes are over the limit of 1,073,741,824 for one record, 1",
    "table.csv": "4 records: not a file but a device, not a file but a pipe, 8,589,934,592 bytes are "
    "over the limit of 1,073,741,824 for one record, 1",
    "many": "30000 records: 0, 0",
    "stream dictionary.parquet": "it holds 10,000,000 rows",
    "stream rows.parquet": "it holds 50,000,000 rows",
    "stream line.jsonl": "line 1 has more than the limit of",
    "stream bomb.csv.gz": "it unpacks to more than the limit of 2,",
    "stream sparse.txt": "line 1 has more than the limit of",
    "stream pipe.csv": "has no Parquet, tar",
    "stream zero.csv": "has no Parquet, tar",
}  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bounds")
    make(folder)
    done = subprocess.run(
        [sys.executable, __file__, str(folder)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=HANG, check=True,
    )  # fmt: skip
    subprocess.run(["rm", "-rf", folder], check=True)  # Python's own way recurses
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_little_memory_and_time_and_one_line(outcomes, name):
    text, memory, took = outcomes[name]
    assert EXPECTED[name] in text
    assert "\n" not in text
    assert len(text) < 700
    assert memory < MOST_MEMORY
    assert took < MOST_TIME


def main(folder: Path, names: list[str]) -> None:
    found = {}
    for name in names:
        reader, writer = os.pipe()
        began = time.perf_counter()
        child = os.fork()
        if not child:
            try:
                text = attempt(folder, name)
            except ValueError as error:
                text = f"DataError: {error}"
            except BaseException as error:
                text = f"other: {type(error).__name__}: {error}"
            with os.fdopen(writer, "w") as file:
                file.write(text.encode("utf-8", "replace").decode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as file:
            text = file.read()
        _, _, usage = os.wait4(child, 0)
        found[name] = text, usage.ru_maxrss * 1024, time.perf_counter() - began
        print(
            f"{found[name][2]:6.1f} s {found[name][1] / 1e6:7.0f} MB  {name}: {text[:200]}",
            file=sys.stderr,
            flush=True,
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), list(EXPECTED))

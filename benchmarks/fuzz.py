"""Damaged and hostile inputs to the commands: each run ends well or in one line, in bounded memory and time.

    python benchmarks/fuzz.py [--cases 1000] [--seed 0] [--only KIND ...]

The kinds: files of pictures and sounds, tables of texts, Parquet and tar files, configs, arguments, the
files of a run that is continued, and encoder files. A case takes an intact input and changes bytes, cuts,
repeats or exchanges parts of it, or puts an odd value in the place of a usual one. Every case is a process
forked from one that has imported the libraries. It must end with status 0, 1 or 2; without a traceback; a
status above 0 with a line that begins with ``error:``; within 2 GB and 20 seconds of CPU time.

The benchmark prints a table of the kinds and every case that went wrong; its exit status is 1 if there is
one.
"""

import argparse
import csv
import io
import json
import os
import random
import resource
import shutil
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

MOST_BYTES, MOST_SECONDS = 2 * 10**9, 20
QUICK = [
    "--trainer.fast_dev_run", "true", "--model.projector", "[16, 16]", "--model.warmup_epochs", "0",
    "--probe.linear", "false", "--probe.per_class", "[2]",
]  # fmt: skip
IMAGES = ["image", "pretrain", "--config", "image/digits", *QUICK, "--model.encoder.widths", "[8]"]
SOUNDS = ["audio", "pretrain", "--config", "audio/synthetic", *QUICK, "--model.encoder.widths", "[8]"]
TEXTS = ["text", "pretrain", "--config", "text/docstrings", *QUICK, "--views.vocabulary", "300"]
SMALL = ["--data.batch_size", "8", "--data.cache", "false"]


class Case(NamedTuple):
    """An input, and the command that meets it."""

    text: str
    argv: list[str]


class Result(NamedTuple):
    """How a case ended."""

    status: int
    log: str
    bytes: int
    seconds: float

    @property
    def wrong(self) -> str:
        """What is wrong with it, or nothing."""
        lines = [line for line in self.log.splitlines() if line.startswith("error:")]
        found = []
        if self.status not in (0, 1, 2):
            found.append(f"status {self.status}")
        if "Traceback" in self.log:
            found.append("a traceback")
        if self.status and len(lines) != 1:
            found.append(f"{len(lines)} lines of error")
        if self.bytes > MOST_BYTES:
            found.append(f"{self.bytes / 1e9:.1f} GB")
        if self.seconds > MOST_SECONDS:
            found.append(f"{self.seconds:.0f} s")
        return ", ".join(found)


def changed(content: bytes, rng: random.Random) -> bytes:
    """The bytes with some damage."""
    if not content:
        return content
    data = bytearray(content)
    how = rng.randrange(7)
    if how == 0:
        return bytes(data[: rng.randrange(len(data))])
    if how == 1:
        for _ in range(rng.choice([1, 8, 64])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif how == 2:  # in the header
        for _ in range(rng.choice([1, 4])):
            data[rng.randrange(min(64, len(data)))] = rng.randrange(256)
    elif how == 3:
        at = rng.randrange(len(data))
        data[at:at] = rng.choice(
            [b"\0" * 1000, b"\xff" * 8, b'"', b"\n", b"\r", b"\t,;", b"\xef\xbb\xbf", b"{[" * 500]
        )
    elif how == 4:
        a, b = sorted(rng.randrange(len(data)) for _ in range(2))
        del data[a:b]
    elif how == 5:
        a, b = sorted(rng.randrange(len(data)) for _ in range(2))
        data += data[a:b] * rng.choice([1, 3])
    else:
        at = rng.randrange(len(data))
        data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\x80\0\0\0"])
    return bytes(data)


def pictures(folder: Path, rng: random.Random) -> Case:
    """A folder of pictures, of which some or all are damaged."""
    import numpy as np
    from PIL import Image

    ending = rng.choice(["png", "jpg", "bmp", "gif", "webp", "tiff", "ppm", "jp2"])
    share = rng.choice([0.03, 0.5, 1.0])
    for i in range(24):
        file = io.BytesIO()
        pixels = np.random.default_rng(i).integers(0, 256, (12, 12 + i % 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, {"jpg": "jpeg", "jp2": "jpeg2000"}.get(ending, ending))
        content = file.getvalue()
        path = folder / "data" / "ab"[i % 2] / f"{i}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(changed(content, rng) if rng.random() < share else content)
    return Case(f"{ending}, {share}", [*IMAGES, *SMALL, "--data.source", str(folder / "data")])


def sounds(folder: Path, rng: random.Random) -> Case:
    """A folder of sounds, of which some or all are damaged."""
    import numpy as np
    import soundfile

    ending = rng.choice(["wav", "flac", "ogg", "mp3", "aiff", "au"])
    share = rng.choice([0.03, 0.5, 1.0])
    for i in range(16):
        file = io.BytesIO()
        soundfile.write(file, np.random.default_rng(i).normal(0, 0.1, 8000), 8000, format=ending)
        path = folder / "data" / "ab"[i % 2] / f"{i}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = file.getvalue()
        path.write_bytes(changed(content, rng) if rng.random() < share else content)
    return Case(f"{ending}, {share}", [*SOUNDS, *SMALL, "--data.source", str(folder / "data")])


def _rows() -> list[dict[str, str]]:
    words = ["wave", "tide", "sail", "harbour", "boat", "street", "house", "tram", "market", "square"]
    return [
        {"text": " ".join(words[i * k % 10] for k in (1, 2, 3, 7)), "label": "ab"[i % 2]} for i in range(60)
    ]


def tables(folder: Path, rng: random.Random) -> Case:
    """A damaged table of texts."""
    ending = rng.choice(["csv", "tsv", "jsonl", "txt", "csv.gz", "json"])
    rows, text = _rows(), io.StringIO()
    if ending == "jsonl":
        text.writelines(json.dumps(row) + "\n" for row in rows)
    elif ending == "json":
        json.dump(rows, text)
    elif ending == "txt":
        text.writelines(row["text"] + "\n" for row in rows)
    else:
        writer = csv.DictWriter(text, ["text", "label"], delimiter="\t" if ending == "tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    content = text.getvalue().encode()
    if ending.endswith("gz"):
        import gzip

        content = gzip.compress(content)
    for _ in range(rng.choice([1, 1, 3])):
        content = changed(content, rng)
    path = folder / f"data.{ending}"
    path.write_bytes(content)
    return Case(ending, [*TEXTS, *SMALL, "--data.source", str(path)])


def containers(folder: Path, rng: random.Random) -> Case:
    """A damaged Parquet or tar file."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    rows = []
    for i in range(24):
        file = io.BytesIO()
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "png")
        rows.append(file.getvalue())
    ending = rng.choice(["parquet", "tar"])
    path = folder / f"train.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table({"image": rows, "label": ["a", "b"] * 12}), path)
    else:
        with tarfile.open(path, "w") as tar:
            for i, row in enumerate(rows):
                for name, content in ((f"{i:03}.png", row), (f"{i:03}.cls", b"ab"[i % 2 : i % 2 + 1])):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    path.write_bytes(changed(path.read_bytes(), rng))
    stream = rng.choice([[], ["--data.stream", "16"]])
    return Case(
        f"{ending} {'stream' if stream else ''}", [*IMAGES, *SMALL, "--data.source", str(path), *stream]
    )


ODD = [
    "", "null", "-1", "0", "1e30", "nan", "true", "[]", "{}", "[1, [2]]", "banana", "../..", "/dev/null",
    "a b", "'", "é", "1.5", "99999999999999999999", "{a: b}", "!!python/name:os.system", "&a [*a]",
    "os.system", "encoders",
]  # fmt: skip


def configs(folder: Path, rng: random.Random) -> Case:
    """A config with damage, or with an odd value."""
    from bt_multimodal.commands.config_files import config_path

    (folder / "texts.txt").write_text("\n".join(row["text"] for row in _rows()), encoding="utf-8")
    texts = [*TEXTS, *SMALL, "--data.source", str(folder / "texts.txt")]  # docstrings take 30 s to open
    tasks = [(IMAGES, "image/digits"), (SOUNDS, "audio/synthetic"), (texts, "text/docstrings")]
    task, name = rng.choice(tasks)
    content = Path(config_path(name)).read_bytes()
    if rng.random() < 0.5:
        content = changed(content, rng)
    else:
        lines = content.decode().splitlines()
        at = rng.choice([i for i, line in enumerate(lines) if ": " in line and not line.startswith("#")])
        lines[at] = f"{lines[at].partition(':')[0]}: {rng.choice(ODD)}"
        content = "\n".join(lines).encode()
    path = folder / "config.yaml"
    path.write_bytes(content)
    argv = list(task)
    argv[argv.index("--config") + 1] = str(path)
    return Case(name, argv)


def arguments(folder: Path, rng: random.Random) -> Case:
    """A key with an odd value, or an unknown key."""
    from bt_multimodal.commands.help_page import argument_names
    from bt_multimodal.commands.pretrain import KEYS

    names = [name for name in argument_names(KEYS) if name not in ("config", "run_dir")]
    names += ["views.size", "model.encoder.widths", "model.loss.lambd", "model.optimizer.lr"]
    name = rng.choice(names)
    if rng.random() < 0.2:
        name = rng.choice([name[1:], name.replace("_", "-"), name.split(".")[-1], name.upper(), ""])
    value = rng.choice(ODD)
    words = rng.choice([[f"--{name}", value], [f"--{name}={value}"], [f"--{name}"]])
    (folder / "texts.txt").write_text("\n".join(row["text"] for row in _rows()), encoding="utf-8")
    texts = [*TEXTS, *SMALL, "--data.source", str(folder / "texts.txt")]
    return Case(" ".join(words), [*rng.choice([IMAGES, SOUNDS, texts]), *words])


def continued(folder: Path, rng: random.Random) -> Case:
    """A run whose files are damaged before it is continued."""
    shutil.copytree(folder.parent / "a run", folder / "run")
    files = sorted(path for path in (folder / "run").rglob("*") if path.is_file() and path.suffix != ".png")
    path = rng.choice(files)
    path.write_bytes(changed(path.read_bytes(), rng))
    return Case(path.name, [*IMAGES, "--run_dir", str(folder / "run")])


def encoder_files(folder: Path, rng: random.Random) -> Case:
    """A damaged encoder that is probed."""
    content = (folder.parent / "a run" / "encoder.safetensors").read_bytes()
    path = folder / "encoder.safetensors"
    path.write_bytes(changed(content, rng))
    argv = ["image", "linear", "--encoder", str(path), "--data.source", "sklearn:digits", "--no_linear"]
    return Case("encoder", [*argv, "--per_class"])


KINDS: dict[str, Callable[[Path, random.Random], Case]] = {
    "pictures": pictures, "sounds": sounds, "tables": tables, "containers": containers, "configs": configs,
    "arguments": arguments, "continued": continued, "encoder files": encoder_files,
}  # fmt: skip


def ended(argv: list[str], folder: Path) -> Result:
    """Runs a command in a forked process, in a folder of its own."""
    from encoders.command_line import main

    log = folder / "log"
    child = os.fork()
    if not child:
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            os.chdir(folder)
            resource.setrlimit(resource.RLIMIT_CPU, (3 * MOST_SECONDS, 3 * MOST_SECONDS))
            status = main(argv)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        except SystemExit as error:
            os._exit(error.code if isinstance(error.code, int) else 3)
        except BaseException:
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
            os._exit(70)
    began = time.monotonic()
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() - began > 10 * MOST_SECONDS:  # it waits for something
            os.kill(child, 9)
        time.sleep(0.005)
    text = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
    seconds = usage.ru_utime + usage.ru_stime
    return Result(os.waitstatus_to_exitcode(status), text, usage.ru_maxrss * 1024, seconds)


def cases(out: Path, number: int, kinds: list[str], seed: int) -> Iterator[tuple[str, Case, Result]]:
    """All cases, one after the other."""
    ended([*IMAGES, "--run_dir", str(out / "a run")], out)
    for i in range(number):
        kind = kinds[i % len(kinds)]
        folder = out / f"case-{i}"
        folder.mkdir()
        case = KINDS[kind](folder, random.Random(f"{seed} {i}"))
        result = ended(case.argv, folder)
        yield kind, case, result
        if not result.wrong:
            shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=KINDS, default=[*KINDS])
    parser.add_argument("--out", type=Path, default=None, help="folder; default: a temporary one")
    options = parser.parse_args()
    out = (options.out or Path(tempfile.mkdtemp(prefix="fuzz-"))).absolute()
    out.mkdir(parents=True, exist_ok=True)

    # Imported once, for all forked processes.
    import lightning.pytorch
    import torch

    import bt_multimodal.commands.pretrain
    import bt_multimodal.commands.probe
    import bt_multimodal.training.callbacks
    import bt_multimodal.training.run_checkpoints
    import encoders.audio.encoders
    import encoders.audio.views
    import encoders.image.encoders
    import encoders.image.views
    import encoders.text.views

    del lightning, bt_multimodal, encoders
    torch.set_num_threads(1)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in options.only}
    most_bytes = most_seconds = 0.0
    for kind, case, result in cases(out, options.cases, options.only, options.seed):
        outcome = "wrong" if result.wrong else {0: "trained", 1: "ended", 2: "refused"}[result.status]
        counts[kind][outcome] += 1
        most_bytes, most_seconds = max(most_bytes, result.bytes), max(most_seconds, result.seconds)
        if result.wrong:
            last = [line for line in result.log.splitlines() if line.strip()][-1:]
            print(f"WRONG {kind} ({case.text}): {result.wrong}; {' '.join(last)[:300]}", flush=True)
    columns = ("trained", "refused", "ended", "wrong")
    print(f"{'':16}" + "".join(f"{name:>9}" for name in columns))
    for kind, outcomes in counts.items():
        print(f"{kind:16}" + "".join(f"{outcomes[name]:9}" for name in columns))
    print(f"at most {most_bytes / 1e9:.2f} GB and {most_seconds:.1f} s of CPU time in {options.cases} cases")
    wrong = sum(outcomes["wrong"] for outcomes in counts.values())
    if options.out is None and not wrong:
        shutil.rmtree(out)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

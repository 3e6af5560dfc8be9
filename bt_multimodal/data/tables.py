"""Where the records of a source are: its splits, each to be loaded as a table of contents and labels."""

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bt_multimodal.data import tars
from bt_multimodal.data.columns import (
    LABEL_COLUMNS,
    LONGEST_LABEL,
    DataError,
    class_name,
    find_column,
    label_too_long,
    shortened,
)
from bt_multimodal.data.rows import MANIFESTS, ROW_FILES, read_rows, row_tables
from bt_multimodal.data.tars import Stretch

TEST_SPLITS = ("test", "val", "valid", "validation")
# Parquet up to this size is held in memory; above, `datasets` maps its on-disk cache instead.
_IN_MEMORY_BYTES = 2**30


class Split(NamedTuple):
    origin: str  # how to name it in a message
    locate: Callable[[str], Path | Stretch | bytes]  # from a string in a cell of contents
    load: Callable[[], Any]  # -> datasets.Dataset


class Asked(NamedTuple):
    """What is looked for in a source."""

    extensions: tuple[str, ...]
    content: str | None
    contents: tuple[str, ...]  # where that is not given
    label: str | None
    named: bool  # the user names splits, so layouts need not be guessed
    inline: bool  # strings in cells are contents

    def members(self) -> list[str]:
        """The extensions as `tars` gives them."""
        return [extension.lstrip(".").lower() for extension in self.extensions]


def find_splits(
    source: str, asked: Asked, embedded: Mapping[str, Callable[[], Mapping[str, list[Any]]]]
) -> dict[str, Split]:
    path = Path(source).expanduser()
    suffix = path.suffix.lower()
    locate = as_content if asked.inline else nowhere
    if source in embedded:
        return {"train": Split(source, locate, partial(_embedded, embedded[source]))}
    near = difflib.get_close_matches(source, embedded, n=1, cutoff=0.8)
    if near and "/" not in source and not path.exists():  # asking the hub for it takes long
        raise DataError(f"there is no embedded set {source!r}; did you mean {near[0]!r}?")
    kinds = (".parquet", ".tar", *(ROW_FILES if asked.inline else ()))
    if path.is_dir():
        files = table_files(path, kinds)
        if files:
            return (_row_splits if files[0].suffix in ROW_FILES else _table_splits)(files, asked)
        if not asked.extensions:
            raise DataError(f"{source!r} has no {', '.join(kinds)} file, itself or in 'data'")
        return _folder_splits(path, asked)
    if path.is_file() and suffix in (".parquet", ".tar"):
        return {"train": _table_split(path.name, [path], asked)}
    if path.is_file() and suffix in (*kinds, *MANIFESTS):
        return _row_splits([path], asked)
    if path.exists():
        manifests = ".csv, .tsv, .jsonl" + (", .txt" if asked.inline else "")
        raise DataError(f"{source!r} is no folder, Parquet file, tar file or manifest ({manifests})")
    check_hub_name(source)
    try:
        hub = load_from_hub(source)
    except Exception as error:  # the hub's client, HTTP, the cache and the builders all have their own
        raise DataError(f"{source!r} does not exist here, nor can the hub serve it: {error}") from error
    return {key: Split(f"{source} {key}", locate, partial(hub.get, key)) for key in hub}


def table_files(folder: Path, kinds: Sequence[str]) -> list[Path]:
    """The files of the first of ``kinds`` that a folder has, itself or in ``data``."""
    for kind in kinds:
        for at in (folder, folder / "data"):
            if files := sorted(at.glob(f"[!.]*{kind}")):
                return files
    return []


def check_hub_name(source: str) -> None:
    """Refuse what is rather a mistyped path; asking the hub for it takes long.

    Raises:
        DataError: no name of a hub dataset, or a path beside a folder that exists (`data/typo`).
    """
    path = Path(source)
    beside = len(path.parts) > 1 and Path(path.parts[0]).is_dir()
    local = path.suffix.lower() in (*ROW_FILES, ".parquet", ".tar")
    if local or beside or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?(:[\w.-]+)?", source):
        raise DataError(f"{source!r} does not exist")


def load_from_hub(source: str, **options: Any) -> Any:
    """``datasets.load_dataset`` of ``owner/name:config``, with its options."""
    from datasets import load_dataset

    name, _, config = source.partition(":")
    try:
        return load_dataset(name, config or None, **options)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        # What the hub itself has made of sets that come as code, such as google/speech_commands.
        return load_dataset(name, config or None, revision="refs/convert/parquet", **options)


def _embedded(columns: Callable[[], Mapping[str, list[Any]]]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(columns())


def _folder_splits(root: Path, asked: Asked) -> dict[str, Split]:
    endings = tuple(extension.lower() for extension in asked.extensions)

    def walk(folder: Path | str) -> Iterator[str]:
        for entry in os.scandir(folder):
            if entry.is_dir() and entry.name[0] != ".":
                yield from walk(entry.path)
            elif entry.name[0] != "." and entry.name.lower().endswith(endings):
                yield entry.path

    def load(folder: Path) -> Any:
        from datasets import Dataset

        files = sorted(os.path.relpath(file, folder) for file in walk(folder))
        if not files:
            raise DataError(f"there is no file with extension {', '.join(endings)} under '{folder}'")
        labels = [file.split(os.sep)[0] if os.sep in file else None for file in files]
        return Dataset.from_dict({asked.contents[0]: files, "label": labels})

    below = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")
    guessed = "train" in below and (len(below) == 1 or any(name in below for name in TEST_SPLITS))
    folders = {name: root / name for name in below} if asked.named or guessed else {"train": root}
    return {name: Split(str(at), partial(anywhere, at), partial(load, at)) for name, at in folders.items()}


def _row_splits(files: list[Path], asked: Asked) -> dict[str, Split]:
    locate = as_content if asked.inline else partial(anywhere, files[0].parent)
    if not split_by_cell(files, asked.contents[0]):
        found = split_files(files, files[0].parent, asked.named)
        return {
            name: Split(_origin(name, at), locate, partial(_rows, at, asked)) for name, at in found.items()
        }
    tables = row_tables(files, asked.contents[0], asked.inline, by_cell=True)
    if not tables:
        raise DataError(f"{str(files[0])!r} has no records")
    origin = files[0].name if len(files) == 1 else files[0].parent.name
    named = {name: origin if len(tables) == 1 else f"{origin} {shortened(name)}" for name in tables}
    return {name: Split(named[name], locate, partial(_dataset, table)) for name, table in tables.items()}


def split_by_cell(files: Sequence[Path], line: str) -> bool:
    """Whether the column ``split`` of files of rows, and not their names, says which split a row is in.

    Args:
        line: see `rows.read_rows`.

    Raises:
        DataError: the first of several cannot be read.
    """
    if len(files) == 1:
        return True
    told = len(split_files(files, files[0].parent, named=False)) > 1
    return not told and "split" in next(read_rows(files[0], line, inline=True), {})


def _rows(files: list[Path], asked: Asked) -> Any:
    tables = row_tables(files, asked.contents[0], asked.inline, by_cell=False)
    return _dataset(tables["train"]) if tables else []


def _dataset(table: Any) -> Any:
    from datasets import Dataset

    return Dataset(table, fingerprint="rows")  # or it would pickle the table for one


def _origin(name: str, files: Sequence[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{files[0].parent.name}/{name}"


def split_files(files: Sequence[Path], root: Path, named: bool) -> dict[str, list[Path]]:
    """Files of a table by split, which stands in their names, or in that of their folder below ``root``.

    Of ``imagenet-train-000012`` it is ``train``, of ``fold-1`` all of it. All files are train where
    no name says one, unless splits are ``named`` by the user.
    """
    known = {"train", *TEST_SPLITS}
    splits: dict[str, list[Path]] = {}
    for file in files:
        stem = re.sub(r"-\d+-of-\d+(-\w+)?$", "", file.stem)
        last = re.split(r"[-_.]", re.sub(r"[-_.]?\d+$", "", stem))[-1]
        folder = file.parent.name if file.parent != root else ""
        splits.setdefault(next((name for name in (last, folder) if name in known), stem), []).append(file)
    return splits if named or known & {*splits} else {"train": list(files)}


def _table_splits(files: list[Path], asked: Asked) -> dict[str, Split]:
    found = split_files(files, files[0].parent, asked.named)
    return {name: _table_split(_origin(name, at), at, asked) for name, at in found.items()}


def _table_split(origin: str, files: list[Path], asked: Asked) -> Split:
    if files[0].suffix.lower() == ".tar":
        return Split(origin, in_tar, partial(_tar_table, files, origin, asked))
    locate = as_content if asked.inline else partial(within, files[0].parent)
    return Split(origin, locate, partial(_parquet, files, asked.label))


def _tar_table(files: list[Path], origin: str, asked: Asked) -> Any:
    from datasets import Dataset

    try:
        found = [sample for file in files for sample in tars.samples(file)]
    except OSError as error:
        raise DataError(f"cannot read {origin}: {error}") from error
    there = list(dict.fromkeys(extension for sample in found for extension in sample))
    known = asked.members()
    content = find_column("content", asked.content, known, there, origin)
    chosen = [tars.first(sample, [content] if asked.content else known) for sample in found]
    cells = [None if at is None else f"{at.offset} {at.size} {at.path}" for at in chosen]
    columns = {asked.content or asked.contents[0]: cells}
    if asked.label or any(name in there for name in LABEL_COLUMNS):
        label = find_column("label", asked.label, LABEL_COLUMNS, there, origin)
        texts = (sample.get(label) for sample in found)
        columns[label] = [None if at is None else _label_text(at, label, origin) for at in texts]
    return Dataset.from_dict(columns)


def _label_text(member: Stretch, column: str, where: str) -> str:
    if member.size > 4 * LONGEST_LABEL:
        raise label_too_long(f"column {column!r} of {where}", member.size)
    return member.read_bytes().decode(errors="replace").strip()


def _parquet(files: list[Path], label: str | None) -> Any:
    import pyarrow.parquet as pq
    from datasets import Dataset

    try:
        for file in files:
            _check_labels(file, [label] if label else LABEL_COLUMNS)
        if sum(file.stat().st_size for file in files) > _IN_MEMORY_BYTES:
            return Dataset.from_parquet([str(file) for file in files])
        return _dataset(pq.read_table(files, partitioning=None))
    except DataError:
        raise
    except Exception as error:  # a file may hold anything: Arrow and `datasets` have all their own
        raise DataError(f"cannot read {str(files[0])!r}: {error}") from error


def _check_labels(file: Path, labels: Sequence[str]) -> None:
    """Few labels at a time: one long text in many rows takes little of a file and much of the memory."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        column = next((name for name in labels if name in table.schema_arrow.names), None)
        if column is None:
            return
        for batch in table.iter_batches(16, columns=[column]):
            for value in batch.column(0):
                class_name(value.as_py(), None, column, file.name)


def anywhere(root: Path, path: str) -> Path:
    """Where ``path``, relative to ``root``, leads in the user's own list of files: anywhere."""
    return root / path


def within(root: Path, path: str) -> Path:
    """Where ``path`` leads in a table that came with its files, which may be anybody's.

    Raises:
        OSError: out of ``root``, the table's folder; links in it are followed.
    """
    at = Path(os.path.abspath(root / path))
    if not at.is_relative_to(os.path.abspath(root)):
        raise PermissionError(f"the path {shortened(path)!r} leads out of the folder {str(root)!r}")
    return at


def in_tar(cell: str) -> Stretch:
    """The stretch of a tar file that `_tar_table` wrote as ``offset size path``."""
    offset, size, path = cell.split(" ", 2)
    return Stretch(path, int(offset), int(size))


def as_content(cell: str) -> bytes:
    """A string that is a content."""
    return cell.encode()


def nowhere(path: str) -> Path:
    """For data without a folder of their own.

    Raises:
        OSError: always.
    """
    raise PermissionError(f"instead of contents there is the path {shortened(path)!r}, which leads nowhere")

"""Finding the splits of a source; each loads as a table of contents and labels."""

import difflib
import os
import re
import uuid
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
from bt_multimodal.data.hub import load_from_hub
from bt_multimodal.data.rows import MANIFESTS, ROW_FILES, read_rows, row_tables
from bt_multimodal.data.tars import Stretch

TEST_SPLITS = ("test", "val", "valid", "validation")
# Parquet up to this size is held in memory; larger tables are memory-mapped from the cache of `datasets`.
_IN_MEMORY_BYTES = 2**30


class Split(NamedTuple):
    """A split of a source, not yet loaded."""

    origin: str  # its name in messages
    locate: Callable[[str], Path | Stretch | bytes]  # takes a string from a cell of contents
    load: Callable[[], Any]  # returns a datasets.Dataset


class SourceOptions(NamedTuple):
    """What to look for in a source; see `records.open_records`."""

    extensions: tuple[str, ...]
    content_column: str | None
    content_columns: tuple[str, ...]  # tried in order if content_column is None
    label_column: str | None
    splits_named: bool  # the user names the splits, so the layout is not guessed
    inline: bool  # strings in cells are contents

    def members(self) -> list[str]:
        """The extensions as `tars.samples` returns them."""
        return [extension.lstrip(".").lower() for extension in self.extensions]


def find_splits(
    source: str, options: SourceOptions, embedded: Mapping[str, Callable[[], Mapping[str, list[Any]]]]
) -> dict[str, Split]:
    """The splits of a source by name.

    Args:
        source, embedded: see `records.open_records`.

    Raises:
        DataError: what is wrong with the source, in one line.
    """
    path = Path(source).expanduser()
    suffix = path.suffix.lower()
    locate = as_content if options.inline else nowhere
    if source in embedded:
        return {"train": Split(source, locate, partial(_embedded, embedded[source]))}
    near = difflib.get_close_matches(source, embedded, n=1, cutoff=0.8)
    if near and "/" not in source and not path.exists():  # a request to the hub would take long
        raise DataError(f"there is no embedded set {source!r}; did you mean {near[0]!r}?")
    kinds = (".parquet", ".tar", *(ROW_FILES if options.inline else ()))
    if path.is_dir():
        files = table_files(path, kinds)
        if files:
            return (_row_splits if files[0].suffix in ROW_FILES else _table_splits)(files, options)
        if not options.extensions:
            raise DataError(f"{source!r} has no {', '.join(kinds)} file, itself or in 'data'")
        return _folder_splits(path, options)
    if path.is_file() and suffix in (".parquet", ".tar"):
        return {"train": _table_split(path.name, [path], options)}
    if path.is_file() and suffix in (*kinds, *MANIFESTS):
        return _row_splits([path], options)
    if path.exists():
        manifests = ".csv, .tsv, .jsonl" + (", .txt" if options.inline else "")
        raise DataError(f"{source!r} is not a folder, Parquet file, tar file or manifest ({manifests})")
    try:
        hub = load_from_hub(source)
    except (DataError, ModuleNotFoundError):
        raise
    except Exception as error:  # the hub's client, HTTP, the cache and the builders raise errors of their own
        raise DataError(f"{source!r} does not exist here, and the hub cannot serve it: {error}") from error
    return {key: Split(f"{source} {key}", locate, partial(hub.get, key)) for key in hub}


def table_files(folder: Path, kinds: Sequence[str]) -> list[Path]:
    """The files with the first of the extensions ``kinds`` that is in a folder or its subfolder ``data``."""
    for kind in kinds:
        for parent in (folder, folder / "data"):
            if files := sorted(parent.glob(f"[!.]*{kind}")):
                return files
    return []


def _embedded(columns: Callable[[], Mapping[str, list[Any]]]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(columns())


def _folder_splits(root: Path, options: SourceOptions) -> dict[str, Split]:
    endings = tuple(extension.lower() for extension in options.extensions)

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
            raise DataError(f"no file with extension {', '.join(endings)} under '{folder}'")
        labels = [file.split(os.sep)[0] if os.sep in file else None for file in files]
        return Dataset.from_dict({options.content_columns[0]: files, "label": labels})

    below = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")
    has_splits = "train" in below and (len(below) == 1 or any(name in below for name in TEST_SPLITS))
    folders = {name: root / name for name in below} if options.splits_named or has_splits else {"train": root}
    return {
        name: Split(str(folder), partial(anywhere, folder), partial(load, folder))
        for name, folder in folders.items()
    }


def _row_splits(files: list[Path], options: SourceOptions) -> dict[str, Split]:
    locate = as_content if options.inline else partial(anywhere, files[0].parent)
    if not split_by_cell(files, options.content_columns[0]):
        by_split = split_files(files, files[0].parent, options.splits_named)
        return {
            name: Split(_origin(name, of_split), locate, partial(_rows, of_split, options))
            for name, of_split in by_split.items()
        }
    tables = row_tables(files, options.content_columns[0], options.inline, by_cell=True)
    if not tables:
        raise DataError(f"{str(files[0])!r} has no records")
    origin = files[0].name if len(files) == 1 else files[0].parent.name
    origins = {name: origin if len(tables) == 1 else f"{origin} {shortened(name)}" for name in tables}
    return {name: Split(origins[name], locate, partial(_dataset, table)) for name, table in tables.items()}


def split_by_cell(files: Sequence[Path], line: str) -> bool:
    """Whether the split of a row is in the column ``split``, rather than in the name of its file.

    Args:
        line: see `rows.read_rows`.

    Raises:
        DataError: the first of several files cannot be read.
    """
    if len(files) == 1:
        return True
    in_names = len(split_files(files, files[0].parent, named=False)) > 1
    return not in_names and "split" in next(read_rows(files[0], line, inline=True), {})


def _rows(files: list[Path], options: SourceOptions) -> Any:
    tables = row_tables(files, options.content_columns[0], options.inline, by_cell=False)
    return _dataset(tables["train"]) if tables else []


def _dataset(table: Any) -> Any:
    from datasets import Dataset

    return Dataset(table, fingerprint=uuid.uuid4().hex[:16])  # the default fingerprint pickles the table


def _origin(name: str, files: Sequence[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{files[0].parent.name}/{name}"


def split_files(files: Sequence[Path], root: Path, named: bool) -> dict[str, list[Path]]:
    """The files of a table by split, which is in their names or in those of their folders below ``root``.

    ``imagenet-train-000012`` is in the split ``train``; ``fold-1`` is a split of its own. If no name
    holds a known split, all files are train, unless the user names splits (``named``).
    """
    known = {"train", *TEST_SPLITS}
    splits: dict[str, list[Path]] = {}
    for file in files:
        stem = re.sub(r"-\d+-of-\d+(-\w+)?$", "", file.stem)
        last = re.split(r"[-_.]", re.sub(r"[-_.]?\d+$", "", stem))[-1]
        folder = file.parent.name if file.parent != root else ""
        splits.setdefault(next((name for name in (last, folder) if name in known), stem), []).append(file)
    return splits if named or known & {*splits} else {"train": list(files)}


def _table_splits(files: list[Path], options: SourceOptions) -> dict[str, Split]:
    by_split = split_files(files, files[0].parent, options.splits_named)
    return {
        name: _table_split(_origin(name, of_split), of_split, options) for name, of_split in by_split.items()
    }


def _table_split(origin: str, files: list[Path], options: SourceOptions) -> Split:
    if files[0].suffix.lower() == ".tar":
        return Split(origin, in_tar, partial(_tar_table, files, origin, options))
    locate = as_content if options.inline else partial(within, files[0].parent)
    return Split(origin, locate, partial(_parquet, files, options.label_column))


def _tar_table(files: list[Path], origin: str, options: SourceOptions) -> Any:
    from datasets import Dataset

    try:
        samples = [sample for file in files for sample in tars.samples(file)]
    except OSError as error:
        raise DataError(f"cannot read {origin}: {error}") from error
    extensions = list(dict.fromkeys(extension for sample in samples for extension in sample))
    known = options.members()
    content = find_column("content", options.content_column, known, extensions, origin)
    contents = [tars.first(sample, [content] if options.content_column else known) for sample in samples]
    cells = [
        None if member is None else f"{member.offset} {member.size} {member.path}" for member in contents
    ]
    columns = {options.content_column or options.content_columns[0]: cells}
    if options.label_column or any(name in extensions for name in LABEL_COLUMNS):
        label = find_column("label", options.label_column, LABEL_COLUMNS, extensions, origin)
        labels = (sample.get(label) for sample in samples)
        columns[label] = [None if member is None else _label_text(member, label, origin) for member in labels]
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
    except Exception as error:  # a file may hold anything, and Arrow and `datasets` raise errors of their own
        raise DataError(f"cannot read {str(files[0])!r}: {error}") from error


def _check_labels(file: Path, labels: Sequence[str]) -> None:
    """Check the labels, a few at a time: a long text in many rows is small on disk and large in memory."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        column = next((name for name in labels if name in table.schema_arrow.names), None)
        if column is None:
            return
        for batch in table.iter_batches(16, columns=[column]):
            for value in batch.column(0):
                class_name(value.as_py(), None, column, file.name)


def anywhere(root: Path, path: str) -> Path:
    """A path from the user's own list of files, relative to ``root``: it may lead anywhere."""
    return root / path


def within(root: Path, path: str) -> Path:
    """A path from a table that came with its files, which is not trusted: it stays within ``root``.

    Links in the folder are followed.

    Raises:
        OSError: the path leads out of ``root``, the table's folder.
    """
    target = Path(os.path.abspath(root / path))
    if not target.is_relative_to(os.path.abspath(root)):
        raise PermissionError(f"the path {shortened(path)!r} leads out of the folder {str(root)!r}")
    return target


def in_tar(cell: str) -> Stretch:
    """The stretch of a tar file that `_tar_table` stored as ``offset size path``."""
    offset, size, path = cell.split(" ", 2)
    return Stretch(path, int(offset), int(size))


def as_content(cell: str) -> bytes:
    """A string that is itself the content, in UTF-8."""
    return cell.encode()


def nowhere(path: str) -> Path:
    """For data without a local folder: paths are refused.

    Raises:
        OSError: always.
    """
    raise PermissionError(f"found the path {shortened(path)!r} instead of contents: there is no local folder")

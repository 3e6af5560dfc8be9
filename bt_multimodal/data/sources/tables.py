"""Finding the splits of a source; each loads as a table of contents and labels."""

import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from bt_multimodal.data.columns import (
    LABEL_COLUMNS,
    LONGEST_LABEL,
    DataError,
    class_name,
    find_column,
    known_column,
    label_too_long,
    shortened,
)
from bt_multimodal.data.sources import parquet, tars
from bt_multimodal.data.sources.folders import Split, Wanted, escaped, open_folder, split_files, unescaped
from bt_multimodal.data.sources.hub import load_from_hub, unreachable
from bt_multimodal.data.sources.rows import (
    MANIFESTS,
    ROW_FILES,
    is_kind,
    plain_stem,
    read_rows,
    row_tables,
    split_column,
)
from bt_multimodal.data.sources.split_names import role
from bt_multimodal.data.sources.summary import Found
from bt_multimodal.data.sources.tars import Stretch

__all__ = ["Source", "SourceOptions", "Split", "find_splits", "split_files"]

# Parquet up to this size is held in memory; larger tables are memory-mapped from the cache of `datasets`.
_IN_MEMORY_BYTES = 2**30


class Source(NamedTuple):
    """The splits of a source by name, and what is to be said of it."""

    splits: dict[str, Split]
    found: Found


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

    def known(self) -> list[str]:
        """Names of columns by which the header of a table is told from a row."""
        columns = filter(None, (self.content_column, self.label_column, *self.content_columns))
        return [part.strip() for name in columns for part in (name, *re.split("[,+]", name))]


def find_splits(
    source: str, options: SourceOptions, embedded: Mapping[str, Callable[[], Mapping[str, list[Any]]]]
) -> Source:
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
        return Source({"train": Split(source, locate, partial(_embedded, embedded[source]))}, Found(source))
    kinds = (".parquet", ".tar", *((*ROW_FILES, ".json") if options.inline else ()))
    if path.is_dir():
        return _folder(path, kinds, options)
    found = Found(str(path))
    if path.is_file() and suffix in (".parquet", ".tar"):
        return Source({"train": _table_split(path.name, [path], options)}, found)
    if path.is_file() and is_kind(path, (*kinds, *MANIFESTS, ".json")):
        return Source(_row_splits([path], options), found)
    if os.path.lexists(path):
        manifests = ".csv, .tsv, .jsonl" + (", .txt" if options.inline else "")
        raise DataError(f"{source!r} is not a folder, Parquet file, tar file or manifest ({manifests})")
    try:
        hub = load_from_hub(source, list(embedded))
    except (DataError, ModuleNotFoundError):
        raise
    except Exception as error:  # the hub's client, HTTP, the cache and the builders raise errors of their own
        reason = unreachable(error)
        raise DataError(f"{source!r} does not exist here, and the hub cannot serve it: {reason}") from error
    splits = {
        key: Split(f"{source} {key}", locate, partial(hub.get, key), partial(len, hub[key])) for key in hub
    }
    return Source(splits, Found(f"{source}, from the hub"))


def _folder(path: Path, kinds: Sequence[str], options: SourceOptions) -> Source:
    endings = tuple(extension.lower() for extension in options.extensions)
    wanted = Wanted(
        endings, tuple(kinds), options.inline, options.splits_named, options.content_column,
        options.label_column, options.content_columns,
    )  # fmt: skip
    splits, tables, found = open_folder(path, wanted)
    if splits:
        return Source(splits, found)
    if not is_kind(tables[0], (".parquet", ".tar")):
        return Source(_row_splits(tables, options, path), found)
    by_split = split_files(tables, path, options.splits_named)
    named = {
        name: _table_split(_origin(name, of_split), of_split, options) for name, of_split in by_split.items()
    }
    return Source(named, found)


def _embedded(columns: Callable[[], Mapping[str, list[Any]]]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(columns())


def _row_splits(files: list[Path], options: SourceOptions, root: Path | None = None) -> dict[str, Split]:
    locate = as_content if options.inline else partial(anywhere, files[0].parent)
    in_folder = root is not None
    root = root or files[0].parent
    split = split_by_cell(files, root, options)
    if split is None and (len(files) > 1 or (in_folder and role(plain_stem(files[0])))):
        by_split = split_files(files, root, options.splits_named)
        return {
            name: Split(_origin(name, of_split), locate, partial(_rows, of_split, options))
            for name, of_split in by_split.items()
        }
    tables = row_tables(files, options.content_columns[0], options.inline, split, options.known())
    if not tables:
        raise DataError(f"{str(files[0])!r} has no records")
    origin = files[0].name if len(files) == 1 else files[0].parent.name
    origins = {name: origin if len(tables) == 1 else f"{origin} {shortened(name)}" for name in tables}
    return {
        name: Split(origins[name], locate, partial(_dataset, table), partial(len, table))
        for name, table in tables.items()
    }


def split_by_cell(files: Sequence[Path], root: Path, options: SourceOptions) -> str | None:
    """The column with the split of each row; ``None`` if there is none or the names of the files say it.

    Raises:
        DataError: the first of the files cannot be read.
    """
    if len(files) > 1 and len(split_files(files, root, named=False)) > 1:
        return None
    rows = read_rows(files[0], options.content_columns[0], options.inline, options.known())
    return split_column(list(islice(rows, 1000)))


def _rows(files: list[Path], options: SourceOptions) -> Any:
    tables = row_tables(files, options.content_columns[0], options.inline, None, options.known())
    return _dataset(tables["train"]) if tables else []


def _dataset(table: Any) -> Any:
    from datasets import Dataset

    return Dataset(table, fingerprint=uuid.uuid4().hex[:16])  # the default fingerprint pickles the table


def _origin(name: str, files: Sequence[Path]) -> str:
    first = files[0]
    if len(files) > 1:
        return f"{first.parent.name}/{name}"
    in_split = role(first.parent.name) and not role(plain_stem(first))
    return f"{first.parent.name}/{first.name}" if in_split else first.name


def _table_split(origin: str, files: list[Path], options: SourceOptions) -> Split:
    if files[0].suffix.lower() == ".tar":
        return Split(origin, in_tar, partial(_tar_table, files, origin, options))
    locate = as_content if options.inline else partial(within, files[0].parent)
    return Split(
        origin, locate, partial(_parquet, files, options.label_column), partial(_parquet_size, files)
    )


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
        None if member is None else f"{member.offset} {member.size} {escaped(member.path)}"
        for member in contents
    ]
    columns = {options.content_column or options.content_columns[0]: cells}
    if options.label_column or known_column(LABEL_COLUMNS, extensions):
        label = find_column("label", options.label_column, LABEL_COLUMNS, extensions, origin)
        labels = (sample.get(label) for sample in samples)
        columns[label] = [None if member is None else _label_text(member, label, origin) for member in labels]
    return Dataset.from_dict(columns)


def _label_text(member: Stretch, column: str, where: str) -> str:
    if member.size > 4 * LONGEST_LABEL:
        raise label_too_long(f"column {column!r} of {where}", member.size)
    return member.read_bytes().decode(errors="replace").strip()


def _parquet(files: list[Path], label: str | None) -> Any:
    from datasets import Dataset

    file = files[0]
    try:
        in_memory = sum(file.stat().st_size for file in files) <= _IN_MEMORY_BYTES
        for file in files:
            parquet.check_claims(file)
            _check_labels(file, [label] if label else LABEL_COLUMNS)
            if in_memory:
                parquet.check(file)
        file = files[0]
        if not in_memory:
            return Dataset.from_parquet([str(file) for file in files])
        return _dataset(parquet.read(files))
    except DataError:
        raise
    except Exception as error:  # a file may hold anything, and Arrow and `datasets` raise errors of their own
        raise DataError(f"cannot read {str(file)!r}: {error}") from error


def _parquet_size(files: Sequence[Path]) -> int | None:
    import pyarrow.parquet as pq

    try:
        return sum(pq.read_metadata(file).num_rows for file in files)
    except Exception:  # it is only for the summary
        return None


def _check_labels(file: Path, labels: Sequence[str]) -> None:
    """Check the labels, a few at a time: a long text in many rows is small on disk and large in memory."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        column = known_column(labels, table.schema_arrow.names)
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
    return Stretch(unescaped(path), int(offset), int(size))


def as_content(cell: str) -> bytes:
    """A string that is itself the content, in UTF-8."""
    return cell.encode()


def nowhere(path: str) -> Path:
    """For data without a local folder: paths are refused.

    Raises:
        OSError: always.
    """
    raise PermissionError(f"found the path {shortened(path)!r} instead of contents: there is no local folder")

"""The files that a stream reads.

A file is ``(name, read)``: ``read()`` iterates over the rows, each a sequence of one or more contents.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from bt_multimodal.data.columns import (
    DataError,
    check_contents,
    find_column,
    find_contents,
    joined,
    there_are,
)
from bt_multimodal.data.sources import parquet, tars
from bt_multimodal.data.sources.folders import tables_in
from bt_multimodal.data.sources.hub import load_from_hub
from bt_multimodal.data.sources.rows import ROW_FILES, cell_text, read_rows
from bt_multimodal.data.sources.split_names import TRAIN, asked, by_role, exact_role, role
from bt_multimodal.data.sources.tables import SourceOptions, split_by_cell, split_files
from bt_multimodal.data.sources.text_files import is_kind, plain_stem
from bt_multimodal.data.sources.walk import walk

File = tuple[str, Callable[[], Iterator[Sequence[Any]]]]
_READ = 64  # rows to read at a time


def local_files(path: Path, split: str, options: SourceOptions) -> list[File]:
    """The files of a split: one Parquet or tar file, or all in a folder; for inline contents also row files.

    Raises:
        DataError: no such file or split, or no column of contents in the first file.
    """
    root = path if path.is_dir() else path.parent
    names = walk(path).files if path.is_dir() else [path.name] if path.is_file() else []
    kinds = (".parquet", ".tar")
    files = next(filter(None, ([root / n for n in names if n.lower().endswith(kind)] for kind in kinds)), [])
    if not files and options.inline:
        tables = (*ROW_FILES, ".json")
        row_files = (
            tables_in(root, names, tables)
            if path.is_dir()
            else [root / n for n in names if is_kind(n, tables)]
        )
        if row_files:
            return _row_files(path, root, row_files, split, options)
        raise DataError(f"{str(path)!r} has no Parquet, tar, {', '.join(ROW_FILES)} file to stream")
    if not files:
        raise DataError(f"{str(path)!r} has no Parquet or tar file to stream")
    files = _of_split(path, split_files(files, root, options.splits_named), split)
    read: Callable[[Path], Iterator[Sequence[Any]]]
    if files[0].suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        read = partial(
            _parquet_rows, _groups(pq.read_schema(files[0]), options.content_columns, str(path), options)
        )
    else:
        members = options.members()
        extensions = dict.fromkeys(extension for sample in tars.samples(files[0]) for extension in sample)
        find_column("content", options.content_column, members, list(extensions), files[0].name)
        read = partial(_tar_rows, [options.content_column] if options.content_column else members)
    return [(str(file.relative_to(root)), partial(read, file)) for file in files]


def hub_files(source: str, split: str, options: SourceOptions) -> list[File]:
    """The files of a split of a hub dataset.

    Raises:
        DataError: no column of contents.
    """
    import pyarrow as pa

    rows = load_from_hub(source, split=split, streaming=True)
    features = rows.features or {}
    if features or not options.inline:
        schema = getattr(features, "arrow_schema", pa.schema([]))
    else:  # files of rows: the hub does not know their columns
        schema = pa.Table.from_pylist(list(rows.take(_READ))).schema
    groups = _groups(schema, (*options.content_columns, *options.members()), source, options)
    columns = list(dict.fromkeys(chain(*groups)))
    for column in columns:
        kind: Any = features.get(column)
        if hasattr(kind, "decode"):  # Audio, Image: keep their bytes
            rows = rows.cast_column(column, dataclasses.replace(kind, decode=False))
    rows = rows.select_columns(columns).with_format("arrow")
    n = rows.num_shards
    return [(f"{source} {split} file {i}", partial(_hub_rows, groups, rows.shard(n, i))) for i in range(n)]


def _row_files(path: Path, root: Path, files: list[Path], split: str, options: SourceOptions) -> list[File]:
    line, known = options.content_columns[0], options.known()
    column = split_by_cell(files, root, options)
    if column is None and (len(files) > 1 or (path.is_dir() and role(plain_stem(files[0])))):
        files = _of_split(path, split_files(files, root, options.splits_named), split)
    rows = chain.from_iterable(read_rows(file, line, True, known) for file in files)
    sample = list(islice(rows, _READ))
    if not sample:
        raise DataError(f"{str(path)!r} has no records")
    columns = list(dict.fromkeys(name for row in sample for name in row))
    if column is None and len(files) == 1 and split != "train" and path.is_file():
        raise DataError(f"{str(path)!r} has no split {split!r}; {there_are('splits', [split], ['train'])}")
    groups = find_contents(options.content_column, options.content_columns, columns, str(path), inline=True)
    read = partial(_rows, groups, line, known, column, split)
    return [(file.name, partial(read, file)) for file in files]


def _of_split(path: Path, splits: Mapping[str, list[Path]], split: str) -> list[Path]:
    if len(splits) == 1 and split == TRAIN and (path.is_file() or not any(map(_is_held_out, splits))):
        return next(iter(splits.values()))
    if split == TRAIN and split not in splits and (named := by_role([*splits])[TRAIN]):
        return [file for name in named for file in splits[name]]
    return [file for name in asked(str(path), [*splits], split) for file in splits[name]]


def _is_held_out(name: str) -> bool:
    return role(name) not in (TRAIN, None)


def _is_of(cell: str | None, split: str) -> bool:
    """Whether a cell of a split column means a split: by its name, or as another word for training."""
    name = cell or TRAIN
    return name == split or (split == TRAIN and exact_role(name) == TRAIN)


def _groups(schema: Any, known: Sequence[str], where: str, options: SourceOptions) -> list[list[str]]:
    groups = find_contents(options.content_column, known, schema.names, where, options.inline)
    if options.inline:
        check_contents({name: schema.field(name).type for name in chain(*groups)}, where, inline=True)
    return groups


def _rows(
    groups: list[list[str]], line: str, known: Sequence[str], column: str | None, split: str, file: Path
) -> Iterator[Sequence[Any]]:
    for row in read_rows(file, line, True, known):
        if column is None or _is_of(cell_text(row.get(column)), split):
            for name in chain(*groups):
                if isinstance(row.get(name), list | dict):
                    kind = type(row[name]).__name__
                    raise DataError(f"column {name!r} of {file.name} holds a {kind}, not texts")
            yield [joined([cell_text(row.get(name)) for name in group]) for group in groups]


def _parquet_rows(groups: list[list[str]], file: Path) -> Iterator[Sequence[Any]]:
    parquet.check(file)
    for batch in parquet.batches(file, list(dict.fromkeys(chain(*groups))), _READ):
        yield from _contents(groups, batch)


def _tar_rows(extensions: Sequence[str], file: Path) -> Iterator[Sequence[Any]]:
    for sample in tars.samples(file):
        yield [tars.first(sample, extensions)]


def _hub_rows(groups: list[list[str]], rows: Any) -> Iterator[Sequence[Any]]:
    # Plain iteration over ``rows`` would take only this loader worker's share of them.
    for table in rows.iter(_READ):
        yield from _contents(groups, table)


def _contents(groups: list[list[str]], table: Any) -> Iterator[Sequence[Any]]:
    cells = {name: table.column(name).to_pylist() for name in chain(*groups)}
    for row in range(len(table)):
        yield [joined([cells[name][row] for name in group]) for group in groups]

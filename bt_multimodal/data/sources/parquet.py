"""Reading Parquet files in bounded memory: a file of a few hundred bytes may hold gigabytes.

What a file says of its sizes is checked first. A value of a dictionary may be repeated without end, so
columns that have one are read as indices and their size is added up before any of it is written out.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bt_multimodal.data.columns import DataError
from bt_multimodal.safe_files import check_regular

# What a file may hold in any case, and what for each of its own bytes.
ALWAYS_BYTES, BYTES_PER_BYTE = 2**29, 16
ALWAYS_ROWS, ROWS_PER_BYTE = 10**6, 1
LARGEST_CHECKED = 2**26  # bytes of a file that is read once more for that
# How much a byte can become where a dictionary is compressed.
_EXPANSION = {"UNCOMPRESSED": 1, "SNAPPY": 22}
_ROWS = 4096  # at a time
_AT_ONCE = 2**28  # bytes to expand at a time


def check_claims(file: Path) -> tuple[int, list[Any]]:
    """Check that a file says of itself that it holds no more than a multiple of its size.

    Returns:
        How many bytes it may hold, and what it says of its chunks of columns.

    Raises:
        DataError: it holds more; the message names the limit.
        OSError: it is no regular file.
    """
    import pyarrow.parquet as pq

    check_regular(file)
    size = file.stat().st_size
    most, rows = ALWAYS_BYTES + BYTES_PER_BYTE * size, ALWAYS_ROWS + ROWS_PER_BYTE * size
    with pq.ParquetFile(file) as table:
        metadata = table.metadata
        if metadata.num_rows > rows:
            raise _over(file, f"{metadata.num_rows:,} rows", f"{rows:,}")
        chunks = [
            metadata.row_group(i).column(j)
            for i in range(metadata.num_row_groups)
            for j in range(metadata.num_columns)
        ]
        claimed = sum(max(chunk.total_uncompressed_size, 8 * chunk.num_values) for chunk in chunks)
        if claimed > most:
            raise _over(file, f"{claimed:,} bytes", f"{most:,}")
    return most, chunks


def check(file: Path) -> None:
    """Check that a file holds no more than a multiple of its size, dictionaries written out.

    Of a file larger than `LARGEST_CHECKED` only what it says of itself is checked, as by `check_claims`.

    Raises:
        DataError, OSError: as `check_claims`.
    """
    most, chunks = check_claims(file)
    if file.stat().st_size > LARGEST_CHECKED:
        return
    largest: dict[str, int] = {}  # values of dictionaries, by column
    expanded = 0
    for chunk in filter(_may_expand, chunks):
        value, name = _dictionary(chunk), chunk.path_in_schema
        largest[name] = max(largest.get(name, 0), value)
        expanded += chunk.num_values * value
    if expanded > most:
        flat = [name for name in largest if "." not in name]
        _add_up(file, flat, most, 0, flat, _ROWS)
        for name in set(largest) - {*flat}:  # as a dictionary, Arrow reads no nested column
            _add_up(file, [name], most, 0, [], max(1, min(_ROWS, _AT_ONCE // max(largest[name], 1))))


def _may_expand(chunk: Any) -> bool:
    return chunk.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY") and chunk.num_values > 0


def _dictionary(chunk: Any) -> int:
    """At most so many bytes has the largest value of a chunk that may be repeated."""
    if not any("DICTIONARY" in name for name in chunk.encodings):
        return 0
    offset = chunk.dictionary_page_offset
    if offset is None or chunk.compression not in _EXPANSION or chunk.data_page_offset <= offset:
        return int(chunk.total_uncompressed_size)
    page = (chunk.data_page_offset - offset) * _EXPANSION[chunk.compression]
    return int(min(chunk.total_uncompressed_size, page))


def _add_up(
    file: Path, columns: Sequence[str], most: int, total: int, dictionaries: Sequence[str], rows: int
) -> None:
    """Check that columns, written out, are no larger than ``most``, reading so many rows at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file, read_dictionary=list(dictionaries)) as table:
        for batch in table.iter_batches(rows, columns=list(columns)) if columns else ():
            total += sum(map(_expanded, batch.columns))
            if total > most:
                raise _over(file, f"more than {total:,} bytes", f"{most:,}")


def _expanded(array: Any) -> int:
    """The bytes of an array if every value of its dictionary is written out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if not pa.types.is_dictionary(kind):
        return int(array.nbytes)
    if pa.types.is_fixed_size_binary(kind.value_type):
        return len(array) * int(kind.value_type.byte_width)
    lengths = pc.binary_length(array.dictionary)
    return int(pc.sum(pc.cast(lengths.take(array.indices), pa.int64())).as_py() or 0)


def read(files: Sequence[Path]) -> Any:
    """The table of all rows of files that were checked."""
    import pyarrow.parquet as pq

    return pq.read_table(files, partitioning=None)


def batches(file: Path, columns: Sequence[str], rows: int) -> Iterator[Any]:
    """The rows of a file that was checked, so many at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        yield from table.iter_batches(rows, columns=list(columns))


def _over(file: Path, what: str, limit: str) -> DataError:
    return DataError(
        f"cannot read {str(file)!r}: it holds {what}, over the limit of {limit} for a file of its size"
    )

"""Data sets of the Hugging Face hub, by name."""

import re
from pathlib import Path
from typing import Any

from bt_multimodal.data.columns import DataError
from bt_multimodal.data.rows import ROW_FILES


def check_hub_name(source: str) -> None:
    """Check that a source is not a mistyped path, before a slow request to the hub.

    Raises:
        DataError: not a name of a hub dataset, or a path in an existing folder (``data/typo``).
    """
    path = Path(source)
    in_folder = len(path.parts) > 1 and Path(path.parts[0]).is_dir()
    local = path.suffix.lower() in (*ROW_FILES, ".parquet", ".tar")
    if local or in_folder or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?(:[\w.-]+)?", source):
        raise DataError(f"{source!r} does not exist")


def load_from_hub(source: str, **options: Any) -> Any:
    """``datasets.load_dataset`` for ``owner/name:config``; ``options`` are passed on.

    Raises:
        DataError: as `check_hub_name`.
    """
    check_hub_name(source)
    from datasets import load_dataset

    name, _, config = source.partition(":")
    try:
        return load_dataset(name, config or None, **options)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        # The hub's own Parquet version of data sets that are scripts, such as google/speech_commands.
        return load_dataset(name, config or None, revision="refs/convert/parquet", **options)

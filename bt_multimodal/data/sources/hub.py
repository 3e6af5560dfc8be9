"""Data sets of the Hugging Face hub, by name."""

import difflib
import os
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from bt_multimodal.data.columns import DataError, printable, shortened
from bt_multimodal.data.sources.rows import ROW_FILES, is_kind

_PATIENCE = 5  # seconds to find out whether the hub can be reached


def check_hub_name(source: str) -> None:
    """Check that a source is not a mistyped path, before a slow request to the hub.

    Raises:
        DataError: not a name on the hub, or a path in an existing folder (``data/typo``).
    """
    path = Path(source).expanduser()
    in_folder = len(path.parts) > 1 and Path(path.parts[0]).is_dir()
    local = path.suffix.lower() in (".parquet", ".tar") or is_kind(path, (*ROW_FILES, ".json"))
    if local or in_folder or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?(:[\w.-]+)?", source):
        near = _near(str(path.name), path.parent) if path.parent.is_dir() else None
        raise DataError(f"{shortened(source, 300)!r} does not exist{_meant(near)}")


def _check_no_typo(source: str, embedded: Sequence[str]) -> None:
    """Check that a name without an owner is not like one that is here.

    Raises:
        DataError: it is like an embedded set's, or a file's or folder's in the working folder.
    """
    if "/" in source:
        return
    if near := difflib.get_close_matches(source, embedded, n=1, cutoff=0.75):
        raise DataError(f"there is no embedded set {source!r}{_meant(near[0])}")
    if near_file := _near(source, Path()):
        raise DataError(
            f"{source!r} does not exist here{_meant(near_file)} A data set of the hub is 'owner/{source}'"
        )


def _near(name: str, folder: Path) -> str | None:
    """The file or folder whose name differs from ``name`` by a slip, in letters and not in digits."""
    try:
        there = {entry.lower(): entry for entry in os.listdir(folder)[:100_000] if entry[0] != "."}
    except OSError:
        return None
    for match in difflib.get_close_matches(name.lower(), there, n=3, cutoff=0.8):
        if re.findall(r"\d+", match) == re.findall(r"\d+", name):
            return str(folder / there[match])
    return None


def _meant(near: str | None) -> str:
    return f"; did you mean {printable(shortened(near, 200))!r}?" if near else ""


@cache
def _reachable() -> bool:
    """Whether the hub, or the proxy on the way to it, takes a connection within `_PATIENCE` seconds."""
    from huggingface_hub import constants

    address = urlsplit(getproxies().get("https") or constants.ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    answers: list[bool] = []

    def ask() -> None:  # looking up the name may take long, and cannot be stopped
        try:
            socket.create_connection((address.hostname or "", port), timeout=_PATIENCE).close()
            answers.append(True)
        except OSError:
            answers.append(False)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    return answers == [True]


@contextmanager
def _soon() -> Iterator[None]:
    """Context in which the hub's client uses only what is cached, if the hub cannot be reached.

    It would otherwise try again for half a minute.
    """
    import datasets
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or _reachable():
        yield
        return
    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def load_from_hub(source: str, embedded: Sequence[str] = (), **options: Any) -> Any:
    """``datasets.load_dataset`` for ``owner/name:config``; ``options`` are passed on.

    Raises:
        DataError: as `check_hub_name`, or a name like one that is here; the client raises errors of its own.
    """
    check_hub_name(source)
    _check_no_typo(source, embedded)
    from datasets import load_dataset

    name, _, config = source.partition(":")
    with _soon():
        try:
            return load_dataset(name, config or None, **options)
        except RuntimeError as error:
            if "scripts are no longer supported" not in str(error):
                raise
            # The hub's own Parquet version of data sets that are scripts, such as google/speech_commands.
            return load_dataset(name, config or None, revision="refs/convert/parquet", **options)


def unreachable(error: Exception) -> str:
    """What an error of the hub's client says; it speaks of offline mode where there is no connection."""
    return "there is no connection to it" if "offline" in str(error).lower() else str(error)

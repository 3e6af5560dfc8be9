"""The text of a config file: read in bounded memory and time, and refused in one line if it cannot be."""

import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

_LARGEST = 2_000_000  # bytes; a run's own config, with all defaults, has some 5,000
_MOST = 10_000  # values, where an alias counts as what it stands for
_DEEPEST = 50  # brackets within brackets


def config_text(path: str | os.PathLike[str]) -> str:
    """The text of a config file, in UTF-8 whatever the locale.

    Raises:
        ValueError: it is no file, too large, not UTF-8, or holds no keys; or what `check_yaml` refuses.
    """
    name = os.fspath(path)
    try:
        mode = os.stat(name).st_mode
    except (OSError, ValueError) as error:
        raise ValueError(f"there is no config file {name!r}") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise ValueError(f"{name} is {kind}; a config is a YAML file")
    with open(name, "rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"{name} has over {_LARGEST / 1e6:g} MB, which no config has")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 text (byte {error.start + 1}); save it as UTF-8") from error
    check_yaml(text, name, keys=True)
    return text


def checked_value(text: str) -> str:
    """A value of the command line, or a part of one, as it is.

    Raises:
        ValueError: it is too large, or `check_yaml` refuses it.
    """
    if len(text) > _LARGEST:
        raise ValueError(f"a value of {len(text) / 1e6:.0f} MB is too large for the command line")
    import yaml

    try:
        check_yaml(text, "a value")
    except ValueError as error:
        if isinstance(error.__cause__, yaml.YAMLError):  # no YAML: a text, as it may be
            return text
        raise
    return text


def check_yaml(text: str, name: str, keys: bool = False) -> None:
    """Read a YAML text event by event, before anything is built of it.

    Args:
        text: the text.
        name: what it is, for messages.
        keys: whether it has to hold keys and values.

    Raises:
        ValueError: it is no YAML; an alias stands for what it is in, or aliases stand for more than 10,000
            values; brackets are nested more than 50 deep; a key is given twice; or, with ``keys``, it is
            empty, a list or a single value.
    """
    import yaml

    try:
        kind = _walk(_events(text), name)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{name} is no YAML: {reason(error, text)}") from error
    if keys and kind != "keys":
        raise ValueError(f"{name} {kind}; a config file holds keys and their values, such as seed: 0")


def _events(text: str) -> Iterator[Any]:
    import yaml

    yield from yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _walk(events: Iterator[Any], name: str) -> str:
    """What a text holds at its top; see `check_yaml`."""
    import yaml

    sizes: dict[str, int] = {}  # values that an anchor stands for
    open_: list[_Open] = []
    kind, documents = "is empty", 0
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise ValueError(f"{name} holds several documents, separated by ---; a config is one")
        elif isinstance(event, yaml.CollectionStartEvent):
            if not open_:
                kind = "keys" if isinstance(event, yaml.MappingStartEvent) else "holds a list"
            open_.append(_Open(event))
            if len(open_) > _DEEPEST:
                raise ValueError(f"{name} nests brackets more than {_DEEPEST} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = open_.pop()
            if closed.anchor is not None:
                sizes[closed.anchor] = closed.size
            _count(open_, closed.size, None, name)
        elif isinstance(event, yaml.AliasEvent):
            if any(collection.anchor == event.anchor for collection in open_):
                raise ValueError(f"{name}: *{event.anchor} stands for what it is in, without an end")
            _count(open_, sizes.get(event.anchor, 1), None, name)
        elif isinstance(event, yaml.ScalarEvent):
            if not open_ and event.value:
                kind = f"holds {event.value[:40]!r}"
            if event.anchor is not None:
                sizes[event.anchor] = 1
            _count(open_, 1, event, name)
    return kind


class _Open:
    """A list or mapping whose end has not come."""

    def __init__(self, event: "yaml.CollectionStartEvent"):
        self.anchor, self.size = event.anchor, 1
        self.keys: set[str] = set()
        self.key_is_next: bool | None = True if type(event).__name__ == "MappingStartEvent" else None


def _count(open_: "list[_Open]", size: int, scalar: Any, name: str) -> None:
    if not open_:
        return
    inner = open_[-1]
    inner.size += size
    if inner.size > _MOST:
        raise ValueError(f"{name} stands for more than {_MOST:,} values, which no config has")
    if inner.key_is_next is None:
        return
    if inner.key_is_next and scalar is not None and scalar.value != "<<":
        if scalar.value in inner.keys:
            line = scalar.start_mark.line + 1
            raise ValueError(f"{name}, line {line}: {scalar.value} is given twice")
        inner.keys.add(scalar.value)
    inner.key_is_next = not inner.key_is_next


def reason(error: Exception, text: str = "") -> str:
    """A YAML error in one line, with its place in ``text``."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    place = ""
    if mark is not None:
        place = f"line {mark.line + 1}, column {mark.column + 1}: "
        line = "".join(text.split("\n")[mark.line : mark.line + 1])
        if line[mark.column : mark.column + 1] == "\t":
            problem = "a tab; YAML indents with spaces"
    return " ".join(f"{place}{problem}".split())

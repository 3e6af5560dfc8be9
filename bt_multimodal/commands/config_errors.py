"""Short messages for errors in a config: jsonargparse's messages in one line."""

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from bt_multimodal.commands.near_keys import group, unknown
from bt_multimodal.errors import one_line

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

# jsonargparse does not know a key: of the whole command, of a group.
_UNKNOWN = (
    re.compile(r"unrecognized arguments: --(?P<key>[^\s=]+)"),
    re.compile(r"Group '(?P<group>[\w.]+)' does not accept option '(?P<key>[^']+)'"),
)
# What a message says before the problem itself: the key, the class that it is in, what was tried first.
_KEY = re.compile(r"Parser key \"(?P<key>[^\"]+)\": ?(?P<rest>.*)")
_CLASS = re.compile(r"Problem with given class_path '(?P<path>[^']+)': ?(?P<rest>.*)")
_CALLABLE = re.compile(
    r"Type collections\.abc\.Callable.*? expects a function or a callable class: (?P<rest>.*)"
)
_OR_PATH = re.compile(r"- Expected a path but .*? either not accessible or invalid - (?P<rest>.*)")
_UNION = re.compile(
    r"Does not validate against any of the Union subtypes Subtypes: \[(?P<types>.*?)\] Errors: - "
    r"(?P<errors>.*?) Given value type: .*? Given value: (?P<value>.*)"
)
_PLAIN = re.compile(r"Expected an? (?P<types>.+?)\. Got value: ?(?P<value>.*)")
_NESTED = re.compile(r"NestedArg\(key='(?P<key>[^']*)'")
_ENDS = re.compile(r"\.* Got value: (?:Namespace\(.*|None|\S*)$")
# The problem is the class path.
_NO_CLASS = (
    re.compile(r"Expected a dot import path string: ?(?P<path>.*)"),
    re.compile(r"Unexpected import path format: ?(?P<path>.*)"),
    re.compile(r"module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'"),
    re.compile(r"No module named '(?P<missing>[\w.]+)'"),
)
_NOT_A_CLASS = re.compile(r"Not a valid subclass of \w+|Expected an import path or a subclass spec")
_OTHER_CLASS = re.compile(
    r"Import path (?P<path>\S+) does not correspond to a subclass of (?P<kind>\w+)"
    r"|Expected '(?P<path2>[^']+)' to be a subclass of <class '(?P<kind2>\w+)'>"
)
_NO_OPTION = re.compile(r"(?:Option|Key) '(?P<key>[\w.]+)' is not (?:accepted|expected)")
_GROUP = re.compile(r"Unable to load config '(?P<value>.*?)'")
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "NoneType": "null",
    "list": "a list",
    "tuple": "a list",
    "tuple[float, float]": "two numbers",
    "tuple[int, int]": "two whole numbers",
    "collections.abc.Sequence": "a list",
    "dict": "keys and values",
    "list[int]": "a list of whole numbers",
    "list[float]": "a list of numbers",
    "list[str]": "a list of texts",
    "dict[int, float]": "numbers by whole numbers, such as {256: 0.2}",
}
_LONGEST = 80  # characters of a value that are shown


def explain(parser: "ArgumentParser", error: Exception, modality: str = "") -> str:
    """jsonargparse's message in one line; with the nearest name where a key or a class is unknown.

    Args:
        parser: of the command.
        error: what it raised.
        modality: the folder of ``encoders`` whose classes are suggested first.
    """
    from bt_multimodal.compat import parser_keys

    text = " ".join(str(error).split())
    keys = parser_keys(parser)
    for pattern in _UNKNOWN:
        if match := pattern.search(text):
            return unknown(".".join(match.groupdict().values()), keys)
    names: list[str] = []
    given = re.search(r"Got value: Namespace\(class_path='([^']+)'", text)
    path = given[1] if given else ""
    while True:
        if match := _KEY.match(text):
            names += [match["key"]] if match["key"] not in names else []
        elif match := _CLASS.match(text):
            path = match["path"]
        elif match := _CALLABLE.match(text):
            text = _ENDS.sub("", match["rest"]) if "Namespace(" in text else match["rest"]
            continue
        elif not (match := _OR_PATH.match(text)):
            if (union := _UNION.match(text)) is None:
                break
            causes = re.split(r" - (?=Problem|Parser key|Expected|(?!a )[a-z])", union["errors"])
            deeper = [part for part in causes if not re.match(r"Expected an? ", part)]
            deeper += [part for part in causes if "dot import path" in part and "Callable" not in text]
            if not deeper or ("dot import path" in deeper[0] and not _only_classes(union["types"])):
                # Behind the value come the types that were tried after the inner one.
                value = re.split(r" - (?:Expected|Problem)| Given value type", union["value"])[0]
                return _takes(names, _types(union["types"]), value)
            text = text[text.index(deeper[0]) :] if "Union subtypes" in deeper[0] else deeper[0]
            continue
        text = match["rest"]
    key = ".".join(names)
    if match := _NESTED.search(text):
        return f"{key} has no keys below it, so none called {match['key']}"
    if match := _GROUP.search(text):
        return group(key, match["value"], keys)
    if _NOT_A_CLASS.search(text):
        return f"{key} takes a class path, such as my_lab.MyClass, alone or with its arguments"
    if match := _PLAIN.match(text):
        words = match["types"].replace("<class 'tuple'>", "list").replace("tuple", "list")
        types = (
            f"a {words}" if " " in re.sub(r"<class '[^']+'>|\[.*\]", "", words) else _types(match["types"])
        )
        return _takes(names, types, match["value"])
    if match := _OTHER_CLASS.search(text):
        kind = match["kind"] or match["kind2"]
        what = {"Module": "nn.Module", "Optimizer": "torch.optim.Optimizer"}.get(kind, kind)
        return f"{key}: {match['path'] or match['path2']} is no subclass of {what}"
    if match := _NO_OPTION.search(text):
        if not key:
            return unknown(match["key"], keys)
        near = difflib.get_close_matches(match["key"], _arguments(path or "."), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else "; --help lists the keys"
        return f"{key}: {path or 'the class'} has no key {match['key']}{hint}"
    for pattern in _NO_CLASS:
        if match := pattern.search(text):
            found = match.groupdict()
            wanted = (
                path or found.get("path") or ".".join(filter(None, (found.get("module"), found.get("name"))))
            )
            missing = found.get("missing")
            if missing and wanted and not f"{wanted}.".startswith(f"{missing}."):
                break  # it is there, and imports something that is not
            return f"{key}: there is no class {_short(wanted)!r}{_suggestion(wanted, key, modality)}"
    return ": ".join(filter(None, (key, path, _short(_ENDS.sub("", text), 400))))


@contextmanager
def building() -> Iterator[None]:
    """Context in which what a class's constructor raises names the class.

    Raises:
        ValueError: for an error that is not in a class's own words.
    """
    try:
        yield
    except (ModuleNotFoundError, MemoryError):
        raise
    except Exception as error:
        inner: BaseException = error
        while inner.__cause__ or inner.__context__:
            inner = inner.__cause__ or inner.__context__ or inner
        name = _under_construction(inner)
        if not name or (isinstance(inner, ValueError | OSError) and str(inner)) or "allocate" in str(inner):
            raise
        raise ValueError(f"{name} cannot be built: {one_line(inner)}") from error


def _under_construction(error: BaseException) -> str:
    """The outermost class that was being built when an error was raised; empty if none was."""
    trace = error.__traceback__
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
        kind = type(frame.f_locals.get("self"))
        if frame.f_code.co_name == "__init__" and not kind.__module__.startswith("jsonargparse"):
            return kind.__name__
    return ""


def _takes(names: Sequence[str], types: str, value: str) -> str:
    if match := _NESTED.search(value):
        return f"{'.'.join(names)} has no keys below it, so none called {match['key']}"
    shown = {"None": "null", "True": "true", "False": "false", "": "an empty text"}.get(value, _short(value))
    return f"{'.'.join(names)} takes {types}, not {shown}"


def _short(text: str, longest: int = _LONGEST) -> str:
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= longest else f"{text[:longest]}..."


def _types(text: str) -> str:
    """Types as a user's words: ``[<class 'float'>, <class 'NoneType'>]`` is "a number or null"."""
    words = _words(text)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _words(text: str) -> list[str]:
    words: list[str] = []
    for part in re.findall(
        r"<class '([^']+)'>|(?:typing\.)?Literal\[([^\]]*)\]|([\w.]+(?:\[[^\]]*\])?)", text
    ):
        name = part[0] or part[2]
        if part[1]:
            words += [word.strip(" '\"") for word in part[1].split(",")]
        elif name not in ("typing.", "torch.Tensor"):
            words.append(_TYPES.get(name, "a class path" if "." in name else name))
    return list(dict.fromkeys(words))


def _only_classes(types: str) -> bool:
    return set(_words(types)) <= {"a class path", "null"}


def _arguments(path: str) -> list[str]:
    """The arguments of a class that imports."""
    from inspect import signature

    module, _, name = path.rpartition(".")
    try:
        return [*signature(getattr(import_module(module), name)).parameters]
    except (ImportError, AttributeError, TypeError, ValueError):
        return []


def _suggestion(path: str, key: str, modality: str) -> str:
    """The class that was probably meant: of this package, of torch.optim, or of the module that is named."""
    offered = _offered(key, modality)
    short = {name.rpartition(".")[2]: name for name in reversed(offered)}
    module, _, name = path.rpartition(".")
    if name in short:
        return f"; did you mean {short[name]}?"
    near = difflib.get_close_matches(path, offered, n=1, cutoff=0.8)
    if not near and module:
        try:
            inside = [f"{module}.{other}" for other in dir(import_module(module)) if other[:1].isupper()]
        except Exception:  # importing a user's file can fail in any way
            inside = []
        near = difflib.get_close_matches(path, inside, n=1, cutoff=0.8)
    if not near:
        near = [short[word] for word in difflib.get_close_matches(name or path, short, n=1, cutoff=0.6)]
    if near:
        return f"; did you mean {near[0]}?"
    return "; a class path is such as my_lab.MyClass" if not module else ""


def _offered(key: str, modality: str) -> list[str]:
    from bt_multimodal.commands import sources

    if key.endswith("optimizer"):
        from torch import optim

        return [
            *(f"torch.optim.{name}" for name in dir(optim) if name[:1].isupper()),
            "bt_multimodal.optim.LARS",
        ]
    if key.endswith("loss"):
        return ["bt_multimodal.BarlowTwinsLoss"]
    look = sources.augmentation_sets if key == "views" else sources.encoders
    others = [other for other in ("image", "audio", "text") if other != modality]
    folders = [name for name in (modality, *others) if name in (*others, "image", "audio", "text")]
    return [described.class_path for name in folders for described in look(f"encoders.{name}")]


def last_line(error: Exception) -> str:
    """The part of an error's message that says what is wrong."""
    if match := _UNION.search(
        " ".join(str(error).split())
    ):  # a class refuses its arguments, in its own words
        return re.split(" - (?=Expected|Problem)", match["errors"])[0].partition(" - ")[0]
    # An error from a loader's worker arrives as a whole traceback.
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1] if "Traceback" in str(error) else " ".join(lines)

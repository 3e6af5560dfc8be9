"""What went wrong with a config, in one line: jsonargparse's messages made short."""

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

# How jsonargparse says that it does not know a key: of the whole command, of a group, of a class.
_UNKNOWN = (
    re.compile(r"unrecognized arguments: --(?P<key>[\w.]+)"),
    re.compile(r"Group '(?P<group>[\w.]+)' does not accept option '(?P<key>[\w.]+)'"),
)
# One that fits none of several types: what was wrong with the class that was asked for.
_UNION = re.compile(
    r'Parser key "(?P<key>[\w.]+)": .*?Does not validate against any of the Union subtypes.*?'
    r"Problem with given class_path '(?P<path>[^']+)': "
    r"(?P<problem>.+?)(?: - (?:Problem|Expected)| Given value type)"
)
# A plain value that fits none of them.
_VALUE = re.compile(
    r'Parser key "(?P<key>[\w.]+)": Does not validate against any of the Union subtypes '
    r"Subtypes: \[(?P<types>[^:]+)\] Errors: - Expected.*? Given value: (?P<value>.+?)(?= - Expected a |$)"
)
# A class that refuses its arguments where ``None`` might have stood: what it said.
_REFUSED = re.compile(r"Union subtypes\n.*\nErrors:\n  - ((?s:.+?))\n  - Expected a <class 'NoneType'>\n")
_UNKNOWN_ARGUMENT = re.compile(r"(?:Option|Key) '[\w.]+' is not (?:accepted|expected)")


def explain(parser: "ArgumentParser", error: Exception) -> str:
    """jsonargparse's message on one line, with the nearest right key for one it does not know."""
    text = " ".join(str(error).split())
    if "accumulate_grad_batches" in text:
        return (
            "accumulate_grad_batches would average small correlation matrices, which is another objective; "
            "model.accumulate takes the exact loss of a batch in micro-batches"
        )
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
    text = _VALUE.sub(r"\g<key> takes \g<types>, not \g<value>", text)
    if found := _UNION.search(text):
        text = "{key}: {path}: {problem}".format(**found.groupdict())
    for pattern in _UNKNOWN:
        if found := pattern.search(text):
            key = ".".join(found.groupdict().values())
            from bt_multimodal.compat import parser_keys

            keys = parser_keys(parser)
            near = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
            return f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else "")
    return f"{text}; fit --help lists the keys" if _UNKNOWN_ARGUMENT.search(text) else text


def last_line(error: Exception) -> str:
    """The line of an error's message that says what was wrong."""
    if found := _REFUSED.search(str(error)):
        return found[1]
    # An error from a loader's worker arrives as its whole traceback.
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1] if "Traceback" in str(error) else " ".join(lines)

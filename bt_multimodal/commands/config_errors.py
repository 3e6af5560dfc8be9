"""Short messages for errors in a config: jsonargparse's messages in one line."""

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

# jsonargparse does not know a key: of the whole command, of a group.
_UNKNOWN = (
    re.compile(r"unrecognized arguments: --(?P<key>[\w.]+)"),
    re.compile(r"Group '(?P<group>[\w.]+)' does not accept option '(?P<key>[\w.]+)'"),
)
# A class that fits none of several types: what is wrong with it.
_UNION = re.compile(
    r'Parser key "(?P<key>[\w.]+)": .*?Does not validate against any of the Union subtypes.*?'
    r"Problem with given class_path '(?P<path>[^']+)': "
    r"(?P<problem>.+?)(?: - (?:Problem|Expected)| Given value type)"
)
# A plain value that fits none of several types.
_VALUE = re.compile(
    r'Parser key "(?P<key>[\w.]+)": Does not validate against any of the Union subtypes '
    r"Subtypes: \[(?P<types>[^:]+)\] Errors: - Expected.*? Given value: (?P<value>.+?)(?= - Expected a |$)"
)
# A class that is optional (or ``None``) and refuses its arguments: its own message.
_REFUSED = re.compile(r"Union subtypes\n.*\nErrors:\n  - ((?s:.+?))\n  - Expected a <class 'NoneType'>\n")
_UNKNOWN_ARGUMENT = re.compile(r"(?:Option|Key) '[\w.]+' is not (?:accepted|expected)")


def explain(parser: "ArgumentParser", error: Exception) -> str:
    """jsonargparse's message in one line; for an unknown key, with the most similar known key."""
    text = " ".join(str(error).split())
    if "accumulate_grad_batches" in text:
        return (
            "accumulate_grad_batches would average small correlation matrices, which is another objective; "
            "model.accumulate takes the exact loss of a batch in micro-batches"
        )
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
    text = _VALUE.sub(r"\g<key> takes \g<types>, not \g<value>", text)
    if match := _UNION.search(text):
        text = "{key}: {path}: {problem}".format(**match.groupdict())
    for pattern in _UNKNOWN:
        if match := pattern.search(text):
            key = ".".join(match.groupdict().values())
            from bt_multimodal.compat import parser_keys

            keys = parser_keys(parser)
            near = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
            return f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else "")
    return f"{text}; --help lists the keys" if _UNKNOWN_ARGUMENT.search(text) else text


def last_line(error: Exception) -> str:
    """The part of an error's message that says what is wrong."""
    if match := _REFUSED.search(str(error)):
        return match[1]
    # An error from a loader's worker arrives as a whole traceback.
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1] if "Traceback" in str(error) else " ".join(lines)

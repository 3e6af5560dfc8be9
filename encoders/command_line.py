"""The command ``bt-multimodal``: ``bt-multimodal MODALITY TASK [--KEY VALUE ...]``.

Only the task's own module is imported, and that imports nothing heavy until it runs.
"""

import difflib
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from encoders.task_list import SEEDS, TASKS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run(argv: list[str]) -> int:
    from bt_multimodal.commands.cli import TRACEBACK, fail

    traced = [TRACEBACK] if TRACEBACK in argv else []  # anywhere, also before the task
    argv = [word for word in argv if word != TRACEBACK]
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        print(f"bt-multimodal {version('bt_multimodal')}")
        return 0
    if argv[0] == "completion":
        from encoders.completion import completion

        return completion(argv[1:])
    if argv[0] == "seeds":
        from bt_multimodal.commands.seeds import seeds

        return seeds([*argv[1:], *traced])
    if argv[0] not in TASKS:
        return fail(_unknown("command", argv[0], [*TASKS, "seeds", "completion"]))
    tasks = TASKS[argv[0]]
    if len(argv) == 1 or argv[1] in ("-h", "--help"):
        print("\n".join(_rows(argv[0])))
        return 0
    if argv[1] not in tasks:
        return fail(_unknown(f"task of {argv[0]}", argv[1], [*tasks]))
    module, _, function = tasks[argv[1]][0].partition(":")
    return getattr(import_module(module), function)([*argv[2:], *traced])


def _unknown(kind: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"there is no {kind} {name!r}" + (
        f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
    )


def _overview() -> str:
    lines = ["Barlow Twins on anything.", "", "    bt-multimodal MODALITY TASK [--KEY VALUE ...]", ""]
    for modality in TASKS:
        lines += _rows(modality)
    lines += [f"{'seeds':<20}{SEEDS}", f"{'completion SHELL':<20}a completion script for bash or zsh", ""]
    return "\n".join([*lines, "--help after a task lists its keys; --version is this package's."])


def _rows(modality: str) -> list[str]:
    return [f"{f'{modality} {task}':<20}{text}" for task, (_, text) in TASKS[modality].items()]

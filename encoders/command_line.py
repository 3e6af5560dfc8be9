"""The command ``bt-multimodal``: ``bt-multimodal MODALITY TASK [--KEY VALUE ...]``.

Only the task's own module is imported, and that imports nothing heavy until it runs.
"""

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

# Modality, task: the function that runs it, and what it does.
TASKS: dict[str, dict[str, tuple[str, str]]] = {
    "image": {
        "pretrain": ("encoders.image.commands:pretrain", "pretrain an encoder on pictures"),
        "linear": ("encoders.image.commands:linear", "kNN and linear probes on frozen features"),
        "classify": ("encoders.image.commands:classify", "train a classifier: linear, few labels, transfer"),
        "svm": ("encoders.image.commands:svm", "VOC07's linear SVMs"),
        "detect": ("encoders.image.commands:detect", "fine-tune a detector on VOC or COCO"),
        "convert": (
            "encoders.image.commands:convert",
            "from and to the reference, torchvision, timm",
        ),
        "ablations": ("encoders.image.commands:ablations", "a sweep of configs and seeds, one table"),
    },
    "audio": {
        "pretrain": ("encoders.audio.commands:pretrain", "pretrain an encoder on sounds"),
        "probe": ("encoders.audio.commands:probe", "kNN, linear probes, HEAR's MLPs on frozen features"),
    },
    "text": {
        "pretrain": ("encoders.text.commands:pretrain", "pretrain an encoder on texts"),
        "probe": ("encoders.text.commands:probe", "kNN, linear probes, SentEval's protocol"),
        "sts": ("encoders.text.commands:sts", "semantic textual similarity"),
        "convert": ("encoders.text.commands:convert", "a folder for sentence-transformers"),
    },
}
SEEDS = "mean and spread of the tables of several runs: bt-multimodal seeds RUN RUN ..."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    from bt_multimodal.commands.cli import fail

    argv = list(sys.argv[1:] if argv is None else argv)
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

        return seeds(argv[1:])
    if argv[0] not in TASKS:
        return fail(_unknown("command", argv[0], [*TASKS, "seeds", "completion"]))
    tasks = TASKS[argv[0]]
    if len(argv) == 1 or argv[1] in ("-h", "--help"):
        print("\n".join(_rows(argv[0])))
        return 0
    if argv[1] not in tasks:
        return fail(_unknown(f"task of {argv[0]}", argv[1], [*tasks]))
    module, _, function = tasks[argv[1]][0].partition(":")
    return getattr(import_module(module), function)(argv[2:])


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

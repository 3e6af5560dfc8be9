"""Shell completion of ``bt-multimodal``: tasks, their keys, and the names of shipped configs."""

import argparse
from collections.abc import Sequence
from importlib import import_module

from bt_multimodal.commands.config_files import shipped_configs
from bt_multimodal.commands.help_page import argument_names
from encoders.task_list import SEEDS, TASKS

DOC = """Print a completion script.

    bash   bt-multimodal completion bash > ~/.local/share/bash-completion/completions/bt-multimodal
    zsh    bt-multimodal completion zsh > FOLDER/_bt-multimodal    (a folder of $fpath)
    tcsh   bt-multimodal completion tcsh > FILE                    (sourced by ~/.tcshrc)"""

# The modules that declare the keys of the tasks that jsonargparse parses.
_KEYS = {
    "pretrain": "bt_multimodal.commands.pretrain",
    "classify": "bt_multimodal.commands.classify",
    "svm": "bt_multimodal.commands.svm",
    "detect": "encoders.image.detection.command",
}


def completion(argv: Sequence[str]) -> int:
    """Prints the script for a shell and returns the exit status."""
    from bt_multimodal.commands.cli import fail, guarded

    if not argv or argv[0] in ("-h", "--help"):
        print(DOC)
        return 0

    def run() -> int:
        import shtab

        if argv[0] not in shtab.SUPPORTED_SHELLS:
            return fail(
                f"there is no completion for {argv[0]!r}, only for {', '.join(shtab.SUPPORTED_SHELLS)}"
            )
        print(shtab.complete(whole_parser(), argv[0]))
        return 0

    return guarded("train", run)


def whole_parser() -> argparse.ArgumentParser:
    """Returns one argparse parser of all tasks and keys."""
    parser = argparse.ArgumentParser(prog="bt-multimodal", allow_abbrev=False)
    parser.add_argument("--version", action="store_true")
    modalities = parser.add_subparsers()
    for modality, tasks in TASKS.items():
        subparsers = modalities.add_parser(modality, help=f"tasks on {modality}").add_subparsers()
        for task, (path, text) in tasks.items():
            if task in _KEYS:
                _add_keys(subparsers.add_parser(task, help=text), task)
            else:
                subparsers.add_parser(
                    task, help=text, parents=[_parser_of(path)], add_help=False, conflict_handler="resolve"
                )
    modalities.add_parser("seeds", help=SEEDS).add_argument("runs", nargs="*")
    shells = modalities.add_parser("completion", help="a completion script for a shell")
    shells.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return parser


def _add_keys(parser: argparse.ArgumentParser, task: str) -> None:
    for name in argument_names(import_module(_KEYS[task]).KEYS):
        if name == "config":
            parser.add_argument("--config", choices=sorted(shipped_configs()))
        else:
            parser.add_argument(f"--{name}")


def _parser_of(path: str) -> argparse.ArgumentParser:
    module, _, function = path.partition(":")
    if function in ("linear", "probe"):
        from bt_multimodal.commands.probe import probe_parser

        return probe_parser("")
    return getattr(import_module(module), f"{function}_parser")("")

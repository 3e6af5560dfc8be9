"""The command that takes the final tables of several runs together."""

from collections.abc import Sequence
from pathlib import Path

from bt_multimodal.commands.cli import arguments_of, guarded
from bt_multimodal.commands.run_folder import runs_below

DOC = """Mean and spread of the final tables of several runs, such as one config with several seeds.

    bt-multimodal seeds runs/speech_commands_cpu/seed0 runs/speech_commands_cpu/seed1 ..."""


def seeds(argv: Sequence[str] | None = None) -> int:
    """Print the table; the exit status."""
    argv = arguments_of(argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(DOC)
        return 0

    def run() -> int:
        from bt_multimodal.evaluation.report import over_runs

        for name in argv:
            if not (Path(name) / "table.json").exists() and (below := runs_below(Path(name))):
                raise ValueError(f"{name} is no run directory{below}")
        print(over_runs([Path(run) for run in argv]))
        return 0

    return guarded("train", run)

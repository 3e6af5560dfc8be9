"""Mean and spread of the final tables of several runs, such as the same config with other seeds.

python tasks/seeds.py runs/speech_commands_cpu/seed0 runs/speech_commands_cpu/seed1 ...
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main(argv: Sequence[str]) -> int:
    """Print the table; the exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        print((__doc__ or "").strip())
        return 0
    from bt_multimodal.commands.cli import fail
    from bt_multimodal.evaluation.report import over_runs

    try:
        print(over_runs([Path(run) for run in argv]))
    except ValueError as error:
        return fail(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

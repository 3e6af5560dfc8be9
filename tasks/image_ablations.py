"""The paper's ablations: pretrain once a config and seed, probe every encoder, print one table.

    python tasks/image_ablations.py --base configs/image/ablations_miniature.yaml --seeds 0 1 2 \\
        --out runs/ablations --ablations configs/image/ablations/*.yaml
    python tasks/image_ablations.py --help

--base       a config of tasks/image_pretrain.py: the table's baseline
--ablations  configs laid over it, a row each; the figure after "# paper:" in their headers is printed
--seeds      of every row (default 0 1 2)
--out        where the runs go; those that have ended are not done again
--processes  runs side by side (default 1)

Keys of tasks/image_pretrain.py after a lone -- go to every run: -- --trainer.max_epochs 5

Weighted kNN (k = 20) and a linear probe on all labels, on the test split; raw pixels and the untrained
encoder beside them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def modality():
    """How images are opened."""
    from encoders.image.modality import IMAGES

    return IMAGES


def main(argv: Sequence[str]) -> int:
    """Run the sweep and print the table; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--ablations", type=Path, nargs="*", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    if not argv:
        print((__doc__ or "").strip())
        return 0
    at = argv.index("--") if "--" in argv else len(argv)
    arguments = parser.parse_args(argv[:at])
    from bt_multimodal.commands.cli import fail
    from bt_multimodal.commands.sweep import plan, sweep, table
    from bt_multimodal.evaluation.report import save_comparison

    try:
        runs = plan(arguments.base, arguments.ablations, arguments.seeds, arguments.out, argv[at + 1 :])
    except ValueError as error:
        return fail(str(error))
    failed = sweep(runs, modality, arguments.processes)
    comparison = table(runs, arguments.ablations, arguments.base)
    save_comparison(arguments.out, comparison)
    print(f"\n{comparison}")
    for folder, reason in failed.items():
        print(f"failed: {folder}: {reason}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

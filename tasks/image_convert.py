"""Image encoders to and from other formats.

    python tasks/image_convert.py resnet50.pth encoder.safetensors --to encoder
    python tasks/image_convert.py runs/imagenet_resnet50/TIME resnet50.pth --to torchvision
    python tasks/image_convert.py runs/imagenet_resnet50/TIME FOLDER --to hub

SOURCE   the reference code's checkpoint.pth or released resnet50.pth, a run directory, or an
         encoder.safetensors
--to     encoder: what tasks/image_linear.py takes. torchvision: torchvision's names, .pth or
         .safetensors, only the head missing. hub: a folder for timm and transformers (config, weights,
         model card with the run's table).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main(argv: Sequence[str]) -> int:
    """Convert; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--to", required=True, choices=("encoder", "torchvision", "hub"))
    if not argv:
        print((__doc__ or "").strip())
        return 0
    arguments = parser.parse_args(argv)
    from bt_multimodal.commands.cli import fail
    from encoders.image.exchange import convert

    try:
        convert(arguments.source, arguments.target, arguments.to)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        return fail(str(error))
    print(f"wrote {arguments.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

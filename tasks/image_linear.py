"""Evaluate an image encoder on frozen features: weighted kNN and linear probes.

    python tasks/image_linear.py --encoder runs/digits/20260101-120000 --data.source sklearn:digits
    python tasks/image_linear.py --help

--encoder       a run directory or an encoder.safetensors
--data.source   as in tasks/image_pretrain.py; labels are needed

The table compares raw pixels, the encoder untrained (same class, fresh weights) and trained: kNN
(k = 20), a linear probe on all labels, and linear probes on a few labels a class over several
draws (mean and standard deviation). Where the source has no test split, 20 % are held out.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--encoder", required=True, help="run directory or encoder.safetensors")
    parser.add_argument("--data.source", dest="source", required=True)
    for key in ("content_column", "label_column", "train_split", "test_split"):
        parser.add_argument(f"--data.{key}", dest=key, help="found by convention if not given")
    parser.add_argument("--per_class", type=int, nargs="*", default=[10], help="labels a class (default 10)")
    parser.add_argument("--draws", type=int, default=5, help="label draws (default 5)")
    parser.add_argument("--k", type=int, default=20, help="neighbours (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the label draws and the untrained weights")
    parser.add_argument("--no_linear", action="store_true", help="leave out the probe on all labels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--save_features", help="folder for train.safetensors and test.safetensors")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0, or 2 after one line on standard error."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        print((__doc__ or "").strip())
        return 0
    args = _parser().parse_args(argv)
    from bt_multimodal.cli import fail

    try:
        print(_evaluate(args))
    except (ValueError, OSError) as error:
        return fail(str(error))
    return 0


def _evaluate(args: argparse.Namespace) -> str:
    import os

    import torch
    from torch import nn

    from bt_multimodal.checkpoint import load_encoder
    from bt_multimodal.decoding import DecodedRecords
    from bt_multimodal.features import FeatureTable, extract_features, raw_features, save_features
    from bt_multimodal.records import open_records
    from bt_multimodal.report import compare
    from encoders.image.modality import IMAGES

    sys.path.insert(0, os.getcwd())  # a user's own encoder
    torch.manual_seed(args.seed)
    trained, views = load_encoder(args.encoder)
    untrained = load_encoder(args.encoder, weights=False).encoder
    splits = open_records(
        args.source,
        extensions=IMAGES.extensions,
        content_columns=IMAGES.columns,
        content_column=args.content_column,
        label_column=args.label_column,
        train_split=args.train_split,
        test_split=args.test_split,
        require_labels=True,
    )
    parts = [DecodedRecords(records, views.decode) for records in (splits.train, splits.test)]

    def features(encoder: nn.Module) -> tuple[FeatureTable, FeatureTable]:
        train, test = (extract_features(encoder, views, part, device=args.device) for part in parts)
        return train, test

    tables = {
        IMAGES.raw: (raw_features(views, parts[0]), raw_features(views, parts[1])),
        "untrained encoder": features(untrained),
        "trained encoder": features(trained),
    }
    report = compare(
        tables, IMAGES.unit, splits.held_out,
        per_class=args.per_class, draws=args.draws, k=args.k, seed=args.seed, linear=not args.no_linear,
    )  # fmt: skip
    if args.save_features:
        folder = Path(args.save_features)
        folder.mkdir(parents=True, exist_ok=True)
        for split, table in zip(("train", "test"), tables["trained encoder"], strict=True):
            save_features(folder / f"{split}.safetensors", table)
    return report


if __name__ == "__main__":
    sys.exit(main())

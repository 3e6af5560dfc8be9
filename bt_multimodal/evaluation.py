"""The command line that the evaluation tasks share: a frozen encoder, weighted kNN and linear probes.

Nothing heavy is imported until there is something to do.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bt_multimodal.cli import fail

if TYPE_CHECKING:
    from bt_multimodal.data import Modality


def _parser(doc: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
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
    parser.add_argument("--mlp", action="store_true", help="add the MLPs of HEAR's recipe (minutes)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--save_features", help="folder for train.safetensors and test.safetensors")
    return parser


def probe(doc: str, modality: "Callable[[], Modality]", argv: Sequence[str] | None = None) -> int:
    """Run an evaluation task's command line.

    Args:
        doc: the task's docstring: what a bare command and ``--help`` print.
        modality: a function giving the `Modality` (its imports wait until they are needed).
        argv: arguments after the script's name.

    Returns:
        The exit status: 0, or 2 after one line on standard error.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        print(doc.strip())
        return 0
    arguments = _parser(doc).parse_args(argv)
    try:
        print(_evaluate(arguments, modality()))
    except (ValueError, OSError) as error:
        return fail(str(error))
    return 0


def _evaluate(arguments: argparse.Namespace, modality: "Modality") -> str:
    import torch
    from torch import nn

    from bt_multimodal.checkpoint import load_encoder
    from bt_multimodal.decoding import DecodedRecords
    from bt_multimodal.features import FeatureTable, extract_features, raw_features, save_features
    from bt_multimodal.memory import keep_freed_memory
    from bt_multimodal.report import compare

    keep_freed_memory()
    sys.path.insert(0, os.getcwd())  # a user's own encoder
    torch.manual_seed(arguments.seed)
    trained, views = load_encoder(arguments.encoder)
    untrained = load_encoder(arguments.encoder, weights=False).encoder
    splits = modality.open(
        arguments.source,
        content_column=arguments.content_column,
        label_column=arguments.label_column,
        train_split=arguments.train_split,
        test_split=arguments.test_split,
        require_labels=True,
    )
    parts = [DecodedRecords(records, views.decode) for records in (splits.train, splits.test)]

    def features(encoder: nn.Module) -> list[FeatureTable]:
        return [extract_features(encoder, views, part, device=arguments.device) for part in parts]

    tables = {
        modality.raw: [raw_features(views, part, modality.raw_features) for part in parts],
        "untrained encoder": features(untrained),
        "trained encoder": features(trained),
    }
    report = compare(
        tables, modality.unit, splits.held_out,
        per_class=arguments.per_class, draws=arguments.draws, k=arguments.k, seed=arguments.seed,
        linear=not arguments.no_linear, mlp=arguments.mlp,
    )  # fmt: skip
    if arguments.save_features:
        folder = Path(arguments.save_features)
        folder.mkdir(parents=True, exist_ok=True)
        for split, table in zip(("train", "test"), tables["trained encoder"], strict=True):
            save_features(folder / f"{split}.safetensors", table)
    return str(report)

"""The command that evaluates a frozen encoder: weighted kNN and linear probes.

Nothing heavy is imported until there is something to do.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bt_multimodal.commands.cli import add_trust, plain_parser, run_plain

if TYPE_CHECKING:
    from bt_multimodal.augmentation_set import AugmentationSet
    from bt_multimodal.data.damage import Tolerance
    from bt_multimodal.data.records import Records
    from bt_multimodal.encoder_file import LoadedEncoder
    from bt_multimodal.evaluation.features import FeatureTable
    from bt_multimodal.modality import Modality


def probe_parser(doc: str) -> argparse.ArgumentParser:
    """The arguments of the command; `doc` is what it does."""
    parser = plain_parser(doc)
    parser.add_argument("--encoder", required=True, help="run directory or encoder.safetensors")
    add_trust(parser)
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
    parser.add_argument("--run_dir", type=Path, help="where to keep table.txt and table.json")
    share, least = "that may be damaged (default 0.01)", "that may be damaged in any case (default 5)"
    parser.add_argument(
        "--data.damaged_share", dest="share", type=float, default=0.01, help=f"records {share}"
    )
    parser.add_argument("--data.damaged_least", dest="least", type=int, default=5, help=f"records {least}")
    parser.add_argument("--save_features", help="folder for train.safetensors and test.safetensors")
    return parser


def probe(
    doc: str,
    modality: "Callable[[], Modality]",
    argv: Sequence[str] | None = None,
    load: "Callable[..., LoadedEncoder] | None" = None,
    name: str = "train",
) -> int:
    """Run an evaluation command.

    Args:
        doc: what the command does; a bare command prints it.
        modality: returns the `Modality` (its imports wait until they are needed).
        argv: the arguments; those of the process if ``None``.
        load: as in `representations`.
        name: the extra that installs what the command needs.

    Returns:
        The exit status; see `bt_multimodal.commands.cli.guarded`.
    """

    def evaluate(arguments: argparse.Namespace) -> int:
        print(_evaluate(arguments, modality(), load))
        return 0

    return run_plain(probe_parser(doc), argv, evaluate, name)


def representations(
    encoder: str | Path,
    records: "Sequence[Records]",
    modality: "Modality",
    raw: bool = True,
    untrained: bool = True,
    device: str = "cpu",
    augmentations: "AugmentationSet | None" = None,
    batch_size: int = 256,
    load: "Callable[..., LoadedEncoder] | None" = None,
    trust: "Sequence[str] | str" = (),
    tolerance: "Tolerance | None" = None,
) -> "dict[str, list[FeatureTable]]":
    """The features that an exported encoder gives of several sets of records, by name.

    Args:
        encoder: run directory or ``encoder.safetensors``.
        raw: beside it the modality's raw features.
        untrained: beside it the same class with its initial weights.
        device: where to run.
        augmentations: the set whose clean views it is given; by default the one it was trained with.
        batch_size: samples that go through the encoder at once.
        load: opens ``encoder``, with the arguments of `encoder_file.load_encoder`, which it is by default.
        trust: packages whose code the encoder's file may use.
        tolerance: how much damage is no error.

    Raises:
        ValueError: no such encoder, one that does not take these records, or too many damaged.
    """
    from torch import nn

    from bt_multimodal.augmentation_set import completed
    from bt_multimodal.data.damage import Tolerance
    from bt_multimodal.data.decoding import DecodedRecords
    from bt_multimodal.encoder_file import load_encoder
    from bt_multimodal.evaluation.features import extract_features, raw_tables

    load = load or load_encoder
    trained, trained_with = load(encoder, trust=trust)
    augmentations = trained_with if augmentations is None else completed(augmentations)
    options = (tolerance or Tolerance())._asdict()
    parts = [DecodedRecords(part, augmentations.decode, **options) for part in records]

    def features(encoder: nn.Module) -> "list[FeatureTable]":
        return [extract_features(encoder, augmentations, part, batch_size, device) for part in parts]

    tables: dict[str, list[FeatureTable]] = {}
    if raw:
        tables |= raw_tables(modality, augmentations, parts)
    if untrained:
        tables["untrained encoder"] = features(load(encoder, weights=False, trust=trust).encoder)
    return {**tables, "trained encoder": features(trained)}


def _evaluate(
    arguments: argparse.Namespace, modality: "Modality", load: "Callable[..., LoadedEncoder] | None"
) -> str:
    import torch

    from bt_multimodal.commands.memory import keep_freed_memory
    from bt_multimodal.data.damage import tolerance
    from bt_multimodal.data.records import open_source
    from bt_multimodal.data.sources.summary import say, summary
    from bt_multimodal.evaluation.features import save_features
    from bt_multimodal.evaluation.report import check_empty, compare, save_comparison

    keep_freed_memory()
    torch.manual_seed(arguments.seed)
    if arguments.run_dir:
        check_empty(arguments.run_dir)
    tolerated = tolerance(arguments.share, arguments.least, arguments.run_dir)
    splits = open_source(
        arguments.source,
        modality,
        content_column=arguments.content_column,
        label_column=arguments.label_column,
        train_split=arguments.train_split,
        test_split=arguments.test_split,
        require_labels=True,
    )
    tables = representations(
        arguments.encoder, (splits.train, splits.test), modality, device=arguments.device, load=load,
        tolerance=tolerated, trust=arguments.trust,
    )  # fmt: skip
    width = tables["trained encoder"][0].features.shape[1]
    report = compare(
        tables, modality.unit, splits.held_out,
        modality.baselines and partial(modality.baselines, splits.train, splits.test, width),
        per_class=arguments.per_class, draws=arguments.draws, k=arguments.k, seed=arguments.seed,
        linear=not arguments.no_linear, mlp=arguments.mlp, records=(len(splits.train), len(splits.test)),
    )  # fmt: skip
    say(summary(splits))  # after all that may be wrong: an error is one line
    if arguments.save_features:
        folder = Path(arguments.save_features)
        folder.mkdir(parents=True, exist_ok=True)
        for split, table in zip(("train", "test"), tables["trained encoder"], strict=True):
            save_features(folder / f"{split}.safetensors", table)
    if arguments.run_dir:
        save_comparison(arguments.run_dir, report)
        tolerated.begin()
    return str(report)

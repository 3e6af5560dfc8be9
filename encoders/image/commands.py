"""The commands on images. What they import waits until they run."""

import argparse
from collections.abc import Sequence
from inspect import getdoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bt_multimodal.modality import Modality

NAME = "image"


def modality() -> "Modality":
    """How images are opened."""
    from encoders.image.modality import IMAGES

    return IMAGES


def pretrain(argv: Sequence[str] | None = None) -> int:
    """Pretrain an image encoder with Barlow Twins, without labels.

        bt-multimodal image pretrain --config image/digits
        bt-multimodal image pretrain --config image/cifar10_convnet_cpu --data.source FOLDER

    --data.source is a folder of pictures (with or without train/ and test/; subfolders are labels), a CSV,
    TSV or JSONL manifest, a Parquet or tar file (WebDataset) or a folder of them, a hub data set's name, or
    sklearn:digits. --model.encoder is a class path, yours included: my_lab.MyEncoder is any nn.Module with
    features_dim.

    The run directory keeps config.yaml, metrics.csv, checkpoints/, encoder.safetensors, curves.png and, where
    there are labels, features.png, table.txt and table.json. The same command with the same --run_dir
    continues a run that was stopped.
    """
    from bt_multimodal.commands.pretrain import pretrain as command

    return command(getdoc(pretrain) or "", modality, argv, NAME)


def linear(argv: Sequence[str] | None = None) -> int:
    """Evaluate an image encoder on frozen features: weighted kNN and linear probes.

        bt-multimodal image linear --encoder runs/digits/TIME --data.source sklearn:digits

    --encoder is a run directory or an encoder.safetensors; --data.source is as in pretraining, with labels.

    The table compares raw pixels, the encoder untrained (same class, fresh weights) and trained: kNN
    (k = 20), a linear probe on all labels, and linear probes on a few labels a class over several draws
    (mean and standard deviation). Where the source has no test split, 20 % are held out.
    """
    from bt_multimodal.commands.probe import probe

    return probe(getdoc(linear) or "", modality, argv, name=NAME)


def classify(argv: Sequence[str] | None = None) -> int:
    """Train a classifier on an image encoder: linear evaluation, few labels, transfer.

        bt-multimodal image classify --config image/imagenet_linear --encoder RUN --data.source FOLDER

    --encoder is a run directory or an encoder.safetensors (`image convert` makes one of the reference code's
    files); --fresh true measures the same network with fresh weights. --data.source is as in pretraining,
    with labels; --data.subset is a text file with the names of the training pictures to use, such as the
    published 1 % of ImageNet.

    It prints top-1 and top-5 on the test split; the run directory keeps config.yaml, checkpoints/, table.txt
    and table.json.
    """
    from bt_multimodal.commands.classify import classify as command

    return command(getdoc(classify) or "", modality, argv, NAME)


def svm(argv: Sequence[str] | None = None) -> int:
    """Train linear SVMs on a frozen image encoder, one a class, in the recipe of VOC07 classification.

        bt-multimodal image svm --config image/voc07_svm --encoder RUN --data.source VOCdevkit/VOC2007

    --data.source is a folder with JPEGImages/ and ImageSets/Main/CLASS_SPLIT.txt. --run_dir keeps
    config.yaml, table.txt, table.json and svms.json (each class's average precision, its C, and what C was
    chosen by); without it the table is only printed.

    The table compares raw pixels (averaged to 32 x 32 where there are more), the encoder untrained (same
    class, fresh weights) and trained. Each class's C is chosen by cross-validation on the training split. The
    figures are the mean over the classes of the whole area under the precision-recall curve, and of VOC07's
    11-point average. A picture in which a class is marked as difficult does not count in that class's test.
    """
    from bt_multimodal.commands.svm import svm as command

    return command(getdoc(svm) or "", _voc, argv, NAME)


def _voc() -> Any:
    from torch.nn.functional import adaptive_avg_pool2d

    from encoders.image.modality import IMAGES
    from encoders.image.voc import open_voc

    def pixels(view: Any) -> Any:
        # As they are, 224 x 224 would make 150,528 features: tens of GiB in the solver.
        rows, columns = view.shape[2:]
        return adaptive_avg_pool2d(view, (min(rows, 32), min(columns, 32))).flatten(1)

    return IMAGES._replace(raw_features=pixels), open_voc


def detect(argv: Sequence[str] | None = None) -> int:
    """Fine-tune a detector from an image encoder: Faster R-CNN or Mask R-CNN on a ResNet, C4.

        bt-multimodal image detect --config image/voc0712_detection --encoder RUN --data.source VOCdevkit
        bt-multimodal image detect --config image/coco_instances --encoder RUN --data.source COCO

    --encoder is a run directory or an encoder.safetensors of a ResNet; --fresh true measures the same network
    with fresh weights. --data.source is a VOC devkit (VOCdevkit, or a year's folder), or a folder with COCO's
    annotations/ and pictures in folders named as the splits.

    It prints the average precision on the test split; the run directory keeps config.yaml, checkpoints/,
    table.txt, table.json and detections.png: some test pictures with their objects and, below, with the
    detections.
    """
    from encoders.image.detection.command import detect as command

    return command(getdoc(detect) or "", argv, NAME)


def convert(argv: Sequence[str] | None = None) -> int:
    """Convert image encoders to and from other formats.

        bt-multimodal image convert resnet50.pth encoder.safetensors --to encoder
        bt-multimodal image convert runs/imagenet_resnet50/TIME resnet50.pth --to torchvision
        bt-multimodal image convert runs/imagenet_resnet50/TIME FOLDER --to hub

    The source is the reference code's checkpoint.pth or released resnet50.pth, a run directory, or an
    encoder.safetensors. The formats:

    encoder       what `image linear` and its siblings take
    torchvision   torchvision's names, .pth or .safetensors; only the head is missing
    hub           a folder for timm and transformers (config, weights, model card with the run's table)
    """
    from bt_multimodal.commands.cli import arguments_of, guarded

    doc = getdoc(convert) or ""
    argv = arguments_of(argv)
    if not argv:
        print(doc)
        return 0
    arguments = convert_parser(doc).parse_args(argv)

    def run() -> int:
        from encoders.image.exchange import convert as write

        write(arguments.source, arguments.target, arguments.to)
        print(f"wrote {arguments.target}")
        return 0

    return guarded(NAME, run)


def convert_parser(doc: str) -> argparse.ArgumentParser:
    """The arguments of `convert`."""
    parser = _parser(doc)
    parser.add_argument("source", help="what to convert")
    parser.add_argument("target", help="the file or folder to write")
    parser.add_argument("--to", required=True, choices=("encoder", "torchvision", "hub"), help="the format")
    return parser


def ablations(argv: Sequence[str] | None = None) -> int:
    """Pretrain once a config and seed, probe every encoder, and print one table: the paper's ablations.

        bt-multimodal image ablations --base configs/image/ablations_miniature.yaml --seeds 0 1 2
            --out runs/ablations --ablations configs/image/ablations/*.yaml
            --published configs/image/ablations/published.csv

    Keys of `image pretrain` after a lone -- go to every run: -- --trainer.max_epochs 5

    The table has weighted kNN (k = 20) and a linear probe on all labels, on the test split, with raw pixels
    and the untrained encoder beside them.
    """
    from bt_multimodal.commands.cli import FAILED, arguments_of, fail, guarded

    doc = getdoc(ablations) or ""
    argv = arguments_of(argv)
    if not argv:
        print(doc)
        return 0
    end = argv.index("--") if "--" in argv else len(argv)
    arguments = ablations_parser(doc).parse_args(argv[:end])

    def run() -> int:
        from bt_multimodal.commands.sweep import plan, read_published, sweep, table
        from bt_multimodal.evaluation.report import save_comparison

        published = read_published(arguments.published) if arguments.published else {}
        runs = plan(arguments.base, arguments.ablations, arguments.seeds, arguments.out, argv[end + 1 :])
        failed = sweep(runs, modality, arguments.processes)
        comparison = table(runs, arguments.ablations, published)
        save_comparison(arguments.out, comparison)
        print(f"\n{comparison}")
        for folder, reason in failed.items():
            fail(f"{folder}: {reason}")
        return FAILED if failed else 0

    return guarded(NAME, run)


def ablations_parser(doc: str) -> argparse.ArgumentParser:
    """The arguments of `ablations`."""
    parser = _parser(doc)
    parser.add_argument("--base", type=Path, required=True, help="a config of `image pretrain`")
    parser.add_argument("--ablations", type=Path, nargs="*", default=[], help="laid over it, a row each")
    parser.add_argument("--published", type=Path, help="a CSV file with ablation,top_1")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default 0 1 2")
    parser.add_argument("--out", type=Path, required=True, help="where the runs go")
    parser.add_argument("--processes", type=int, default=1, help="runs side by side (default 1)")
    return parser


def _parser(doc: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )

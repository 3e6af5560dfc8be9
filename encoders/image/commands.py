"""The image commands. Each imports what it needs only when it runs."""

import argparse
from collections.abc import Sequence
from inspect import getdoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bt_multimodal.commands.cli import FAILED, add_trust, arguments_of, fail, guarded, plain_parser, run_plain

if TYPE_CHECKING:
    from bt_multimodal.modality import Modality

NAME = "image"


def modality() -> "Modality":
    """Returns how image data is opened."""
    from encoders.image.modality import IMAGES

    return IMAGES


def pretrain(argv: Sequence[str] | None = None) -> int:
    """Pretrain an image encoder with Barlow Twins, without labels.

        bt-multimodal image pretrain --config image/digits
        bt-multimodal image pretrain --config image/cifar10_convnet_cpu --data.source FOLDER

    --data.source is a folder of pictures (with or without train/ and test/; subfolders are labels), a CSV,
    TSV or JSONL manifest, a Parquet or tar file (WebDataset) or a folder of them, a hub data set's name, or
    sklearn:digits. --model.encoder is a class path, also of your own code: my_lab.MyEncoder is any nn.Module
    with features_dim.

    The run directory keeps config.yaml, metrics.csv, checkpoints/, encoder.safetensors, curves.png and, where
    there are labels, features.png, table.txt and table.json. Repeat a command with the same --run_dir to
    resume a stopped run.
    """
    from bt_multimodal.commands.pretrain import pretrain as command

    return command(getdoc(pretrain) or "", modality, argv, NAME)


def linear(argv: Sequence[str] | None = None) -> int:
    """Evaluate an image encoder on frozen features: weighted kNN and linear probes.

        bt-multimodal image linear --encoder runs/digits/TIME --data.source sklearn:digits

    --encoder is a run directory or an encoder.safetensors file; --data.source is as in pretraining, with
    labels.

    The table has three rows: raw pixels, the untrained encoder (same class, random weights) and the trained
    encoder. Its columns are kNN (k = 20), a linear probe on all labels, and linear probes on a few labels per
    class over several draws (mean and standard deviation). If the source has no test split, 20 % are held
    out.
    """
    from bt_multimodal.commands.probe import probe

    return probe(getdoc(linear) or "", modality, argv, name=NAME)


def classify(argv: Sequence[str] | None = None) -> int:
    """Train a classifier on an image encoder: linear evaluation, few labels, transfer.

        bt-multimodal image classify --config image/imagenet_linear --encoder RUN --data.source FOLDER

    --encoder is a run directory or an encoder.safetensors file (`image convert` writes one from the reference
    code's files); --fresh true trains the same network from random weights. --data.source is as in
    pretraining, with labels; --data.subset is a text file with the names of the training pictures to use,
    such as the published 1 % of ImageNet.

    The command prints top-1 and top-5 accuracy on the test split. The run directory keeps config.yaml,
    checkpoints/, table.txt and table.json.
    """
    from bt_multimodal.commands.classify import classify as command

    return command(getdoc(classify) or "", modality, argv, NAME)


def svm(argv: Sequence[str] | None = None) -> int:
    """Train one linear SVM per class on a frozen image encoder, by the recipe of VOC07 classification.

        bt-multimodal image svm --config image/voc07_svm --encoder RUN --data.source VOCdevkit/VOC2007

    --data.source is a folder with JPEGImages/ and ImageSets/Main/CLASS_SPLIT.txt. --run_dir keeps
    config.yaml, table.txt, table.json and svms.json (each class's average precision, its C, and the scores
    by which C was chosen); without it the table is only printed.

    The table compares raw pixels (larger pictures are averaged to 32 x 32), the untrained encoder (same
    class, random weights) and the trained encoder. Each class's C is chosen by cross-validation on the
    training split. The columns are the means over the classes of the whole area under the precision-recall
    curve and of VOC07's 11-point average. A picture in which a class is marked as difficult does not count in
    that class's test.
    """
    from bt_multimodal.commands.svm import svm as command

    return command(getdoc(svm) or "", _voc, argv, NAME)


def _voc() -> Any:
    from torch.nn.functional import adaptive_avg_pool2d

    from encoders.image.modality import IMAGES
    from encoders.image.voc import open_voc

    def pixels(view: Any) -> Any:
        # 224 x 224 pixels would be 150,528 features: tens of GiB in the solver.
        height, width = view.shape[2:]
        return adaptive_avg_pool2d(view, (min(height, 32), min(width, 32))).flatten(1)

    return IMAGES._replace(raw_features=pixels), open_voc


def detect(argv: Sequence[str] | None = None) -> int:
    """Fine-tune a detector from an image encoder: Faster R-CNN or Mask R-CNN on a ResNet C4.

        bt-multimodal image detect --config image/voc0712_detection --encoder RUN --data.source VOCdevkit
        bt-multimodal image detect --config image/coco_instances --encoder RUN --data.source COCO

    --encoder is a run directory or an encoder.safetensors file of a ResNet; --fresh true trains the same
    network from random weights. --data.source is a VOC devkit (VOCdevkit, or one year's folder), or a folder
    with COCO's annotations/ and one folder of pictures per split.

    The command prints the average precision on the test split. The run directory keeps config.yaml,
    checkpoints/, table.txt, table.json and detections.png: some test pictures with their objects and, below,
    with the detections.
    """
    from encoders.image.detection.command import detect as command

    return command(getdoc(detect) or "", argv, NAME)


def convert(argv: Sequence[str] | None = None) -> int:
    """Convert image encoders to and from other formats.

        bt-multimodal image convert resnet50.pth encoder.safetensors --to encoder
        bt-multimodal image convert runs/imagenet_resnet50/TIME resnet50.pth --to torchvision
        bt-multimodal image convert runs/imagenet_resnet50/TIME FOLDER --to hub

    The source is the reference code's checkpoint.pth or released resnet50.pth, a run directory, or an
    encoder.safetensors file. The formats:

    encoder       for `image linear` and the other tasks
    torchvision   a state dict with torchvision's names, .pth or .safetensors, without the head
    hub           a folder for timm and transformers (config, weights, model card with the run's table)
    """

    def run(arguments: argparse.Namespace) -> int:
        from bt_multimodal.commands.run_folder import check_encoder
        from encoders.image.exchange import convert as write

        check_encoder(arguments.source)
        write(arguments.source, arguments.target, arguments.to, arguments.trust)
        print(f"wrote {arguments.target}")
        return 0

    return run_plain(convert_parser(getdoc(convert) or ""), argv, run, NAME)


def convert_parser(doc: str) -> argparse.ArgumentParser:
    """Returns the parser of `convert`'s arguments."""
    parser = plain_parser(doc)
    parser.add_argument("source", help="what to convert")
    parser.add_argument("target", help="the file or folder to write")
    parser.add_argument("--to", required=True, choices=("encoder", "torchvision", "hub"), help="the format")
    add_trust(parser)
    return parser


def ablations(argv: Sequence[str] | None = None) -> int:
    """Pretrain and probe one encoder per config and seed, and print one table: the paper's ablations.

        bt-multimodal image ablations --base configs/image/ablations_miniature.yaml --seeds 0 1 2
            --out runs/ablations --ablations configs/image/ablations/*.yaml
            --published configs/image/ablations/published.csv

    Keys of `image pretrain` after a separate -- apply to every run: -- --trainer.max_epochs 5

    The columns are weighted kNN (k = 20) and a linear probe on all labels, both on the test split. Raw pixels
    and the untrained encoder are rows of the same table.
    """
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
    """Returns the parser of `ablations`' arguments."""
    parser = plain_parser(doc)
    parser.add_argument("--base", type=Path, required=True, help="a config of `image pretrain`")
    parser.add_argument("--ablations", type=Path, nargs="*", default=[], help="configs over it, one row each")
    parser.add_argument("--published", type=Path, help="a CSV file with columns ablation,top_1")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default 0 1 2")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the runs")
    parser.add_argument("--processes", type=int, default=1, help="runs in parallel (default 1)")
    return parser

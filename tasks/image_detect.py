r"""Fine-tune a detector from an image encoder: Faster R-CNN or Mask R-CNN on a ResNet, C4.

    python tasks/image_detect.py fit --config configs/image/voc0712_detection.yaml \
        --encoder RUN --data.source VOCdevkit
    python tasks/image_detect.py fit --config configs/image/coco_instances.yaml \
        --encoder RUN --data.source COCO
    python tasks/image_detect.py fit --help            every key, with its meaning

--encoder       a run directory or an encoder.safetensors of a ResNet
--fresh true    the same with fresh weights: what the encoder is worth untrained
--data.source   a VOC devkit (VOCdevkit, or a year's folder), or a folder with COCO's annotations/ and
                pictures in folders named as the splits

Prints the average precision on the test split; a run leaves config.yaml, checkpoints/, table.txt,
table.json and detections.png, some test pictures with their objects and below with the detections.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bt_multimodal.commands.cli import (
    add_encoder,
    base_parser,
    choose_run_dir,
    make_trainer,
    run_command,
    train,
)

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

_SHOWN = 6


def parser() -> "ArgumentParser":
    """The keys."""
    from encoders.image.detection.training import Detection, DetectionData

    made = base_parser()
    add_encoder(made)
    made.add_class_arguments(Detection, "model", skip={"encoder", "data"}, instantiate=False)
    made.add_class_arguments(DetectionData, "data", skip={"seed"}, instantiate=False)
    return made


def fit(made: "ArgumentParser", config: "Namespace") -> int:
    """Train, test, and write what a run leaves."""
    from bt_multimodal.encoder_file import load_encoder
    from bt_multimodal.evaluation.report import Comparison, save_comparison
    from bt_multimodal.training.random_state import seed_all
    from encoders.image.detection.picture import draw_detections
    from encoders.image.detection.training import Detection, DetectionData

    run = choose_run_dir(config)
    seed_all(config.seed)
    encoder = load_encoder(config.encoder, weights=not config.fresh).encoder
    data = DetectionData(seed=config.seed, **config.data.as_dict())
    model = Detection(encoder, data, **config.model.as_dict())
    model.schedule(config.trainer.max_steps)  # refuses what does not fit, before long work
    trainer = make_trainer(made, config, run)
    train(trainer, model, data)
    trainer.test(model, datamodule=data, verbose=False)
    if not trainer.is_global_zero:
        return 0
    found = model.found()
    name = "untrained encoder" if config.fresh else "trained encoder"
    title = f"{len(found)} test images, trained on {len(data.train)} for {trainer.global_step} steps"
    cells: dict[str, tuple[float, float | None]] = {key: (v, None) for key, v in model.figures().items()}
    comparison = Comparison(title, {name: cells}, "average precision in %")
    save_comparison(run, comparison)
    shown = list(found)[:_SHOWN]
    draw_detections(
        [data.test.pictures[i] for i in shown], [found[i] for i in shown], data.classes,
        run / "detections.png",
    )  # fmt: skip
    print(f"\n{comparison}\n\neverything is in {run}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; gives the exit status."""
    return run_command(__doc__ or "", argv, parser, fit)


if __name__ == "__main__":
    sys.exit(main())

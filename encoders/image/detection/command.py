"""The command that fine-tunes a detector."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bt_multimodal.commands.cli import run_command
from bt_multimodal.commands.keys import ENCODER, TRAINING, Group, Keys
from bt_multimodal.commands.training_run import TrainingRun, train

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

_SHOWN = 6  # pictures in detections.png

KEYS: Keys = (
    *TRAINING,
    *ENCODER,
    Group(
        "model",
        "encoders.image.detection.training.Detection",
        "the detector and its optimisation",
        skip=frozenset({"encoder", "data"}),
    ),
    Group(
        "data",
        "encoders.image.detection.training.DetectionData",
        "what to train and test on",
        skip=frozenset({"seed"}),
    ),
)


def detect(doc: str, argv: Sequence[str] | None, name: str) -> int:
    """Runs the command; see `run_command`."""
    return run_command(doc, argv, KEYS, _detect, name)


def _detect(parser: "ArgumentParser", config: "Namespace") -> int:
    with TrainingRun(parser, config) as run:
        return _train(run, config)


def _train(run: TrainingRun, config: "Namespace") -> int:
    from bt_multimodal.encoder_file import load_encoder
    from bt_multimodal.evaluation.figures import Figure
    from bt_multimodal.evaluation.report import Comparison
    from encoders.image.detection.picture import draw_detections
    from encoders.image.detection.training import Detection, DetectionData

    encoder = load_encoder(config.encoder, not config.fresh, config.trust).encoder
    data = DetectionData(seed=config.seed, **config.data.as_dict())
    model = Detection(encoder, data, **config.model.as_dict())
    model.schedule(config.trainer.max_steps)  # rejects wrong milestones before training starts
    trainer = run.trainer()
    train(trainer, model, data)
    trainer.test(model, datamodule=data, verbose=False)
    if not trainer.is_global_zero:
        return 0
    detections = model.detections()
    shown = list(detections)[:_SHOWN]
    draw_detections(
        [data.test.pictures[i] for i in shown], [detections[i] for i in shown], data.classes,
        run.folder / "detections.png",
    )  # fmt: skip
    row = "untrained encoder" if config.fresh else "trained encoder"
    title = f"{len(detections)} test images, trained on {len(data.train)} for {trainer.global_step} steps"
    cells = {name: Figure(value) for name, value in model.figures().items()}
    return run.finish(Comparison(title, {row: cells}, "average precision in %"))

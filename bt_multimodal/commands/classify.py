"""The command that trains a classifier on an encoder.

Nothing heavy is imported until there is something to do: Lightning alone takes many seconds.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bt_multimodal.commands.cli import run_command
from bt_multimodal.commands.config_errors import building
from bt_multimodal.commands.keys import AUGMENTATIONS, ENCODER, TRAINING, Group, Keys
from bt_multimodal.commands.training_run import TrainingRun, train

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from bt_multimodal.modality import Modality

KEYS: Keys = (
    *TRAINING,
    *ENCODER,
    AUGMENTATIONS,
    Group(
        "model",
        "bt_multimodal.training.classification.Classification",
        "the classifier and its optimisation",
        skip=frozenset({"augmentations", "encoder", "classes"}),
    ),
    Group(
        "data",
        "bt_multimodal.training.classification_data.ClassificationData",
        "what to train and test on",
        skip=frozenset({"augmentations", "modality", "seed", "run"}),
    ),
)


def classify(
    doc: str, modality: "Callable[[], Modality]", argv: Sequence[str] | None = None, name: str = "train"
) -> int:
    """Run a classification command; see `run_command`.

    Args:
        modality: returns the `Modality` (its imports wait until they are needed).
        name: the folder of ``encoders`` with the modality's encoders, and its extra.
    """
    return run_command(doc, argv, KEYS, lambda parser, config: _classify(parser, config, modality()), name)


def _classify(parser: "ArgumentParser", config: "Namespace", modality: "Modality") -> int:
    with TrainingRun(parser, config) as run:
        return _train(run, parser, config, modality)


def _train(run: TrainingRun, parser: "ArgumentParser", config: "Namespace", modality: "Modality") -> int:
    from bt_multimodal.augmentation_set import check_members, completed
    from bt_multimodal.data.sources.summary import say
    from bt_multimodal.encoder_file import load_encoder
    from bt_multimodal.evaluation.figures import Figure
    from bt_multimodal.evaluation.report import Comparison, counted
    from bt_multimodal.training.classification import Classification
    from bt_multimodal.training.classification_data import ClassificationData
    from bt_multimodal.training.first_look import check_augmentations, check_classifier
    from bt_multimodal.training.place import epoch_length

    encoder = load_encoder(config.encoder, not config.fresh, config.trust).encoder
    with building():
        augmentations = completed(parser.instantiate(config).views)
    check_members(augmentations)
    data = ClassificationData(augmentations, modality, config.seed, **config.data.as_dict(), run=run.folder)
    model = Classification(augmentations, encoder, data.train.records.classes, **config.model.as_dict())
    trainer = run.trainer(num_sanity_val_steps=0)
    if (trainer.max_epochs or 0) < 1:
        raise ValueError("the learning rate falls by epochs: give trainer.max_epochs, 1 or more")
    steps = epoch_length(trainer, len(data.train) // data.batch_size)
    if steps < 1 or not trainer.limit_val_batches:
        raise ValueError(
            "trainer.limit_train_batches or limit_val_batches leaves nothing to train or test on"
        )
    check_augmentations(augmentations, data.train)
    check_classifier(encoder, augmentations, data.train)
    say(data.found)
    data.tolerance.begin()  # what could be refused has not been
    train(trainer, model, data)
    trainer.validate(model, datamodule=data, verbose=False)
    top_1, top_5, n = model.accuracies()
    if not trainer.is_global_zero:
        return 0
    row = "untrained encoder" if config.fresh else "trained encoder"
    tested = counted(n, len(data.test), f"{data.tested_on} {modality.unit}")
    title = f"{tested}, {len(data.train)} labels"
    return run.finish(Comparison(title, {row: {"top-1": Figure(top_1), "top-5": Figure(top_5)}}))

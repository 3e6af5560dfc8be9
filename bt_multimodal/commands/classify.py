"""The command line of tasks that train a classifier on an encoder.

Nothing heavy is imported until there is something to do: Lightning alone takes many seconds.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

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

    from bt_multimodal.modality import Modality


def classify(doc: str, modality: "Callable[[], Modality]", argv: Sequence[str] | None = None) -> int:
    """Run a classification task's command line; see `run_command`.

    Args:
        modality: a function giving the `Modality` (its imports wait until they are needed).
    """
    return run_command(doc, argv, _parser, lambda parser, config: _fit(parser, config, modality()))


def _parser() -> "ArgumentParser":
    from torch import nn

    from bt_multimodal.training.classification import Classification
    from bt_multimodal.training.classification_data import LabelledData

    parser = base_parser()
    add_encoder(parser)
    parser.add_subclass_arguments(nn.Module, "views", required=True)
    own = {"views", "encoder", "classes"}
    parser.add_class_arguments(Classification, "model", skip=own, instantiate=False)
    parser.add_class_arguments(LabelledData, "data", skip={"views", "modality", "seed"}, instantiate=False)
    return parser


def _fit(parser: "ArgumentParser", config: "Namespace", modality: "Modality") -> int:
    from bt_multimodal.encoder_file import load_encoder
    from bt_multimodal.evaluation.report import Comparison, save_comparison
    from bt_multimodal.training.classification import Classification
    from bt_multimodal.training.classification_data import LabelledData
    from bt_multimodal.training.random_state import seed_all

    run = choose_run_dir(config)
    seed_all(config.seed)
    encoder = load_encoder(config.encoder, weights=not config.fresh).encoder
    views = parser.instantiate(config).views
    data = LabelledData(views=views, modality=modality, seed=config.seed, **config.data.as_dict())
    model = Classification(views, encoder, data.train.classes, **config.model.as_dict())
    trainer = make_trainer(parser, config, run, num_sanity_val_steps=0)
    train(trainer, model, data)
    trainer.validate(model, datamodule=data, verbose=False)
    one, five, n = model.accuracies()
    if not trainer.is_global_zero:
        return 0
    name = "untrained encoder" if config.fresh else "trained encoder"
    title = f"{n} {data.tested_on} {modality.unit}, {len(data.train)} labels"
    comparison = Comparison(title, {name: {"top-1": (one, None), "top-5": (five, None)}})
    save_comparison(run, comparison)
    print(f"\n{comparison}\n\neverything is in {run}")
    return 0

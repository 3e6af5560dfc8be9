"""The command line of tasks that train a classifier on an encoder.

Nothing heavy is imported until there is something to do: Lightning alone takes many seconds.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bt_multimodal.cli import base_parser, choose_run_dir, last_checkpoint, run_command

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from bt_multimodal.data import Modality


def classify(doc: str, modality: "Callable[[], Modality]", argv: Sequence[str] | None = None) -> int:
    """Run a classification task's command line; see `run_command`.

    Args:
        modality: a function giving the `Modality` (its imports wait until they are needed).
    """
    return run_command(doc, argv, _parser, lambda parser, config: _fit(parser, config, modality()))


def _parser() -> "ArgumentParser":
    from torch import nn

    from bt_multimodal.classification import Classification
    from bt_multimodal.labelled import LabelledData

    parser = base_parser()
    parser.add_argument("--encoder", type=str, required=True, help="run directory or encoder.safetensors")
    parser.add_argument(
        "--fresh", type=bool, default=False, help="with fresh weights: the untrained baseline"
    )
    parser.add_subclass_arguments(nn.Module, "views", required=True)
    own = {"views", "encoder", "classes"}
    parser.add_class_arguments(Classification, "model", skip=own, instantiate=False)
    parser.add_class_arguments(LabelledData, "data", skip={"views", "modality", "seed"}, instantiate=False)
    return parser


def _fit(parser: "ArgumentParser", config: "Namespace", modality: "Modality") -> int:
    import logging

    import lightning.pytorch as pl
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint

    from bt_multimodal.checkpoint import load_encoder
    from bt_multimodal.classification import Classification
    from bt_multimodal.labelled import LabelledData
    from bt_multimodal.memory import keep_freed_memory
    from bt_multimodal.report import Comparison, save_comparison

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    keep_freed_memory()
    run = choose_run_dir(config)
    checkpoint = last_checkpoint(run)
    torch.manual_seed(config.seed)
    encoder = load_encoder(config.encoder, weights=not config.fresh).encoder
    views = parser.instantiate(config).views
    data = LabelledData(views=views, modality=modality, seed=config.seed, **config.data.as_dict())
    model = Classification(views, encoder, data.train.classes, **config.model.as_dict())
    trainer = pl.Trainer(
        **{**config.trainer.as_dict(), "num_sanity_val_steps": 0},
        default_root_dir=run,
        logger=False,
        callbacks=[ModelCheckpoint(run / "checkpoints", save_last=True, save_top_k=0)],
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    run.mkdir(parents=True, exist_ok=True)
    if trainer.is_global_zero:
        (run / "config.yaml").write_text(parser.dump(config))
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint if checkpoint.is_file() else None)
    trainer.validate(model, datamodule=data, verbose=False)
    one, five, n = model.accuracies()
    if not trainer.is_global_zero:
        return 0
    name = "untrained encoder" if config.fresh else "trained encoder"
    title = f"{n} {data.tested_on} {modality.unit}, {len(data.train)} labels"
    comparison = Comparison(title, {name: {"top-1": (one, None), "top-5": (five, None)}})
    (run / "table.txt").write_text(f"{comparison}\n")
    save_comparison(run / "table.json", comparison)
    print(f"\n{comparison}\n\neverything is in {run}")
    return 0

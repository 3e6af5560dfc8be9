"""The keys of a command line, declared once: jsonargparse's parser and the help page are made of the same."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


class Key(NamedTuple):
    """A key of its own."""

    name: str
    help: str
    kind: Any = str
    default: Any = None
    required: bool = False


class Group(NamedTuple):
    """The arguments of a class, as keys ``prefix.argument``.

    Attributes:
        class_path: the class, whose docstring describes the arguments.
        help: what the group is.
        skip: arguments that are no keys.
        instantiate: whether parsing builds the object.
        usual: the arguments that the help page shows, where they are too many; empty: all.
        defaults: other defaults than the class's own.
    """

    prefix: str
    class_path: str
    help: str
    skip: frozenset[str] = frozenset()
    instantiate: bool = False
    usual: tuple[str, ...] = ()
    defaults: dict[str, Any] = {}  # noqa: RUF012 (never changed)


class Choice(NamedTuple):
    """A class that is chosen by its class path, an ``nn.Module``, with its own arguments below it."""

    name: str
    help: str


Keys = tuple[Key | Group | Choice, ...]

# What the trainer's own keys would contradict.
_OURS = frozenset(
    {
        "accumulate_grad_batches", "callbacks", "default_root_dir", "enable_checkpointing",
        "enable_model_summary", "enable_progress_bar", "logger", "plugins",
        "reload_dataloaders_every_n_epochs", "use_distributed_sampler", "overfit_batches",
    }
)  # fmt: skip

CONFIG = Key("config", "a YAML file, or the name of a shipped one such as image/digits; keys after it win")
TRAINING: Keys = (
    Key("seed", "seed of weights, views and batch order", int, 0),
    Key("run_dir", "where everything goes; a run found there is continued [runs/CONFIG/TIME]", str | None),
    Key(
        "resume",
        "how a run found in run_dir is continued: same, with its own settings; extend, with another "
        "trainer.max_epochs and a schedule of that length",
        Literal["same", "extend"],
        "same",
    ),
    Group(
        "trainer",
        "lightning.pytorch.trainer.trainer.Trainer",
        "Lightning's trainer",
        skip=_OURS,
        usual=(
            "max_epochs", "max_steps", "max_time", "accelerator", "devices", "num_nodes", "strategy",
            "precision", "sync_batchnorm", "gradient_clip_val", "check_val_every_n_epoch",
        ),
        defaults={"sync_batchnorm": True},
    ),
    Group(
        "checkpoint",
        "bt_multimodal.training.run_checkpoints.CheckpointOptions",
        "how often the run is saved",
        instantiate=True,
    ),
    Key("rank_timeout", "seconds until a silent rank ends the run", float, 600),
)  # fmt: skip
TRUST = Key(
    "trust", "a package, or a list of them, whose code the encoder's file may use", list[str] | str, []
)
ENCODER: Keys = (
    Key("encoder", "a run directory or an encoder.safetensors", required=True),
    Key("fresh", "use its initial weights instead: the untrained baseline", bool, False),
    TRUST,
)
AUGMENTATIONS = Choice("views", "the augmentation set: what a view is")


def make_parser(keys: Keys) -> "ArgumentParser":
    """jsonargparse's parser of ``--config`` and the keys."""
    import jsonargparse
    from jsonargparse import ArgumentParser
    from torch import nn

    from bt_multimodal.commands.config_text import checked_value, config_text
    from bt_multimodal.compat import load_values_with, read_files_with

    read_files_with(jsonargparse, config_text)
    load_values_with(jsonargparse, checked_value)
    parser = ArgumentParser(exit_on_error=False, prog="fit", allow_abbrev=False)
    parser.add_argument(f"--{CONFIG.name}", action="config", help=CONFIG.help)
    for item in keys:
        if isinstance(item, Key):
            options: dict[str, Any] = {"required": True} if item.required else {"default": item.default}
            parser.add_argument(f"--{item.name}", type=item.kind, help=item.help, **options)
        elif isinstance(item, Choice):
            parser.add_subclass_arguments(nn.Module, item.name, required=True)
        else:
            module, _, name = item.class_path.rpartition(".")
            parser.add_class_arguments(
                getattr(import_module(module), name),
                item.prefix,
                skip={*item.skip},
                instantiate=item.instantiate,
            )
            parser.set_defaults({f"{item.prefix}.{key}": value for key, value in item.defaults.items()})
    return parser

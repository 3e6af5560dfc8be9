"""Barlow Twins on anything: the modality-agnostic core.

The names below are imported when they are first used, so that a command line can answer without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bt_multimodal.augmentation_set import AugmentationSet
    from bt_multimodal.encoder_file import load_encoder
    from bt_multimodal.loss import BarlowTwinsLoss, LossTerms
    from bt_multimodal.optim import LARS
    from bt_multimodal.projector import Projector
    from bt_multimodal.twins import BarlowTwins, Headless
    from bt_multimodal.views import Views

__all__ = [
    "LARS",
    "AugmentationSet",
    "BarlowTwins",
    "BarlowTwinsLoss",
    "Headless",
    "LossTerms",
    "Projector",
    "Views",
    "load_encoder",
]

_MODULES = {
    "LARS": "optim",
    "AugmentationSet": "augmentation_set",
    "BarlowTwins": "twins",
    "BarlowTwinsLoss": "loss",
    "Headless": "twins",
    "LossTerms": "loss",
    "Projector": "projector",
    "Views": "views",
    "load_encoder": "encoder_file",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Barlow Twins on anything: the modality-agnostic core."""

from bt_multimodal.loss import BarlowTwinsLoss, LossTerms
from bt_multimodal.optim import LARS
from bt_multimodal.projector import Projector
from bt_multimodal.twins import BarlowTwins, Headless
from bt_multimodal.views import Views

__all__ = ["LARS", "BarlowTwins", "BarlowTwinsLoss", "Headless", "LossTerms", "Projector", "Views"]

"""The dropout rate of a network, set from outside: dropout is an augmentation of text.

SimCSE (Gao et al., 2021) takes two passes at one rate for two views, self-contrastive decorrelation
(Klein and Nabi, 2022) passes at two rates.
"""

from typing import Any

from torch import Tensor, nn


def view_rate(view: dict[str, Tensor]) -> float | None:
    """The rate that a view asks for: any entry of its ``dropout [B]``; ``None`` where it has none."""
    rates = view.get("dropout")
    return None if rates is None else float(rates[0])


def set_dropout(module: nn.Module, rate: float | None) -> None:
    """Set every dropout within ``module`` to ``rate``, or each back to its own with ``None``.

    That is the ``p`` of every ``nn.Dropout`` and the plain numbers named ``...dropout`` that attention
    modules of transformers keep for the function they call. The modules are walked through once; a
    rate's own value is what it was then. A layer that was built without dropout where its
    configuration has 0 (ModernBERT's attention outputs) stays without.
    """
    places = vars(module).get("_dropout_places")
    if places is None:
        places = vars(module)["_dropout_places"] = _places(module)
    for owner, name, own in places:
        setattr(owner, name, own if rate is None else rate)


def _places(module: nn.Module) -> list[tuple[nn.Module, str, float]]:
    """Owner, attribute and present value of every rate."""
    found: list[tuple[nn.Module, str, float]] = []
    for owner in module.modules():
        if isinstance(owner, nn.Dropout):
            found.append((owner, "p", owner.p))
        found += [(owner, name, value) for name, value in vars(owner).items() if _is_rate(name, value)]
    return found


def _is_rate(name: str, value: Any) -> bool:
    return "dropout" in name and isinstance(value, int | float) and not isinstance(value, bool)

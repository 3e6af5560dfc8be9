"""Setting a network's dropout rate from outside: dropout is an augmentation of text.

The two views of SimCSE (Gao et al., 2021) are two passes at one rate; those of self-contrastive decorrelation
(Klein and Nabi, 2022) are passes at two rates.
"""

from typing import Any

from torch import Tensor, nn


def view_rate(view: dict[str, Tensor]) -> float | None:
    """Returns the rate in a view's ``dropout [B]``, whose entries are equal, or ``None`` if it has none."""
    rates = view.get("dropout")
    return None if rates is None else float(rates[0])


def set_dropout(module: nn.Module, rate: float | None) -> None:
    """Sets every dropout rate within ``module`` to ``rate``; ``None`` restores the original rates.

    The rates are the ``p`` of every ``nn.Dropout`` and the numbers named ``...dropout`` that attention
    modules of transformers pass to functions. They are collected at the first call, and their values then are
    the original ones. A layer that was built without dropout because its configuration has 0 (ModernBERT's
    attention outputs) keeps none.
    """
    rates = vars(module).get("_dropout_rates")
    if rates is None:
        rates = vars(module)["_dropout_rates"] = _dropout_rates(module)
    for owner, name, original in rates:
        setattr(owner, name, original if rate is None else rate)


def _dropout_rates(module: nn.Module) -> list[tuple[nn.Module, str, float]]:
    """Returns owner, attribute and present value of every rate."""
    rates: list[tuple[nn.Module, str, float]] = []
    for owner in module.modules():
        if isinstance(owner, nn.Dropout):
            rates.append((owner, "p", owner.p))
        rates += [(owner, name, value) for name, value in vars(owner).items() if _is_rate(name, value)]
    return rates


def _is_rate(name: str, value: Any) -> bool:
    return "dropout" in name and isinstance(value, int | float) and not isinstance(value, bool)

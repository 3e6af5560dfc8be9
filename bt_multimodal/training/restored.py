"""What a checkpoint brings is of the same network and the same data, in any version's names."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

_FORMER = {"_views.": "_augmentations."}
_SHOWN = 3  # weights that a message names


def fitting(module: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict with today's names, from one of any version.

    Raises:
        ValueError: it is of another network than ``module``; the message names the first differences.
    """
    state = _with_new_names(state)
    own = module.state_dict()
    differences = [f"{name} is missing" for name in own if name not in state]
    differences += [f"{name} is not in the network" for name in state if name not in own]
    for name, tensor in own.items():
        kept = state.get(name)
        if isinstance(tensor, Tensor) and isinstance(kept, Tensor) and kept.shape != tensor.shape:
            differences.append(f"{name} is {list(kept.shape)}, the network has {list(tensor.shape)}")
    if differences:
        more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise ValueError(
            f"the checkpoint is of another network: {'; '.join(differences[:_SHOWN])}{more}; the run can be "
            "continued with the code and the settings that it was started with"
        )
    return state


def _with_new_names(state: Mapping[str, Any]) -> dict[str, Any]:
    renamed: dict[str, Any] = {}
    for name, value in state.items():
        for former, new in _FORMER.items():
            if name.startswith(former):
                name = new + name.removeprefix(former)
        renamed[name] = value
    return renamed


def check_same_records(now: int, before: int) -> None:
    """Refuse to continue a run on other data than it was started with.

    Args:
        now, before: the numbers of training records.

    Raises:
        ValueError: they differ.
    """
    if now != before:
        raise ValueError(
            f"the training data have changed: there are {now} records to train on, the run was started with "
            f"{before}; continue with the same data, or choose another --run_dir"
        )

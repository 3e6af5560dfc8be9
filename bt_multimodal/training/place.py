"""Where a Lightning trainer is: its rank, its place in the epoch, and how long its run is."""

import warnings
from collections.abc import Sequence
from typing import Any


def place(trainer: Any, steps: int) -> tuple[int, int, tuple[int, int]]:
    """Rank, number of ranks, and the ``start`` that `data.batches.GlobalBatches` takes.

    Args:
        trainer: a Lightning trainer, or ``None`` where there is none yet.
        steps: batches of an epoch.
    """
    if trainer is None:
        return 0, 1, (0, 0)
    steps = epoch_length(trainer, steps)
    epoch = trainer.current_epoch
    done = max(0, trainer.global_step - epoch * steps)
    if steps and done >= steps:  # saved at an epoch's end, before it is counted
        epoch, done = epoch + done // steps, done % steps
    return trainer.global_rank, trainer.world_size, (epoch, done)


def epoch_length(trainer: Any, steps: int) -> int:
    """Steps that a trainer takes in an epoch of ``steps`` batches."""
    limit = trainer.limit_train_batches
    return min(steps, limit) if isinstance(limit, int) else int(steps * limit)


def run_length(trainer: Any, steps: int) -> int:
    """Steps that a trainer takes in all, of epochs of ``steps`` batches.

    Raises:
        ValueError: a run without an end, or without a step.
    """
    steps, epochs, most = epoch_length(trainer, steps), trainer.max_epochs, trainer.max_steps
    lengths = [most] if most is not None and most >= 0 else []
    if epochs is not None and epochs >= 0:
        lengths.append(epochs * steps)
    if not lengths:
        raise ValueError(
            "the learning rate falls until the end of the run: give trainer.max_epochs or trainer.max_steps"
        )
    if min(lengths) < 1:
        raise ValueError(f"the run has no step: trainer.max_epochs is {epochs}, trainer.max_steps {most}, "
                         f"and an epoch has {steps} steps")  # fmt: skip
    return min(lengths)


def reached(milestones: Sequence[int], length: int, unit: str) -> list[int]:
    """The milestones within a run of ``length`` epochs or steps (``unit``); a warning names the others.

    Raises:
        ValueError: a milestone that is not above 0.
    """
    if any(milestone < 1 for milestone in milestones):
        raise ValueError(f"milestones must be 1 or more, not {list(milestones)}")
    late = [milestone for milestone in milestones if milestone >= length]
    if late:
        warnings.warn(f"the run ends after {length} {unit}, before the milestones {late}", stacklevel=2)
    return [milestone for milestone in milestones if milestone < length]

"""Where a Lightning trainer is: its rank, and its place in the epoch."""

from typing import Any


def place(trainer: Any, steps: int) -> tuple[int, int, tuple[int, int]]:
    """Rank, number of ranks, and the ``start`` that `data.batches.GlobalBatches` takes.

    Args:
        trainer: a Lightning trainer, or ``None`` where there is none yet.
        steps: batches of an epoch.
    """
    if trainer is None:
        return 0, 1, (0, 0)
    limit = trainer.limit_train_batches
    steps = min(steps, limit) if isinstance(limit, int) else int(steps * limit)
    epoch = trainer.current_epoch
    done = max(0, trainer.global_step - epoch * steps)
    if steps and done >= steps:  # saved at an epoch's end, before it is counted
        epoch, done = epoch + done // steps, done % steps
    return trainer.global_rank, trainer.world_size, (epoch, done)

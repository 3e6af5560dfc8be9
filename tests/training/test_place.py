"""Where a trainer continues: at the epoch's next batch, and after its last one at the next epoch."""

from types import SimpleNamespace

import pytest

from bt_multimodal.training.place import place


def at(epoch, step, limit=1.0):
    return SimpleNamespace(
        global_rank=1, world_size=3, current_epoch=epoch, global_step=step, limit_train_batches=limit
    )


@pytest.mark.parametrize(
    ("trainer", "start"),
    [
        (at(0, 0), (0, 0)),
        (at(0, 1), (0, 1)),
        (at(0, 3), (0, 3)),
        (at(0, 4), (1, 0)),  # saved at the epoch's end, before the trainer counts the epoch
        (at(1, 4), (1, 0)),  # saved after it has
        (at(2, 11), (2, 3)),
        (at(2, 12), (3, 0)),
        (at(0, 2, limit=2), (1, 0)),
        (at(1, 3, limit=2), (1, 1)),
        (at(0, 2, limit=0.5), (1, 0)),
        (at(0, 4, limit=9), (1, 0)),
    ],
)
def test_the_place_in_epochs_of_four_batches(trainer, start):
    assert place(trainer, 4) == (1, 3, start)


def test_without_a_trainer():
    assert place(None, 4) == (0, 1, (0, 0))

"""Where a trainer continues: at the epoch's next batch, and after its last one at the next epoch."""

from types import SimpleNamespace

import pytest

from bt_multimodal.training.place import place, reached, run_length


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


class Trainer:
    def __init__(self, max_epochs=None, max_steps=-1, limit_train_batches=1.0):
        self.max_epochs, self.max_steps, self.limit_train_batches = max_epochs, max_steps, limit_train_batches


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 4}, 40),
        ({"max_epochs": 4, "max_steps": 7}, 7),
        ({"max_epochs": 1, "max_steps": 70}, 10),
        ({"max_steps": 70}, 70),
        ({"max_epochs": -1, "max_steps": 70}, 70),
        ({"max_epochs": 4, "limit_train_batches": 3}, 12),
        ({"max_epochs": 4, "limit_train_batches": 0.5}, 20),
        ({"max_epochs": 4, "limit_train_batches": 99}, 40),
    ],
)
def test_the_length_of_a_run(options, steps):
    assert run_length(Trainer(**options), 10) == steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give trainer.max_epochs or trainer.max_steps"),
        ({"max_epochs": -1}, "give trainer.max_epochs or trainer.max_steps"),
        ({"max_epochs": 0}, "the run has no step: trainer.max_epochs is 0"),
        ({"max_epochs": 3, "max_steps": 0}, "trainer.max_steps 0"),
        ({"max_epochs": 3, "limit_train_batches": 0.01}, "an epoch has 0 steps"),
    ],
)
def test_runs_without_an_end_or_a_step(options, message):
    with pytest.raises(ValueError, match=message):
        run_length(Trainer(**options), 10)


def test_milestones_that_are_reached():
    assert reached([1, 9], 10, "epochs") == [1, 9]
    with pytest.warns(UserWarning, match=r"ends after 9 epochs, before the milestones \[9, 12\]"):
        assert reached([1, 9, 12], 9, "epochs") == [1]

"""What a checkpoint brings fits, or is refused in one line."""

import pytest
import torch
from torch import nn

from bt_multimodal.training.restored import check_same_records, fitting


class Model(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.encoder = nn.Linear(2, width)
        self._augmentations = nn.BatchNorm1d(1)


def test_the_same_network_in_any_versions_names():
    state = Model().state_dict()
    former = {name.replace("_augmentations.", "_views."): value for name, value in state.items()}
    assert former.keys() != state.keys()
    found = fitting(Model(), former)
    assert found.keys() == state.keys()
    assert all(found[name] is value for name, value in state.items())


def test_other_networks_are_named():
    state = Model().state_dict()
    with pytest.raises(
        ValueError, match=r"encoder.weight is \[3, 2\], the network has \[4, 2\].*encoder.bias"
    ):
        fitting(Model(4), state)
    with pytest.raises(ValueError, match=r"of another network: encoder.bias is missing;"):
        fitting(Model(), {name: value for name, value in state.items() if name != "encoder.bias"})
    with pytest.raises(ValueError, match="head is not in the network"):
        fitting(Model(), {**state, "head": torch.zeros(1)})
    with pytest.raises(ValueError, match="and 4 more; the run can be continued with the code"):
        fitting(Model(), {})


def test_state_that_is_no_tensor():
    class Remembers(Model):
        def get_extra_state(self):
            return {"clips": 3}

        def set_extra_state(self, state):
            pass

    assert fitting(Remembers(), Remembers().state_dict())["_extra_state"] == {"clips": 3}


def test_the_number_of_records():
    check_same_records(5, 5)
    with pytest.raises(ValueError, match="there are 6 records to train on, the run was started with 5"):
        check_same_records(6, 5)

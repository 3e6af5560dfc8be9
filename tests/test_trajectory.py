"""The whole training loop against the authors' code: 30 steps in float64.

The reference model ends in a BatchNorm without affine parameters on the embeddings. Here the loss
standardises, so there is no such module: its running mean, the last of the reference's buffers, has no
counterpart and is left out. All 43 parameters and the 14 other running means are compared.

The loop amplifies rounding: the authors' own loop, written out, gives their numbers to the last bit with the
threads that they were made with, and losses up to 3e-8 away with others (and 3e-6 away from initial values by
numpy's sine, which differs from torch's in the last place). So the losses' tolerance grows with the step; the
norms of what was learned hold 1e-9.
"""

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from bt_multimodal import LARS, BarlowTwins, Headless, Projector
from bt_multimodal.optim import parameter_groups, schedule


@pytest.fixture
def _one_thread():
    """The same order of summation on any machine; small float64 convolutions gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def initialise(model: nn.Module) -> None:
    """Parameter i, element j (flattened), from a formula that needs no random numbers."""
    with torch.no_grad():
        for i, (name, p) in enumerate(model.named_parameters()):
            j = torch.arange(1, p.numel() + 1, dtype=torch.float64)
            if p.ndim == 1:
                value = float(name.endswith("weight")) + 0.1 * torch.sin(0.37 * j + i)
            else:
                value = 0.05 * torch.sin(0.37 * j * (1 + 0.001 * i) + i)
            p.copy_(value.view_as(p))


@pytest.mark.usefixtures("_one_thread")
def test_thirty_steps(reference):
    golden = reference("trajectory")
    backbone = ResNet(BasicBlock, [1, 1, 1, 1], zero_init_residual=True)
    model = BarlowTwins(Headless(backbone, 512, head="fc"), Projector([512, 64, 64, 64])).double()
    initialise(model)
    optimizer = LARS(parameter_groups(model, bias_lr_ratio=0.0048 / 0.2), lr=0.2, weight_decay=1e-6)
    scheduler = schedule(optimizer, 16, warmup_steps=10 * 2, total_steps=20 * 2)
    g = torch.Generator().manual_seed(11)

    def noise() -> torch.Tensor:
        return torch.randn(16, 3, 32, 32, generator=g, dtype=torch.float64)

    losses = []
    for _ in range(30):
        x = noise()
        total = model(x + 0.1 * noise(), x + 0.1 * noise()).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        scheduler.step()
        losses.append(total.item())

    error = (torch.tensor(losses, dtype=torch.float64) / golden["losses"] - 1).abs()
    assert error[:2].max() < 1e-13  # the first step's rate is 0: these are of the initial values
    assert error[:4].max() < 1e-9
    assert error.median() < 3e-9
    assert error.max() < 2e-7
    norms = torch.stack([p.detach().norm() for p in model.parameters()])
    torch.testing.assert_close(norms, golden["final_norms"], rtol=1e-9, atol=0)
    means = torch.stack([b.norm() for name, b in model.named_buffers() if name.endswith("running_mean")])
    torch.testing.assert_close(means, golden["running_mean_norm"][:-1], rtol=5e-9, atol=0)

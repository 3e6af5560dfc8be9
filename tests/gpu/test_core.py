"""The core on a GPU: the numbers of a CPU in float64, whatever autocast says."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from bt_multimodal import LARS, BarlowTwins, BarlowTwinsLoss, Projector
from bt_multimodal.optim import parameter_groups
from bt_multimodal.training.random_state import random_state, restore_random_state

SIZES = [(64, 512), (256, 128), (200, 8192)]


def embeddings(n, d):
    """Correlated, shifted, of different scales."""
    g = torch.Generator().manual_seed(n + d)
    common = torch.randn(n, d, generator=g, dtype=torch.float64)
    scale = torch.rand(d, generator=g, dtype=torch.float64) + 0.1
    return [(common + torch.randn(n, d, generator=g, dtype=torch.float64)) * scale + 3 for _ in range(2)]


def exact(z_first, z_second):
    """Loss and gradients on the CPU in float64, by the definition."""
    leaves = [z.cpu().double().requires_grad_() for z in (z_first, z_second)]
    total = BarlowTwinsLoss(form="direct")(*leaves).total
    return total.item(), torch.autograd.grad(total, leaves)


def relative(found, expected):
    return ((found.cpu().double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("form", ["gram", "direct"])
@pytest.mark.parametrize(("n", "d"), SIZES)
def test_loss_and_gradient_are_those_of_a_cpu(form, n, d):
    leaves = [z.float().cuda().requires_grad_() for z in embeddings(n, d)]
    expected, gradients = exact(*[z.detach() for z in leaves])
    terms = BarlowTwinsLoss(form=form)(*leaves)
    assert terms.total.item() == pytest.approx(expected, rel=1e-5)
    for found, gradient in zip(torch.autograd.grad(terms.total, leaves), gradients, strict=True):
        assert relative(found, gradient) < 2e-5


@pytest.mark.parametrize("form", ["gram", "direct"])
def test_autocast_does_not_reach_the_loss(form):
    """Embeddings in bfloat16, arithmetic in float32: nothing is lost but in the embeddings themselves."""
    leaves = [z.cuda().bfloat16().requires_grad_() for z in embeddings(128, 1024)]
    expected, gradients = exact(*[z.detach() for z in leaves])
    with torch.autocast("cuda", torch.bfloat16):
        terms = BarlowTwinsLoss(form=form)(*leaves)
        found = torch.autograd.grad(terms.total, leaves)
    assert terms.total.dtype == torch.float32
    assert terms.total.item() == pytest.approx(expected, rel=1e-5)
    for ours, gradient in zip(found, gradients, strict=True):
        assert ours.dtype == torch.bfloat16
        assert relative(ours, gradient) < 2e-3  # half of bfloat16's last digit


class Noisy(nn.Module):
    """BatchNorm and dropout."""

    features_dim = 32

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 32)
        )

    def forward(self, view):
        return self.layers(view)


def twins(accumulate=1, dropout=0.2):
    torch.manual_seed(0)
    encoder = Noisy()
    encoder.layers[3].p = dropout
    return BarlowTwins(
        encoder, Projector([32, 256, 256, 256]), BarlowTwinsLoss(), accumulate=accumulate
    ).cuda()


def views(n=96):
    g = torch.Generator().manual_seed(1)
    clean = torch.randn(n, 16, generator=g)
    return [(clean + 0.3 * torch.randn(n, 16, generator=g)).cuda() for _ in range(2)]


def gradient(network, autocast=torch.float32):
    torch.cuda.manual_seed(7)
    with torch.autocast("cuda", autocast, enabled=autocast != torch.float32):
        total = network(*views()).total
    total.backward()
    return total.item(), torch.cat([p.grad.flatten() for p in network.parameters()]).cpu().double()


def test_twins_in_bfloat16_are_near_those_in_float32():
    whole, reduced = gradient(twins(dropout=0.0)), gradient(twins(dropout=0.0), torch.bfloat16)
    assert reduced[0] == pytest.approx(whole[0], rel=0.02)
    assert torch.cosine_similarity(whole[1], reduced[1], dim=0) > 0.99


@pytest.mark.parametrize("autocast", [torch.float32, torch.bfloat16])
def test_micro_batches_draw_the_same_dropout_twice(autocast):
    """Against the same parts with all their activations kept, BatchNorm's statistics being each part's."""
    found = gradient(twins(accumulate=3), autocast)
    expected = twins()
    torch.cuda.manual_seed(7)
    with torch.autocast("cuda", autocast, enabled=autocast != torch.float32):
        z = [
            torch.cat([expected.projector(expected.encoder(part)) for part in view.tensor_split(3)])
            for view in views()
        ]
        total = expected.loss(*z).total
    total.backward()
    by_hand = torch.cat([p.grad.flatten() for p in expected.parameters()]).cpu().double()
    assert found[0] == pytest.approx(total.item(), rel=1e-6)
    assert relative(found[1], by_hand) < (1e-5 if autocast == torch.float32 else 1e-2)


def test_lars_is_that_of_a_cpu():
    def trained(device):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.Linear(32, 8)).to(device)
        optimizer = LARS(parameter_groups(network), lr=0.5)
        x = torch.randn(64, 16, generator=torch.Generator().manual_seed(2)).to(device)
        for _ in range(20):
            optimizer.zero_grad()
            (network(x) - 1).square().mean().backward()
            optimizer.step()
        return torch.cat([p.detach().flatten().cpu() for p in network.parameters()])

    torch.testing.assert_close(trained("cuda"), trained("cpu"), rtol=1e-4, atol=1e-6)


def test_random_state_of_the_device_comes_back():
    state = random_state()
    first = torch.rand(5, device="cuda")
    restore_random_state(state)
    assert torch.equal(torch.rand(5, device="cuda"), first)


def test_a_group_of_one_over_nccl(tmp_path):
    """The collectives take part, on the device."""
    z = [z.float().cuda().requires_grad_() for z in embeddings(64, 512)]
    alone = {form: BarlowTwinsLoss(form=form)(*z).total for form in ("gram", "direct")}
    grads = {form: torch.autograd.grad(total, z) for form, total in alone.items()}
    device = torch.device("cuda", torch.cuda.current_device())
    dist.init_process_group("nccl", f"file://{tmp_path}/store", rank=0, world_size=1, device_id=device)
    try:
        for form, total in alone.items():
            grouped = BarlowTwinsLoss(form=form)(*z).total
            assert torch.equal(grouped, total)
            for ours, theirs in zip(torch.autograd.grad(grouped, z), grads[form], strict=True):
                assert torch.equal(ours, theirs)
    finally:
        dist.destroy_process_group()

"""LARS and the schedule against the authors' numbers; groups, state, and what they refuse."""

import copy

import pytest
import torch
from torch import nn

from bt_multimodal import LARS
from bt_multimodal.optim import parameter_groups, schedule, warmup_cosine


def test_lars_equals_the_reference(reference):
    golden = reference("lars")
    params = {
        name: nn.Parameter(golden[f"init_{name}"].clone()) for name in ("conv", "linear", "bias", "norm")
    }
    module = nn.ParameterDict(params)
    groups = parameter_groups(module)
    assert [[tuple(p.shape) for p in group["params"]] for group in groups] == [
        [(8, 3, 3, 3), (10, 8)],
        [(10,), (8,)],
    ]
    optimizer = LARS(groups, lr=0.0, weight_decay=0.01, momentum=0.9, eta=0.001)
    for t in range(8):
        for group, base in zip(optimizer.param_groups, (0.2, 0.0048), strict=True):
            group["lr"] = base * (t + 1)
        for name, p in params.items():
            p.grad = golden[f"grad_{t}_{name}"].clone()
        optimizer.step()
        for name, p in params.items():
            torch.testing.assert_close(p.data, golden[f"param_{t}_{name}"], rtol=1e-12, atol=1e-14)
            assert torch.equal(p.grad, golden[f"grad_{t}_{name}"])  # gradients are the caller's


def test_schedule_equals_the_reference(reference):
    table = reference("schedule")["1000ep_625steps_b2048"]
    optimizer = LARS(parameter_groups(nn.Linear(3, 2), bias_lr_ratio=0.0048 / 0.2), lr=0.2)
    scheduler = schedule(optimizer, 2048, warmup_steps=10 * 625, total_steps=1000 * 625)
    for step, *rates in table.tolist():
        got = [base * f(int(step)) for base, f in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
        assert got == pytest.approx(rates, rel=1e-12, abs=1e-15)


def test_the_schedule_moves_both_groups():
    optimizer = LARS(parameter_groups(nn.Linear(3, 2), bias_lr_ratio=0.5), lr=0.2)
    scheduler = schedule(optimizer, 512, warmup_steps=2, total_steps=4)
    rates = []
    for _ in range(5):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    middle = 0.4 * (0.5 + 0.001 * 0.5)
    expected = [0, 0.2, 0.4, middle, 0.0004]
    assert [r[0] for r in rates] == pytest.approx(expected)
    assert [r[1] for r in rates] == pytest.approx([r / 2 for r in expected])


def test_groups():
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.Linear(3, 2), nn.Linear(2, 2))
    model[3].requires_grad_(False)
    weights, others = parameter_groups(model, bias_lr_ratio=0.024)
    assert [id(p) for p in weights["params"]] == [id(model[0].weight), id(model[2].weight)]
    rest = [model[0].bias, model[1].weight, model[1].bias, model[2].bias]
    assert [id(p) for p in others["params"]] == [id(p) for p in rest]
    assert (weights["adapt"], others["adapt"]) == (True, False)
    assert (others["weight_decay"], others["lr_ratio"]) == (0.0, 0.024)
    assert len(parameter_groups(nn.Linear(2, 2, bias=False))) == 1


def test_adaptation_is_the_groups_flag_and_not_the_shape():
    vector, matrix = nn.Parameter(torch.full((4,), 2.0)), nn.Parameter(torch.full((2, 2), 2.0))
    optimizer = LARS(
        [{"params": [vector], "adapt": True}, {"params": [matrix], "adapt": False}], lr=1.0, weight_decay=0.0
    )
    vector.grad, matrix.grad = torch.full((4,), 0.5), torch.full((2, 2), 0.5)
    optimizer.step()
    torch.testing.assert_close(vector.data, torch.full((4,), 2 - 0.001 * 4 / 1 * 0.5))
    torch.testing.assert_close(matrix.data, torch.full((2, 2), 1.5))


def test_zero_norms_take_the_plain_step():
    zero, still = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    unused = nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([zero, still, unused], lr=0.1, weight_decay=0.0)
    zero.grad, still.grad = torch.ones(2, 2), torch.zeros(2, 2)
    optimizer.step()
    torch.testing.assert_close(zero.data, torch.full((2, 2), -0.1))
    assert torch.equal(still.data, torch.ones(2, 2))
    assert torch.equal(unused.data, torch.ones(2, 2))
    assert unused not in optimizer.state


def test_a_saved_optimizer_continues():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = LARS(parameter_groups(model), lr=0.5)

    def steps(model, optimizer, seeds):
        for seed in seeds:
            x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    steps(model, optimizer, range(3))
    resumed = copy.deepcopy(model)
    other = LARS(parameter_groups(resumed), lr=0.1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(model, optimizer, range(3, 6))
    steps(resumed, other, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))


def test_closure():
    p = nn.Parameter(torch.ones(1))

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    optimizer = LARS([{"params": [p], "adapt": False}], lr=0.25)
    assert optimizer.step(closure).item() == 1.0
    assert p.item() == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -0.1}, "lr=-0.1"),
        ({"weight_decay": -1e-6}, "weight_decay=-1e-06"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"momentum": -0.5}, "0 <= momentum < 1"),
        ({"eta": 0.0}, "eta=0.0"),
    ],
)
def test_wrong_rates(arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        LARS([nn.Parameter(torch.ones(1))], **arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(("warmup", "total"), [(10, 10), (11, 10), (-1, 10), (0, 0)])
def test_wrong_warmup(warmup, total):
    with pytest.raises(ValueError, match="shorter than the run") as error:
        warmup_cosine(warmup, total)
    assert f"({warmup} steps)" in str(error.value)
    assert f"({total})" in str(error.value)


def test_no_warmup():
    assert warmup_cosine(0, 10)(0) == 1.0

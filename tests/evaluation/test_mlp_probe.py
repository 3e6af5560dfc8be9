"""HEAR's recipe: solves what no linear probe can, chooses on its own split, repeats itself."""

import pytest
import torch

from bt_multimodal.evaluation import mlp_probe as module
from bt_multimodal.evaluation.features import FeatureTable
from bt_multimodal.evaluation.mlp_probe import mlp_probe
from bt_multimodal.evaluation.probes import accuracy, evaluate, linear_probe

ONE = {"layers": [1], "rates": [1e-3]}


pytestmark = pytest.mark.usefixtures("one_thread")


def rings(n, seed):
    """Two classes, one around the other, labelled 2 and 5."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator))
    outside = torch.arange(n) % 2
    return direction * (1 + outside)[:, None], 2 + 3 * outside


def test_it_learns_what_is_not_linear():
    x, y = rings(300, 0)
    queries, expected = rings(200, 1)
    assert accuracy(linear_probe(x, y, queries), expected) < 70
    assert accuracy(mlp_probe(x, y, queries, **ONE), expected) > 90


@pytest.mark.parametrize("depth", [1, 2])
def test_the_network_is_hears(depth):
    network = module._network(7, 3, depth, torch.Generator().manual_seed(0))
    kinds = [type(m).__name__ for m in network]
    assert kinds == ["Linear", "BatchNorm1d", "Dropout", "ReLU"] * depth + ["Linear"]
    assert [m.out_features for m in network if isinstance(m, torch.nn.Linear)] == [1024] * depth + [3]
    first, last = network[0].weight.detach(), network[-1].weight.detach()
    assert first.abs().max() == pytest.approx((6 / (7 + 1024)) ** 0.5, rel=0.01)
    assert last.abs().max() == pytest.approx((2 * 6 / (3 + 1024)) ** 0.5, rel=0.01)


def test_the_grid_point_that_validates_best_is_taken(monkeypatch):
    tried = []

    def train(network, rate, fit, held, queries, generator):
        depth = sum(isinstance(m, torch.nn.ReLU) for m in network)
        tried.append((depth, rate))
        assert len(fit[0]) == 90
        assert len(held[0]) == 10
        label = 1 if (depth, rate) == (2, 1e-3) else 0
        return 0.5 + 0.1 * label, torch.full((len(queries),), label)

    monkeypatch.setattr(module, "_train", train)
    x, y = rings(100, 0)
    assert mlp_probe(x, y, x[:4]).tolist() == [5] * 4
    assert sorted(tried) == sorted((d, r) for d in (1, 2) for r in (3.2e-3, 1e-3, 3.2e-4, 1e-4))


def test_training_stops_and_keeps_the_best_look(monkeypatch):
    x, y = rings(60, 0)
    y = (y > 2).long()
    looks = []

    class Network(torch.nn.Linear):
        """Right about what is held only at its third look."""

        def forward(self, x):
            if self.training:
                return super().forward(x)
            if len(x) == 10:
                looks.append(1)
            right = len(looks) == 3
            return torch.nn.functional.one_hot(y[:10] if right else 1 - y[:10], 2).float()[: len(x)]

    score, found = module._train(Network(3, 2), 1e-3, (x, y), (x[:10], y[:10]), x[:5], torch.Generator())
    assert score == 1.0
    assert found.tolist() == y[:5].tolist()
    assert len(looks) == 3 + 20


def test_same_seed_same_answer_and_nothing_else_disturbed():
    x, y = rings(120, 0)
    queries = torch.randn(50, 3, generator=torch.Generator().manual_seed(2))
    state = torch.get_rng_state()
    first = mlp_probe(x, y, queries, **ONE)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(mlp_probe(x, y, queries, **ONE), first)


def test_the_table_has_it_when_asked(monkeypatch):
    monkeypatch.setattr(
        "bt_multimodal.evaluation.probes.mlp_probe",
        lambda x, y, queries, seed: torch.ones(len(queries)).long(),
    )
    table = FeatureTable(torch.randn(20, 3), torch.arange(20) % 2, ["a", "b"])
    assert evaluate(table, table, per_class=(), mlp=True)["MLP"] == (50.0, None)
    assert "MLP" not in evaluate(table, table, per_class=())


def test_too_little_to_learn_from():
    with pytest.raises(ValueError, match="2 classes or more, got 1"):
        mlp_probe(torch.randn(5, 2), torch.zeros(5, dtype=torch.int64), torch.randn(1, 2))
    with pytest.raises(ValueError, match="too few"):
        mlp_probe(torch.randn(2, 2), torch.arange(2), torch.randn(1, 2), **ONE)
